"""Models of a run at the same time: they really are, and nothing of one reaches another."""

from __future__ import annotations

import csv
import json
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.lab.archive import tiny_image
from tests.lab.image import NAME, base_image
from tests.stories.cluster import Cluster
from tests.stories.program import PATIENCE_S, PHALANX, Phalanx
from tests.stories.project import make_project, rows_of

#: Waits for its partner, which has to run meanwhile, and exchanges values under names that both use.
MEETS = """
python3 - "$0" <<'END'
import http.client, os, pathlib, socket, sys, time

name, rank = os.environ["MAD_MODEL_NAME"], os.environ["RANK"]
partner = {"a": "b", "b": "a", "c": "d", "d": "c"}[name]
meet = pathlib.Path(os.environ["MEET"])

class Phalanx(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["PHALANX_SOCKET"])

def ask(method, path, body=None):
    one = Phalanx("phalanx")
    one.request(method, path, body, {"X-Phalanx-Rank": rank})
    reply = one.getresponse()
    text = reply.read().decode()
    assert reply.status < 300, (path, reply.status, text)
    return text

def wait_for(path):
    end = time.monotonic() + 40
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)

if rank == "0":
    ask("PUT", "/kv/who", name)
(meet / f"{name}{rank}").touch()
wait_for(meet / f"{partner}{rank}")
if name in "ab":
    wait_for(meet / "go")
print(name, "met", ask("GET", "/kv/who?wait=20"), "in", ask("POST", "/barrier/start"), flush=True)
print(name, "port", os.environ["MASTER_PORT"], flush=True)
pathlib.Path("same_output.csv").write_text("the same bytes in every case\\n")
END
test $? = 0 && echo "performance: 1 x"
"""
FOUR = dict.fromkeys("abcd", ("", MEETS))


@pytest.mark.local
def test_two_of_four_models_run_at_a_time_and_their_barriers_keys_ports_and_files_are_apart(
    local: Phalanx, place: Path
) -> None:
    project, meet = make_project(place, **FOUR), place / "meet"
    meet.mkdir()
    words = ("run", "--tags", "all", "--parallel", "2", "-N", "2", "--runtime", "process")
    run = local.start(*words, "-e", f"MEET={meet}", folder=project)
    run.wait_event("step.started", step="main", count=4)
    told = json.loads(local.ask("status", run.id, "--json").stdout)
    assert (told["parallel"], told["running"]) == (2, ["a", "b"])
    assert [case["state"] for case in told["cases"]] == ["running", "running", "waiting", "waiting"]
    refused = local.ask("exec", "-r", run.id, "--", "true")
    assert refused.returncode != 0
    assert "several cases are running: say --case with one of a, b" in refused.stderr
    inside = local.ask("exec", "-r", run.id, "--case", "b", "-b", "--", "pwd")
    assert inside.returncode == 0, inside.stderr
    assert "/b/" in inside.stdout
    (meet / "go").touch()
    run.ends(0)
    rows = rows_of(project)
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys("abcd", "SUCCESS")
    with (project / "perf.csv").open(newline="") as file:
        in_file = [row["model"] for row in csv.DictReader(file)]
    assert in_file == [event["case"] for event in run.events("case.finished")]
    of_two = '{"name": "start", "generation": 0, "members": 2}'
    for name in "abcd":
        for node, rank in (("local1", 0), ("local2", 1)):
            said = run.log(node, f"{name}/rank{rank}.out").decode()
            assert f"{name} met {name} in {of_two}" in said
            kept = run.folder / "results" / node / name / "same_output.csv"
            assert kept.read_text() == "the same bytes in every case\n"
        assert f"\n{name}:local2: {name} met {name} in " in f"\n{run.stdout}"
    said = [run.log("local1", f"{name}/rank0.out").decode() for name in "ab"]
    assert len({text.partition(" port ")[2].split()[0] for text in said}) == 2
    assert "--parallel 2: up to 2 models share the CPUs" in run.stderr
    assert "case a: 2 ranks on local[1-2]" in run.stderr


@pytest.mark.local
def test_a_model_that_fails_leaves_the_others_alone_and_is_named(local: Phalanx, place: Path) -> None:
    waits = 'touch "$MEET/$MAD_MODEL_NAME"; while [ ! -e "$MEET/bad" ]; do sleep 0.02; done; sleep 1'
    fails = 'while [ ! -e "$MEET/good" ]; do sleep 0.02; done; touch "$MEET/bad"; echo oh no >&2; exit 7'
    project = make_project(place, good=("", f"{waits}; echo 'performance: 2 x'"), bad=("", fails))
    (place / "meet").mkdir()
    words = ("run", "--tags", "all", "--parallel", "2", "--runtime", "process")
    run = local.run(*words, "-e", f"MEET={place / 'meet'}", code=3, folder=project)
    rows = rows_of(project)
    assert {name: row["status"] for name, row in rows.items()} == {"good": "SUCCESS", "bad": "FAILURE"}
    assert run.verdict["reason"] == "failed: bad"
    last = run.stderr[run.stderr.index("First failure") :]
    assert "case bad" in last
    assert f"phalanx logs {run.id} --case bad --rank 0" in last
    assert "bad: oh no" in run.stderr


@pytest.mark.local
def test_a_cancel_ends_all_that_run_and_leaves_rows_for_all(local: Phalanx, place: Path) -> None:
    project = make_project(place, **dict.fromkeys("abc", ("", "echo here; sleep 300")))
    run = local.start("run", "--tags", "all", "--parallel", "2", "--runtime", "process", folder=project)
    run.wait_event("step.started", step="main", count=2)
    local.ask("cancel", run.id)
    run.ends(130)
    rows = rows_of(project)
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys("abc", "CANCELLED")


@pytest.mark.local
def test_what_two_models_fix_for_themselves_is_refused_before_anything_is_touched(
    local: Phalanx, place: Path
) -> None:
    project = make_project(place, a=("", "true"), b=("", "true"))
    for words, why in (
        (("--tags", "all", "-e", "MASTER_PORT=4711"), "a and b would both meet on port 4711 (-e)"),
        (("--", "true"), "with a command: it is one case"),
    ):
        done = subprocess.run(
            [PHALANX, "run", "--parallel", "2", "--runtime", "process", *words],
            cwd=project,
            env=dict(local.environ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (done.returncode, why in done.stderr) == (4, True), done.stderr
    assert not list(local.runs.glob("*"))


@pytest.mark.lab
def test_in_containers_the_image_of_one_comes_while_another_runs_and_waits_for_it(
    cluster: Cluster, phalanx: Phalanx, place: Path
) -> None:
    second, builds, meet = "at-once:2", place / "builds", f"/tmp/meet-{place.name}"
    builds.mkdir()
    for node in cluster.nodes:
        cluster.lab.exec(node, ["mkdir", meet], check=True)
        for undo in (["docker", "rmi", "-f", second], ["rm", "-r", meet]):
            cluster.repairs.append(partial(cluster.lab.exec, node, undo))
    layers = [{"story": b"once upon a time\n"}]
    made = tiny_image(builds / "at-once_2.tar", name=second, layers=layers, base=base_image())
    waits = "i=0; while [ ! -e /meet/here ] && [ $i -lt 400 ]; do sleep 0.1; i=$((i+1)); done"
    project = make_project(
        place,
        a=(NAME, f"{waits}; test -e /meet/here && test ! -e /story && echo 'performance: 1 x'"),
        b=(second, "cat /story && touch /meet/here && echo 'performance: 2 x'"),
    )
    words = ("run", "--target", "slurm", "-N2", "--tags", "a,b", "--parallel", "2", "-v", f"{meet}:/meet")
    run = phalanx.run(*words, folder=project, env={"MAD_DOCKER_BUILDS": str(builds)})
    rows = rows_of(project)
    assert {name: (row["status"], row["docker_image"]) for name, row in rows.items()} == {
        "a": ("SUCCESS", NAME),
        "b": ("SUCCESS", second),
    }
    assert rows["b"]["docker_sha"] == made
    told = [(event["type"], event.get("case")) for event in run.events()]
    assert told.index(("case.started", "a")) < told.index(("image.requested", "b"))
    assert told.index(("case.started", "b")) < told.index(("case.finished", "a"))
    containers = {event["container"] for event in run.events("case.opened")}
    assert len(containers) == 4
