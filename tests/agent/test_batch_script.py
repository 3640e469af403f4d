"""The environment of a script that drives a job's nodes, out of that of an agent's step."""

from __future__ import annotations

from phalanx.agent.batch_script import batch_environment

#: As Slurm 22.05 gives it to a task of the agents' step, on the first of two nodes.
STEP = {
    "PATH": "/usr/bin", "HOME": "/root", "TMPDIR": "/tmp", "SLURMD_NODENAME": "n1",
    "SLURM_CONF": "/etc/slurm.conf",
    "SLURM_CPUS_ON_NODE": "1", "SLURM_CPU_BIND": "quiet,none", "SLURM_CPU_BIND_LIST": "",
    "SLURM_CPU_BIND_TYPE": "none", "SLURM_CPU_BIND_VERBOSE": "quiet", "SLURM_DISTRIBUTION": "block",
    "SLURM_GTIDS": "0", "SLURM_JOBID": "2", "SLURM_JOB_CPUS_PER_NODE_PACK_GROUP_0": "1(x2)",
    "SLURM_JOB_GID": "0", "SLURM_JOB_ID": "2", "SLURM_JOB_NAME": "phalanx-x", "SLURM_JOB_NODELIST": "n[1-4]",
    "SLURM_JOB_PARTITION": "lab", "SLURM_JOB_UID": "0", "SLURM_JOB_USER": "root", "SLURM_LABELIO": "1",
    "SLURM_LAUNCH_NODE_IPADDR": "10.77.255.1", "SLURM_LOCALID": "0", "SLURM_NNODES": "2", "SLURM_NODEID": "0",
    "SLURM_NODELIST": "n[1-2]", "SLURM_NPROCS": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PRIO_PROCESS": "0", "SLURM_PROCID": "0", "SLURM_SRUN_COMM_HOST": "10.77.255.1",
    "SLURM_SRUN_COMM_PORT": "39681", "SLURM_STEPID": "1", "SLURM_STEP_ID": "1",
    "SLURM_STEP_LAUNCHER_PORT": "39681", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_TASKS_PER_NODE": "1(x2)",
    "SLURM_TASK_PID": "71", "SLURM_TOPOLOGY_ADDR": "n1", "SLURM_TOPOLOGY_ADDR_PATTERN": "node",
    "SLURM_UMASK": "0022", "SLURM_WORKING_CLUSTER": "smx:10.77.255.1:17255:9728:109",
}  # fmt: skip


def test_a_step_becomes_the_script_of_a_job_on_the_nodes_of_the_run() -> None:
    assert batch_environment(STEP) == {
        "SLURMD_NODENAME": "n1", "SLURM_CONF": "/etc/slurm.conf", "SLURM_CPUS_ON_NODE": "1",
        "SLURM_JOBID": "2", "SLURM_JOB_ID": "2", "SLURM_JOB_NAME": "phalanx-x", "SLURM_JOB_PARTITION": "lab",
        "SLURM_JOB_GID": "0", "SLURM_JOB_UID": "0", "SLURM_JOB_USER": "root",
        "SLURM_JOB_CPUS_PER_NODE": "1(x2)", "SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "2", "SLURM_NPROCS": "2", "SLURM_TASKS_PER_NODE": "1(x2)",
        "SLURM_NODELIST": "n[1-2]", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TOPOLOGY_ADDR": "n1",
        "SLURM_TOPOLOGY_ADDR_PATTERN": "node", "SLURM_WORKING_CLUSTER": "smx:10.77.255.1:17255:9728:109",
    }  # fmt: skip


def test_what_a_later_slurm_or_an_mpi_adds_to_a_step_stays_out() -> None:
    news = (
        "SLURM_OVERLAP",
        "SLURM_EXPORT_ENV",
        "SLURM_MPI_TYPE",
        "SRUN_CPUS_PER_TASK",
        "PMI_RANK",
        "PMIX_ID",
    )
    assert batch_environment({**STEP, **dict.fromkeys(news, "1")}) == batch_environment(STEP)


def test_one_node_has_one_task() -> None:
    one = {**STEP, "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "n1"}
    found = batch_environment(one)
    assert (found["SLURM_NTASKS"], found["SLURM_TASKS_PER_NODE"], found["SLURM_NODELIST"]) == ("1", "1", "n1")


def test_without_a_job_there_is_only_the_way_to_the_engine() -> None:
    docker = {"DOCKER_HOST": "unix:///run/user/1/docker.sock", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert batch_environment({"PATH": "/bin", "SLURM_CONF": "/x", **docker}) == docker
    assert batch_environment({**STEP, **docker}).items() >= docker.items()
