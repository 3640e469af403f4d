"""What the script of a batch job has in its environment, for a script that drives the nodes of a job itself.

An agent is a task of a step, and most of what Slurm tells a task is wrong for such a script: ``srun`` reads
its options from the same variables (srun(1), INPUT ENVIRONMENT VARIABLES). With those of our step its output
would be labelled, its tasks bound, one on a node, and given nothing but the few variables that an agent gets.
So what is known to be the job's is passed on, and nothing else: a variable that a later Slurm adds to a step
stays out. Ranks of other cases get none of it: MPI and PyTorch take a process with SLURM_PROCID for a rank
that Slurm has started.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Of the job and of this node, the same in a step as in a batch script (sbatch(1), OUTPUT ENVIRONMENT
#: VARIABLES), and how the cluster is reached.
OF_THE_JOB = (
    "SLURM_CLUSTER_NAME", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CPUS_ON_NODE", "SLURM_GPUS_ON_NODE",
    "SLURM_JOBID", "SLURM_JOB_ACCOUNT", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_END_TIME", "SLURM_JOB_GID",
    "SLURM_JOB_GPUS", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_QOS",
    "SLURM_JOB_RESERVATION", "SLURM_JOB_START_TIME", "SLURM_JOB_UID", "SLURM_JOB_USER",
    "SLURM_RESTART_COUNT", "SLURM_TOPOLOGY_ADDR", "SLURM_TOPOLOGY_ADDR_PATTERN", "SLURM_WORKING_CLUSTER",
    "SLURMD_NODENAME",
)  # fmt: skip
#: How the engine is reached: the script's own containers belong to the one that has the image.
OF_THE_ENGINE = ("XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST")


def batch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """From the environment of an agent that of a batch script with a task on each node that has an agent.

    Without a job only what says how the engine is reached.
    """
    kept = {name: environ[name] for name in OF_THE_ENGINE if name in environ}
    if not environ.get("SLURM_JOB_ID"):
        return kept
    kept |= {name: environ[name] for name in OF_THE_JOB if name in environ}
    nodes = environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES", "")
    names = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "")
    made = {
        "SLURM_NNODES": nodes,
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_NTASKS": nodes,
        "SLURM_NPROCS": nodes,
        "SLURM_TASKS_PER_NODE": _each(nodes),
        "SLURM_NODELIST": names,
        "SLURM_JOB_NODELIST": names,
        # Slurm 22.05 gives a step this one under the name of a heterogeneous job's first part
        "SLURM_JOB_CPUS_PER_NODE": environ.get("SLURM_JOB_CPUS_PER_NODE")
        or environ.get("SLURM_JOB_CPUS_PER_NODE_PACK_GROUP_0", ""),
    }
    return kept | {name: value for name, value in made.items() if value}


def _each(nodes: str) -> str:
    """One task on each node in Slurm's short form: ``1(x4)``."""
    return f"1(x{nodes})" if nodes not in ("", "1") else nodes
