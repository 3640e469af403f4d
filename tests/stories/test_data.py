"""Data sets by the real program: where the model finds them, what its row says, and what no file holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.store import PASSWORD, USER, Store, served
from tests.stories.program import Phalanx
from tests.stories.test_secrets import files_with, processes_with

pytestmark = pytest.mark.local
SCRIPT = """\
echo "home=$MAD_DATAHOME name=$MAD_DATANAME"
IFS=,
for folder in $MAD_DATAHOME; do (cd "$folder" && find . -type f -exec sha256sum {} + | sort); done
env | grep -c -i canary
echo "performance: 7 things/s"
"""


def project(place: Path, data: str, document: dict[str, Any]) -> Path:
    folder = place / "project"
    (folder / "scripts" / "m").mkdir(parents=True)
    (folder / "scripts" / "m" / "run.sh").write_text(SCRIPT)
    (folder / "scripts" / "get.sh").write_text('echo "made by $1" > made.txt\n')
    card = {"name": "m", "scripts": "scripts/m/run.sh", "data": data}
    (folder / "models.json").write_text(json.dumps([card]))
    (folder / "data.json").write_text(json.dumps(document))
    return folder


def row(folder: Path) -> dict[str, str]:
    with (folder / "perf.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def recorded(run_folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in run_folder.glob("results/**/.phalanx/data.json")]


def test_local_data_and_data_of_a_script_are_where_the_model_is_told(local: Phalanx, place: Path) -> None:
    shelf = place / "shelf"
    shelf.mkdir()
    (shelf / "x").write_text("x")
    document = {
        "here": {"local": {"path": str(shelf)}},
        "made": {"custom": {"path": "scripts/get.sh", "args": "hand"}},
    }
    folder = project(place, "here,made", document)
    run = local.run("run", "--tags", "m", "-N", "2", "--runtime", "process", folder=folder)
    assert row(folder)["status"] == "SUCCESS"
    assert run.stdout.count(f"home={shelf},") == 2
    assert run.stdout.count("name=here,made") == 2
    assert run.stdout.count("./made.txt") == 2
    assert f"data set here is taken from local: {shelf}" in run.stdout
    assert [(one["dataname"], one["data_provider_type"]) for one in recorded(run.folder)] == [
        ("here,made", "local,custom")
    ] * 2
    assert (shelf / "x").read_text() == "x"


def test_data_of_a_store_comes_to_every_node_and_its_credentials_stay_out_of_sight(
    local: Phalanx, place: Path
) -> None:
    with served() as store:
        bucket = store.bucket()
        store.put(bucket, {"set/a": b"a" * 1000, "set/b/c": bytes(2_000_000)})
        local_path, path = {"path": str(place / "not-here")}, {"path": f"s3://{bucket}/set"}
        folder = project(place, "d", {"d": {"local": local_path, "minio": path}})
        env = _credentials(store, place)
        words = ("run", "--tags", "m", "-N", "2", "--runtime", "process")
        dry = local.run(*words, "--dry-run", folder=folder, env=env)
        assert "data-d, once per node, beside the container" in dry.stdout
        assert f"d: {place / 'not-here'} (ro), else the node's cache" in dry.stdout
        run = local.run(*words, folder=folder, env=env)
    assert row(folder)["status"] == "SUCCESS"
    assert run.stdout.count(f"data set d is taken from minio: s3://{bucket}/set at {store.endpoint}") == 2
    assert run.stdout.count("  ./b/c") == 2
    assert run.stdout.count("\n0\n") + run.stdout.count(": 0\n") == 2  # no canary in a rank's environment
    assert {one["data_size"] for one in recorded(run.folder)} == {"2.0M"}
    canaries = [USER.encode(), PASSWORD.encode()]
    assert not any(canary in (run.everything + dry.everything).encode() for canary in canaries)
    assert not files_with(canaries, [run.folder, place / "cache", place / "tmp", place / "xdg"])
    assert not processes_with(canaries)


def test_data_that_nobody_has_is_a_failure_with_every_reason(local: Phalanx, place: Path) -> None:
    folder = project(place, "d", {"d": {"local": {"path": "/not/here"}, "minio": {"path": "b00/k"}}})
    run = local.run("run", "--tags", "m", "--runtime", "process", folder=folder, code=3)
    words = "cannot provide data set d on local1: local: /not/here is not on this node; minio: there is no "
    assert words in run.stderr
    assert row(folder)["status"] == "FAILURE"
    assert words in run.events("case.finished")[0]["reason"]
    assert "performance" not in run.stdout


def _credentials(store: Store, place: Path) -> dict[str, str]:
    said = {"USERNAME": USER, "PASSWORD": PASSWORD, "MINIO_ENDPOINT": store.endpoint}
    return {"MAD_MINIO": json.dumps(said), "PHALANX_CACHE_DIR": str(place / "cache")}


def test_models_that_name_the_same_data_set_have_their_own_verdicts(local: Phalanx, place: Path) -> None:
    """The first model takes the data away: what its step said is nothing to the step of the second."""
    shelf = place / "shelf"
    shelf.mkdir()
    folder = project(place, "here", {"here": {"local": {"path": str(shelf)}}})
    [card] = json.loads((folder / "models.json").read_text())
    (folder / "models.json").write_text(json.dumps([{**card, "name": name} for name in ("a", "b")]))
    script = folder / "scripts" / "m" / "run.sh"
    script.write_text(f"{script.read_text()}rmdir $MAD_DATAHOME\n")
    run = local.run("run", "--tags", "a,b", "--runtime", "process", folder=folder, code=3)
    reasons = {event["case"]: event["reason"] for event in run.events("case.finished")}
    assert reasons["a"] == "7 things/s"
    assert "cannot provide data set here on local1" in reasons["b"]
    assert run.log("local1", "a/data-here.out") != run.log("local1", "b/data-here.out")
