"""Slurm's commands as lists of arguments. Nothing is run here, and nothing ever passes through a shell.

Why the agents' step is asked for as it is:
- ``--overlap --mem=0 --cpu-bind=none``: the step lives as long as the run and must not hold what the
  workload's own ``srun`` needs ("step creation temporarily disabled" for ever, otherwise).
- ``--input=all``: every agent reads the bootstrap line; it is never in argv or environment.
- ``--kill-on-bad-exit=0 --wait=0 --no-kill``: one agent's end is no verdict on the others.
- ``--export=NAMES``: see ``environment``.
- ``--bcast``: the agent arrives as one file; the nodes need no shared filesystem.
- ``--label``: a line of an agent that has not joined can be traced to its node.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..nodesets import IRREGULAR_LIMIT
from ..plan.model import SlurmOptions

#: A --slurm-arg that begins so is meant for the agents' srun, any other for salloc.
STEP_PREFIX = "srun:"
#: The comment of our jobs, and how one is found again whose number was never heard.
COMMENT_PREFIX = "phalanx:"

_NUMBER = re.compile(r"\d+")


def comment(run_id: str) -> str:
    """The comment of a run's allocation."""
    return f"{COMMENT_PREFIX}{run_id}"


def step_name(run_id: str, spawn: int = 1) -> str:
    """The name of the agents' step, by which its number is found; each spawn of a run has its own.

    Of a launch that failed half-way Slurm keeps the step for a while.
    """
    return f"phalanx-{run_id}" if spawn == 1 else f"phalanx-{run_id}-{spawn}"


def bcast_path(run_id: str) -> str:
    """Where the agent file arrives on a node; no two runs share it."""
    return f"/tmp/phalanx-agent-{run_id}"  # noqa: S108 - the agent removes it when it starts


def salloc(options: SlurmOptions, *, nodes: int, name: str, run_id: str) -> tuple[str, ...]:
    """Ask for nodes and return when they are granted; the allocation stays without a process of ours.

    ``--no-kill``: the loss of one node must not take the logs and results of all others with it.
    """
    said = [
        f"--{flag}={value}"
        for flag, value in (
            ("partition", options.partition),
            ("time", options.time),
            ("account", options.account),
            ("qos", options.qos),
            ("reservation", options.reservation),
            ("nodelist", options.nodelist),
            ("exclude", options.exclude),
            ("constraint", options.constraint),
            ("gres", options.gres),
            ("gpus-per-node", options.gpus_per_node),
        )
        if value
    ]
    if options.exclusive:
        said.append("--exclusive")
    extra = [word for word in options.extra if not word.startswith(STEP_PREFIX)]
    return (
        "salloc",
        "--no-shell",
        "--no-bell",
        "--no-kill",
        f"--job-name=phalanx-{name}",
        f"--comment={comment(run_id)}",
        f"--nodes={nodes}",
        *said,
        *extra,
    )


def agents_step(
    options: SlurmOptions,
    *,
    job_id: str,
    nodes: Sequence[str],
    run_id: str,
    agent: Path,
    python: str,
    export: Sequence[str],
    spawn: int = 1,
) -> tuple[str, ...]:
    """Start one agent on each node, in the job's own order of nodes."""
    count = len(nodes)
    extra = [word.removeprefix(STEP_PREFIX) for word in options.extra if word.startswith(STEP_PREFIX)]
    choice = ("--python", python) if python else ()
    return (
        "srun",
        f"--jobid={job_id}",
        f"--job-name={step_name(run_id, spawn)}",
        "--overlap",
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
        "--distribution=block",
        f"--nodelist={fold(nodes)}",
        "--cpu-bind=none",
        "--mem=0",
        "--mpi=none",
        "--input=all",
        "--label",
        "--kill-on-bad-exit=0",
        "--wait=0",
        "--no-kill",
        "--chdir=/tmp",
        f"--export={','.join(export) or 'NONE'}",
        f"--bcast={bcast_path(run_id)}",
        *extra,
        str(agent),
        *choice,
        "run",
        "--slurm",
        "--remove-self",
    )


def remove_agent_files(*, job_id: str, nodes: Sequence[str], run_id: str) -> tuple[str, ...]:
    """Remove the agent file from nodes whose agent could not do it itself."""
    count = len(nodes)
    return (
        "srun",
        f"--jobid={job_id}",
        "--overlap",
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
        f"--nodelist={fold(nodes)}",
        "--cpu-bind=none",
        "--mem=0",
        "--mpi=none",
        "--immediate=5",
        "--chdir=/tmp",
        "--export=NONE",
        "/bin/rm",
        "-f",
        bcast_path(run_id),
    )


def signal_step(step: str, number: str) -> tuple[str, ...]:
    """Send one signal ("TERM", "KILL") to the tasks of a step such as "12.0", and nothing after it."""
    return ("scancel", f"--signal={number}", step)


def cancel_job(job_id: str) -> tuple[str, ...]:
    """End a job or take it out of the queue."""
    return ("scancel", job_id)


def job_state(job_id: str) -> tuple[str, ...]:
    """State, reason, time left and expected start of one job, finished ones included while slurmctld knows
    them."""
    return ("squeue", "--noheader", f"--jobs={job_id}", "--states=all", "--format=%T|%r|%L|%S")


def jobs_of_user(user: str) -> tuple[str, ...]:
    """Number, state and comment of all the user's jobs that are not over."""
    return ("squeue", "--noheader", f"--user={user}", "--format=%A|%T|%k")


def steps_of_job(job_id: str) -> tuple[str, ...]:
    """Number and name of the steps that run in a job."""
    return ("squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i|%j")


def show_job(job_id: str) -> tuple[str, ...]:
    """All about a job, on one line."""
    return ("scontrol", "--oneliner", "show", "job", job_id)


def show_nodes(nodes: Sequence[str]) -> tuple[str, ...]:
    """All about nodes, one line each."""
    return ("scontrol", "--oneliner", "show", "node", fold(nodes))


def show_hostnames(nodelist: str) -> tuple[str, ...]:
    """The names of a node list, one a line, in the job's order; asks no daemon."""
    return ("scontrol", "show", "hostnames", nodelist)


def accounting(job_id: str) -> tuple[str, ...]:
    """What accounting, where a cluster has it, says of a job that slurmctld has forgotten."""
    return (
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        f"--jobs={job_id}",
        "--format=State,ExitCode,Reason",
    )


def partitions() -> tuple[str, ...]:
    """Partitions and the nodes in each, by state."""
    return ("sinfo", "--noheader", "--format=%P|%a|%l|%D|%T|%N|%G")


def fold(nodes: Sequence[str]) -> str:
    """Names as a Slurm node list: n1, n2, n3 become n[1-3]. Not folded where that would take seconds."""
    if len(nodes) > IRREGULAR_LIMIT and any(len(_NUMBER.findall(node)) > 1 for node in nodes):
        return ",".join(nodes)
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    return str(NodeSet.fromlist(list(nodes), resolver=RESOLVER_NOGROUP))
