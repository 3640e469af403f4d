"""Small files of a run directory, all derived from events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.runs.facts import failed_nodes, lock_document
from phalanx.controller.runs.files import RunFiles, script
from phalanx.controller.runs.view import fold

from tests.runs.stories import RUN, STORIES, recorded


def facts(**changes: object) -> dict[str, object]:
    return {
        "arch": "x86_64",
        "kernel": "6.1",
        "python": "3.11",
        "cpus_total": 64,
        "memory_bytes": 512 * 1024**3,
        "engine": {"kind": "docker", "version": "20.10", "api": "1.41", "storage": "overlay2", "error": ""},
        "gpus": [{"vendor": "amd", "model": "MI300X", "index": 0, "bus": "", "memory_bytes": 0}],
        **changes,
    }


def numbered(*events: ev.Event) -> list[ev.Recorded]:
    return [ev.Recorded(seq, 1000.0 + seq, event) for seq, event in enumerate(events, start=1)]


def test_like_nodes_are_one_group_of_the_lock() -> None:
    names = tuple(f"node{number:03}" for number in range(1, 5))
    joined = [ev.AgentJoined(name, rank, "i", "10.0.0.1") for rank, name in enumerate(names)]
    told = [
        *(
            ev.AgentFacts(name, facts(memory_bytes=512 * 1024**3 + rank))
            for rank, name in enumerate(names[:3])
        ),
        ev.AgentFacts(names[3], facts(kernel="5.15")),
    ]
    view = fold(numbered(*joined, *told, ev.ImageReady("image:1", "sha256:ab", 4, 1.0)), RUN)
    document = lock_document(view)
    assert [group["nodes"] for group in document["nodes"]] == ["node[001-003]", "node004"]
    assert document["nodes"][0]["gpus"] == ["amd MI300X"]
    assert document["images"] == [{"reference": "image:1", "id": "sha256:ab"}]
    assert lock_document(view) == document


@pytest.mark.parametrize("story", STORIES)
def test_failed_nodes_of_a_story_are_those_of_its_first_failure_and_of_what_was_lost(story: str) -> None:
    view = fold(recorded(STORIES[story]), RUN)
    text = failed_nodes(view)
    if view.failure is not None and view.failure.node:
        assert view.failure.node.rstrip("0123456789") in text
    if view.state == "succeeded":
        assert text == ""


def test_stopped_ranks_are_no_failed_nodes() -> None:
    view = fold(
        numbered(
            ev.RankExited("c", "main", "n1", 1, 1, "exited", 1.0),
            ev.RankExited("c", "main", "n2", 2, 143, "stopped", 1.0),
            ev.AgentLost("n3", "silent"),
        ),
        RUN,
    )
    assert failed_nodes(view) == "n[1,3]"


async def test_status_is_replaced_whole_at_once_when_the_phase_changes(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, RUN)
    writing = asyncio.create_task(files.keep_written())
    shown: list[str] = []
    events: list[ev.Event] = [
        ev.RunStarted("demo", "local", 1, ("c",)),
        ev.AllocationRequested(("salloc", "--nodes=1")),
        ev.AllocationGranted("7", ("n1",), True),
        ev.SpawnStarted(("srun", "a b")),
        ev.FleetJoined(1, 1, 0.1),
        ev.CaseStarted("c", ("n1",), 1),
    ]
    for number, recorded_one in enumerate(numbered(*events), start=1):
        files.take(recorded_one)
        async with asyncio.timeout(0.9):  # less than the pause between writes of mere numbers
            while not _seen(tmp_path, number):
                await asyncio.sleep(0.005)
        shown.append(json.loads((tmp_path / "status.json").read_bytes())["phase"])
    assert shown == ["", "allocation", "allocation", "agents", "agents", "run"]
    writing.cancel()
    files.take(ev.Recorded(7, 1007.0, ev.RunFinished("failed", 3, "rank 0 failed")))
    await files.close()
    status = json.loads((tmp_path / "status.json").read_bytes())
    assert (status["state"], status["exit_code"], status["job_id"]) == ("failed", 3, "7")
    assert (tmp_path / "launch" / "srun.sh").read_text().endswith("\nsalloc --nodes=1\nsrun 'a b'\n")
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o600


def _seen(folder: Path, seq: int) -> bool:
    try:
        return bool(json.loads((folder / "status.json").read_bytes())["seq"] == seq)
    except FileNotFoundError:
        return False


async def test_a_folder_that_takes_no_file_costs_no_run(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "gone", RUN)
    files.take(ev.Recorded(1, 1.0, ev.RunStarted("demo", "local", 1, ("c",))))
    await files.close()
    assert not (tmp_path / "gone").exists()


def test_a_run_without_an_allocation_has_a_script_of_its_spawn_alone() -> None:
    assert script({"allocation": None, "spawn": [["agent", "run"]]}).splitlines()[-1] == "agent run"
