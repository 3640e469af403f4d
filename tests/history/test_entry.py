"""From an event log to what the history keeps of a run; a log from elsewhere may hold anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.results.history import RunEntry, opened
from phalanx.controller.results.history_query import Filter, results
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.history import NotRecorded, keep, read_entry
from phalanx.controller.runs.history_entry import entry_of, number
from phalanx.controller.runs.history_note import NOTE, trouble
from phalanx.controller.runs.view import fold

from ..runs.stories import RUN, START, STORIES, log_bytes, recorded, started


def entry(story: str) -> RunEntry:
    return entry_of(
        "/runs/x", fold(recorded(STORIES[story]), RUN), {"argv": ["phalanx", "run"], "user": "alice"}
    )


def blamed(story: str) -> dict[str, str]:
    """The nodes at which a run failed first, with why."""
    return {node.node: node.why for node in entry(story).nodes if node.failed_first}


def made(place: Path, content: bytes) -> RunDirectory:
    run = RunDirectory(place / RUN)
    run.path.mkdir()
    run.events.write_bytes(content)
    return run


def test_a_run_that_went_well_has_its_rows_and_blames_no_node() -> None:
    found = entry("success")
    assert (found.id, found.state, found.exit_code, found.target) == (RUN, "succeeded", 0, "local")
    assert (found.started, found.user, found.argv) == (START, "alice", ("phalanx", "run"))
    assert [(row.case, row.value, row.columns) for row in found.rows] == [
        ("demo", 12.0, {"model": "demo", "performance": "12"})
    ]
    assert found.rows[0].at < found.finished
    assert [node.node for node in found.nodes] == ["node1", "node2"]
    assert blamed("success") == {}


def test_the_node_that_failed_first_is_told_with_why_and_its_followers_are_not() -> None:
    assert blamed("first_failure") == {"node2": "rank 3 exit 7"}
    (why,) = blamed("out_of_memory").values()
    assert why.startswith("rank 1 killed because the container was out of memory · exit 137 (SIGKILL")
    assert why.endswith(": dmesg: Out of memory: Killed process 81244 (python)")
    assert blamed("image_failure") == {"node2": "image: no space left on device (/var/lib/docker)"}
    assert list(blamed("node_lost")) == ["node2"]


def test_nodes_that_did_not_join_are_blamed_for_a_run_that_ended_by_it() -> None:
    assert blamed("join_missing") == {
        "node3": "did not join: python3 not found in PATH of the job",
        "node4": "did not join: agent started but cannot reach 10.2.0.4:42117: Connection timed out",
    }


def test_nodes_that_were_missing_in_a_run_that_went_on_are_told_and_not_blamed() -> None:
    went_on = [*started(), ev.JoinTimeout(2, 3, {"node3": "refused"}), ev.RunFinished("succeeded", 0, "")]
    found = entry_of("/runs/x", fold(recorded(went_on), RUN), {})
    assert [(node.node, node.failed_first, node.why) for node in found.nodes][2] == (
        "node3",
        False,
        "did not join: refused",
    )


@pytest.mark.parametrize("story", ["cancelled", "refused"])
def test_a_run_that_was_stopped_or_never_began_blames_no_node_and_has_a_row_for_each_case(story: str) -> None:
    assert blamed(story) == {}
    assert [(row.case, row.value) for row in entry(story).rows] == [("demo", None)]


def test_only_a_log_that_ends_is_kept(tmp_path: Path) -> None:
    run = made(tmp_path, log_bytes(STORIES["unfinished"]))
    with pytest.raises(NotRecorded, match="its event log has no end"):
        read_entry(run)
    half = log_bytes(STORIES["success"])[:-1]
    run.events.write_bytes(half)
    with pytest.raises(NotRecorded, match="its event log has no end"):
        read_entry(run)
    run.events.unlink()
    with pytest.raises(NotRecorded, match=r"events\.jsonl: No such file"):
        read_entry(run)


def test_a_directory_that_was_renamed_is_the_same_run(tmp_path: Path) -> None:
    run = made(tmp_path, log_bytes(STORIES["success"]))
    renamed = RunDirectory(run.path.rename(tmp_path / "artifacts"))
    assert (read_entry(renamed).id, read_entry(renamed).directory) == (RUN, str(tmp_path / "artifacts"))


@pytest.mark.parametrize(
    "line",
    [
        '{"seq":1,"ts":"2026-01-01T00:00:00Z","type":"allocation.granted","data":{"nodes":7,"job_id":1,"owned":1}}',
        '{"seq":"x","ts":"2026-01-01T00:00:00Z","type":"run.finished","data":{"state":1,"exit_code":"a","reason":2}}',
        '{"seq":1,"ts":"2026-01-01T00:00:00Z","type":"join.timeout","data":{"joined":0,"expected":1,"missing":[]}}',
        '{"seq":1,"ts":"2026-01-01T00:00:00Z","type":"run.finished","data":{"state":[],"exit_code":"a","reason":2}}',
    ],
)
def test_a_log_of_something_else_is_refused_in_words(line: str, tmp_path: Path) -> None:
    with pytest.raises(NotRecorded, match=r"cannot add .* to the history"):
        read_entry(made(tmp_path, line.encode() + b"\n"))


def test_hostile_rows_become_text_that_a_database_takes(tmp_path: Path) -> None:
    rows = ({"model": "m\ud800\0", "performance": "1e999", "status": "SUCCESS", "x" * 70_000: "y" * 70_000},)
    log = [*started(), ev.CaseFinished("demo", "SUCCESS", "", rows), ev.RunFinished("succeeded", 0, "")]
    run = made(tmp_path, b"".join(json.dumps(json.loads(line)).encode() + b"\n" for line in _lines(log)))
    run.identity.write_text('{"argv": 7, "user": ["x"]}')
    with opened(tmp_path / "history.db") as history:
        assert history.add(read_entry(run))
        (found,) = results(history, Filter(), 10)
        (extra,) = history.connection.execute('SELECT extra FROM "rows"').fetchone()
    assert (found.model, found.value) == ("m?", None)
    assert [(len(name), len(cell)) for name, cell in json.loads(extra).items()] == [(65_536, 65_536)]


def _lines(events: list[ev.Event]) -> list[str]:
    """The log as a machine would have it that does not mind lone surrogates."""
    return [
        json.dumps(
            {
                "seq": one.seq,
                "ts": "2026-11-22T02:01:24.000Z",
                "type": one.event.TYPE,
                "data": {name: getattr(one.event, name) for name in one.event.__dataclass_fields__},
            }
        )
        for one in recorded(events)
    ]


def test_only_finite_numbers_are_values() -> None:
    assert [number(cell) for cell in ("12", "-1.5e3", "nan", "inf", "1e999", "", "fast")] == [
        *(12.0, -1500.0),
        *[None] * 5,
    ]


def test_a_run_is_kept_once_and_noted(tmp_path: Path) -> None:
    run = made(tmp_path, log_bytes(STORIES["success"]))
    environ = {"PHALANX_HISTORY": str(tmp_path / "h" / "history.db")}
    keep(run, environ)
    keep(run, environ)
    assert json.loads((run.path / NOTE).read_text()) == {"v": 1, "error": ""}
    assert trouble(run) == ""
    with opened(tmp_path / "h" / "history.db") as history:
        assert len(results(history, Filter(), 10)) == 1


def test_off_keeps_nothing_and_makes_nothing(tmp_path: Path) -> None:
    run = made(tmp_path, log_bytes(STORIES["success"]))
    keep(run, {"PHALANX_HISTORY": "off", "XDG_STATE_HOME": str(tmp_path / "state")})
    assert not (tmp_path / "state").exists()
    assert trouble(run) == ""


def test_a_history_that_cannot_be_written_is_noted_and_hurts_nothing(tmp_path: Path) -> None:
    run = made(tmp_path, log_bytes(STORIES["success"]))
    (tmp_path / "history.db").write_bytes(os.urandom(8192))
    keep(run, {"PHALANX_HISTORY": str(tmp_path / "history.db")})
    assert "it is damaged" in trouble(run)


def test_a_note_of_something_else_is_no_trouble(tmp_path: Path) -> None:
    run = made(tmp_path, b"")
    for content in (b"", b"[]", b'"x"', b"\xff", b"{}"):
        (run.path / NOTE).write_bytes(content)
        assert trouble(run) == ""
