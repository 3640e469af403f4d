"""A model whose own script drives the nodes, with Slurm's commands and the engine's; the rest is ours."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.image import NAME
from tests.stories.cluster import Cluster, command_line, nothing_left, until
from tests.stories.payloads import IN_A_HURRY
from tests.stories.program import Phalanx

IMAGE = "driven:1"
MULTI = ("run", "--target", "slurm", "-N2", "--tags")
#: Every node's engine runs a container of the image; the head writes what came of it.
EVERYWHERE = """
set -eu
srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" \\
    docker run --rm --network host "$DOCKER_IMAGE_NAME" hostname > hosts
printf 'metric,performance,model\\nnodes,%s,%s\\n' "$(sort -u hosts | wc -l)" "$MAD_MODEL_NAME" > perf.csv
"""


def project(place: Path, **models: str | dict[str, Any]) -> Path:
    """Models by name: the script of one that drives its nodes, or a whole card and its script."""
    folder, cards = place / "project", []
    for name, given in models.items():
        more = {"script": given} if isinstance(given, str) else dict(given)
        scripts = folder / "scripts" / name
        scripts.mkdir(parents=True)
        (scripts / "run.sh").write_text(more.pop("script"))
        (scripts / "worker.sh").write_text('echo "$(hostname) works in $PWD"\n')
        card = {
            "name": name,
            "scripts": f"scripts/{name}/run.sh",
            "tags": ["all"],
            "n_gpus": "0",
            "distributed": {"launcher": "slurm_multi"},
            "env_vars": {"DOCKER_IMAGE_NAME": IMAGE},
        }
        cards.append({**card, **more})
    (folder / "models.json").write_text(json.dumps(cards))
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "perf.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def one_has_it(cluster: Cluster) -> Cluster:
    """The engine of one node has the image."""
    cluster.lab.exec("n2", ["docker", "tag", NAME, IMAGE], check=True)
    for node in cluster.nodes:
        cluster.repairs.append(partial(cluster.lab.exec, node, ["docker", "rmi", "-f", IMAGE]))
    return cluster


def sleepers(cluster: Cluster, seconds: int) -> list[int]:
    """Processes of the nodes that sleep for just so long."""
    return [
        pid
        for node in cluster.nodes
        for pid in cluster.processes(node)
        if command_line(pid)[-2:] in (["sleep", str(seconds)], ["/bin/sleep", str(seconds)])
    ]


@pytest.mark.lab
def test_the_script_starts_containers_on_all_nodes_from_an_image_that_one_node_had(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    folder = project(place, driven=EVERYWHERE)
    assert not one_has_it.lab.image_id("n1", IMAGE)
    run = phalanx.run(*MULTI, "all", folder=folder)
    [row] = rows(folder)
    assert (row["model"], row["performance"], row["metric"], row["status"]) == (
        "driven",
        "2",
        "nodes",
        "SUCCESS",
    )
    assert (row["docker_image"], row["docker_sha"]) == (IMAGE, one_has_it.lab.image_id("n2", NAME))
    assert (row["launcher"], row["nnodes"], row["machine_name"]) == (
        "slurm_multi",
        "2",
        run.events("allocation.granted")[0]["job_id"],
    )
    assert {one_has_it.lab.image_id(node, IMAGE) for node in ("n1", "n2")} == {row["docker_sha"]}
    assert [(event["node"], event["rank"]) for event in run.events("step.exited", step="main")] == [
        ("n1", -1)
    ]


@pytest.mark.lab
def test_it_has_what_a_batch_script_has_and_nothing_of_our_own_step(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    script = """
    set -eu
    env | grep ^SLURM | sort > "$PHALANX_RESULTS/told"
    srun bash "$PWD/worker.sh" > "$PHALANX_RESULTS/workers"
    squeue --noheader --jobs="$SLURM_JOB_ID" --format=%A > "$PHALANX_RESULTS/queue"
    scontrol show hostnames > "$PHALANX_RESULTS/names"
    srun env > "$PHALANX_RESULTS/of_tasks"
    echo "performance: $xP$yD things"
    """
    card = {
        "script": script,
        "distributed": {"launcher": "slurm_multi", "sglang_disagg": {"prefill_nodes": 1, "decode_nodes": 1}},
        "env_vars": {"DOCKER_IMAGE_NAME": IMAGE, "MODEL_SIZE": "small $(touch /tmp/never) 'q'"},
    }
    folder = project(place, driven=card)
    run = phalanx.run(*MULTI, "all", folder=folder, env={"SRUN_LABELIO": "1", "SLURM_LABELIO": "1"})
    results = next((run.folder / "results").rglob("told")).parent
    told = dict(line.split("=", 1) for line in (results / "told").read_text().splitlines())
    job = run.events("allocation.granted")[0]["job_id"]
    assert told.items() >= {
        "SLURM_JOB_ID": job, "SLURM_JOBID": job, "SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "2", "SLURM_NPROCS": "2", "SLURM_TASKS_PER_NODE": "1(x2)",
        "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODELIST": "n[1-2]", "SLURM_SUBMIT_DIR": str(folder),
        "SLURMD_NODENAME": "n1",
    }.items()  # fmt: skip
    assert told["SLURM_JOB_CPUS_PER_NODE"].endswith("(x2)")
    assert not [name for name in told if "STEP" in name or "BIND" in name or "SRUN" in name]
    assert not {"SLURM_PROCID", "SLURM_LABELIO", "SLURM_MPI_TYPE", "SLURM_NTASKS_PER_NODE"} & told.keys()
    workers = sorted((results / "workers").read_text().splitlines())
    assert [line.split()[0] for line in workers] == ["n1", "n2"]
    assert workers[0].split()[-1] == workers[1].split()[-1], "one path of the folder on both nodes"
    assert (results / "queue").read_text().split() == [job]
    assert (results / "names").read_text().split() == ["n1", "n2"]
    tasks = (results / "of_tasks").read_text()
    assert "NODE_RANK" not in tasks
    assert tasks.count("MODEL_SIZE=small $(touch /tmp/never) 'q'\n") == 2
    assert rows(folder)[0]["performance"] == "11"


@pytest.mark.lab
def test_its_exit_status_is_the_verdict_whatever_it_has_written(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    folder = project(place, driven="printf 'model,performance,metric\\nm,1,x\\n' > perf.csv; exit 7")
    run = phalanx.run(*MULTI, "all", folder=folder, code=3)
    [row] = rows(folder)
    assert (row["model"], row["status"], row["performance"]) == ("driven", "FAILURE", "")
    assert "n1, step main: exit status 7" in run.stderr


@pytest.mark.lab
def test_rows_come_from_results_dir_and_not_from_what_lay_there(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    left = one_has_it.lab.shared / "left"
    left.mkdir(exist_ok=True)
    (left / "perf_old.csv").write_text("model,performance,metric\nold,1,x\n")
    write = f"printf 'metric,model,performance,status\\nx,a,5,\\nx,b,,\\n' > {left}/perf_new.csv"
    folder = project(place, driven=write, silent="true")
    context = json.dumps({"slurm": {"results_dir": str(left)}})
    phalanx.run(*MULTI, "driven", "--additional-context", context, folder=folder)
    assert [(row["model"], row["performance"], row["status"]) for row in rows(folder)] == [
        ("a", "5", "SUCCESS"),
        ("b", "", "FAILURE"),
    ]
    run = phalanx.run(*MULTI, "silent", folder=folder, code=3)
    assert "looked at perf.csv" in run.stderr
    assert rows(folder)[-1]["status"] == "FAILURE"


@pytest.mark.lab
def test_what_srun_left_on_the_nodes_ends_with_the_case(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    """In the background; with its srun killed; with that and its helper killed, without the mark that agents
    find processes by. What such a step holds the next model could not have."""
    stubborn = "trap '' TERM; sleep 4711; sleep 4711"
    script = f"""
    srun --overlap sleep 4711 &
    srun bash -c "{stubborn}" & killed=$!
    srun --overlap --export=NONE /bin/sleep 4712 & unmarked=$!
    until [ "$(squeue --noheader --steps --jobs="$SLURM_JOB_ID" | wc -l)" -ge 4 ]; do :; done
    srun --overlap true
    kill -9 $killed $unmarked $(pgrep -P $unmarked)
    echo "performance: 1 x"
    """
    folder, lab = (
        project(place, driven=script, later='srun hostname && echo "performance: 2 x"'),
        one_has_it.lab,
    )
    lab.ask_slurm(["salloc", "--no-shell", "--nodes=2"])  # it stays, and with it whatever is left in it
    [job] = lab.job_ids()
    phalanx.run("run", "-N2", "--tags", "all", folder=folder, env={"SLURM_JOB_ID": str(job)}, within=90)
    assert [row["status"] for row in rows(folder)] == ["SUCCESS", "SUCCESS"]
    assert lab.job_ids() == [job]
    assert lab.ask_slurm(["squeue", "--noheader", "--steps", f"--jobs={job}"]) == ""
    until(lambda: not sleepers(one_has_it, 4711) + sleepers(one_has_it, 4712), 3.0, "nothing sleeps")
    lab.cancel_jobs()


@pytest.mark.lab
def test_ctrl_c_ends_the_script_and_what_it_started_everywhere(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    script = "trap '' TERM; srun bash -c \"trap '' TERM; sleep 4713; sleep 4713\"; sleep 4713"
    folder = project(place, driven=script)
    run = phalanx.start(*MULTI, "all", *IN_A_HURRY, folder=folder, terminal=True)
    until(lambda: len(sleepers(one_has_it, 4713)) == 2, 30.0, "the tasks run")
    run.type(b"\x03")
    run.ends(130)
    assert rows(folder)[0]["status"] == "CANCELLED"
    nothing_left(one_has_it)


@pytest.mark.lab
def test_an_allocation_that_is_too_small_is_refused_before_anything_starts(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    folder = project(place, driven=EVERYWHERE)
    lab = one_has_it.lab
    lab.ask_slurm(["salloc", "--no-shell", "--nodes=1"])
    [job] = lab.job_ids()
    run = phalanx.run("run", "-N2", "--tags", "all", folder=folder, env={"SLURM_JOB_ID": str(job)}, code=10)
    assert f"cannot run on 2 nodes: job {job} has 1" in run.stderr
    assert not run.events("agent.joined")
    lab.cancel_jobs()


@pytest.mark.lab
def test_it_runs_beside_models_in_containers_and_the_allocation_that_is_there_stays(
    one_has_it: Cluster, phalanx: Phalanx, place: Path
) -> None:
    lab = one_has_it.lab
    plain = {"script": 'echo "performance: $NODE_RANK things"', "distributed": {}}
    folder = project(place, driven=EVERYWHERE, plain=plain)
    lab.ask_slurm(["salloc", "--no-shell", "--nodes=2"])
    [job] = lab.job_ids()
    phalanx.run("run", "-N2", "--tags", "all", folder=folder, env={"SLURM_JOB_ID": str(job)})
    assert [(row["model"], row["launcher"], row["status"]) for row in rows(folder)] == [
        ("driven", "slurm_multi", "SUCCESS"),
        ("plain", "docker", "SUCCESS"),
    ]
    assert lab.job_ids() == [job]
    lab.cancel_jobs()


@pytest.mark.local
def test_without_slurm_the_script_runs_on_this_machine_and_has_its_row(local: Phalanx, place: Path) -> None:
    script = (
        "env | grep -c ^SLURM_ > count; printf 'model,performance,metric\\nm,%s,x\\n' $(cat count) > perf.csv"
    )
    folder = project(place, driven={"script": script, "env_vars": {}})
    local.run("run", "--target", "local", "--tags", "all", folder=folder)
    [row] = rows(folder)
    assert (row["model"], row["performance"], row["launcher"], row["status"]) == (
        "m", "0", "slurm_multi", "SUCCESS",
    )  # fmt: skip
