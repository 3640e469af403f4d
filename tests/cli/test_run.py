"""``phalanx run`` as a program: what goes to which stream, which code it ends with, what Ctrl-C does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.fleet import events as ev

from tests.runs.fake_controller import act
from tests.runs.stories import STORIES, cancelled, exits, first_failure, running, started, success

from .driver import PATIENCE_S, Phalanx, Terminal

pytestmark = pytest.mark.local


def acts_of(events: list[ev.Event]) -> list[dict[str, Any]]:
    return [act(event) for event in events]


def log(node: int, rank: int, text: str, output: str = "out") -> dict[str, Any]:
    return {"log": f"logs/node{node}/rank{rank}.{output}", "text": text}


def up_to_running() -> list[dict[str, Any]]:
    return acts_of([*started(), *running()])


def ending_well() -> list[dict[str, Any]]:
    return acts_of(success()[len([*started(), *running()]) :])


def ending_cancelled() -> list[dict[str, Any]]:
    return acts_of(cancelled()[-5:])


def test_standard_output_is_what_the_ranks_write_and_nothing_else(phalanx: Phalanx) -> None:
    phalanx.part([*up_to_running(), log(1, 0, "hello from 0\n"), log(2, 1, "hello from 1\n"), *ending_well()])
    done = phalanx("run", "-N", "2", "--", "./hello.sh")
    assert done.code == 0, done.err
    assert sorted(done.out.splitlines()) == ["node1: hello from 0", "node2: hello from 1"]
    assert "2/2 ranks ok" in done.err


def test_standard_error_of_the_ranks_goes_to_standard_error(phalanx: Phalanx) -> None:
    phalanx.part([*up_to_running(), log(1, 0, "warning\n", "err"), *ending_well()])
    done = phalanx("run", "-N", "2", "--", "./hello.sh")
    assert done.out == ""
    assert "node1: warning" in done.err


def test_a_single_rank_has_no_prefix(phalanx: Phalanx) -> None:
    story = [
        *started(1),
        *running(1),
        *exits(1),
        ev.CaseFinished("demo", "SUCCESS", ""),
        ev.RunFinished("succeeded", 0, ""),
    ]
    phalanx.part([*acts_of(story[:8]), log(1, 0, '{"json": 1}\n'), *acts_of(story[8:])])
    assert phalanx("run", "--", "./hello.sh").out == '{"json": 1}\n'


def test_the_failure_stands_last_with_the_end_of_the_ranks_own_output(phalanx: Phalanx) -> None:
    acts = acts_of(first_failure())
    text = "".join(f"step {number}\n" for number in range(30)) + "RuntimeError: out of memory\n"
    acts.insert(-6, log(2, 3, text, "err"))
    phalanx.part(acts)
    done = phalanx("run", "-N", "8", "--", "./train.sh")
    assert done.code == 3
    tail = done.err[done.err.index("First failure") :]
    assert "node2 rank 3 (local 1)" in tail
    assert "RuntimeError: out of memory\n" in tail
    assert tail.count("step ") == 19
    assert re.search(r"last 20 of 31 lines: \S*logs/node2/rank3\.err", tail)
    assert tail.rstrip().splitlines()[-1].startswith("exit 3")


@pytest.mark.parametrize(
    ("story", "code"), [("join_missing", 8), ("image_failure", 9), ("refused", 10), ("node_lost", 3)]
)
def test_the_exit_code_is_that_of_the_event_log(phalanx: Phalanx, story: str, code: int) -> None:
    phalanx.part(acts_of(STORIES[story]))
    done = phalanx("run", "-N", "2", "--", "./train.sh")
    assert done.code == code
    assert f"exit {code}" in done.err.splitlines()[-1]


def test_a_code_of_a_rank_passes_through_even_if_it_means_something_else_elsewhere(phalanx: Phalanx) -> None:
    phalanx.part(acts_of([*started(), *running(), ev.RunFinished("failed", 42, "rank 1")]))
    assert phalanx("run", "-N", "2", "--", "./train.sh").code == 42


def test_without_a_terminal_progress_is_lines_with_the_time(phalanx: Phalanx) -> None:
    phalanx.part(acts_of(success()))
    done = phalanx("run", "-N", "2", "--", "./train.sh")
    assert re.search(r"^\d\d:\d\d:\d\d agents 2/2 joined in 0\.6 s$", done.err, re.MULTILINE)
    assert "\x1b" not in done.err


def test_quiet_keeps_the_log_lines_and_the_failure(phalanx: Phalanx) -> None:
    phalanx.part([*acts_of(first_failure()[:-3]), log(1, 0, "line\n"), *acts_of(first_failure()[-3:])])
    done = phalanx("run", "-q", "-N", "8", "--", "./train.sh")
    assert done.out == "node1/0: line\n"
    assert "joined" not in done.err
    assert "First failure" in done.err


def test_json_is_one_document_on_standard_output(phalanx: Phalanx) -> None:
    phalanx.part([*up_to_running(), log(1, 0, "a line\n"), *ending_well()])
    done = phalanx("run", "--json", "-N", "2", "--", "./train.sh")
    document = json.loads(done.out)
    assert (document["state"], document["exit_code"], document["rows"]) == ("succeeded", 0, 1)
    assert document["directory"] == str(phalanx.only_run())


def test_progress_json_is_every_event_as_a_line(phalanx: Phalanx) -> None:
    phalanx.part(acts_of(success()))
    done = phalanx("run", "--progress", "json", "-N", "2", "--", "./train.sh")
    kinds = [json.loads(line)["type"] for line in done.err.splitlines()]
    assert kinds == [event.TYPE for event in success()]


def test_detach_with_json_prints_the_run_as_other_verbs_do(phalanx: Phalanx) -> None:
    phalanx.part(acts_of(success()))
    done = phalanx("run", "-d", "--json", "-N", "2", "--", "./train.sh")
    document = json.loads(done.out)
    assert document == {"v": 1, "id": phalanx.only_run().name, "directory": str(phalanx.only_run())}
    assert phalanx("wait").code == 0
    (known,) = json.loads(phalanx("ps", "--json").out)
    assert document.items() <= known.items()


@pytest.mark.parametrize("variable", ["PHALANX_RUNS_DIR", "PHALANX_CACHE_DIR"])
def test_a_folder_that_is_none_is_refused_before_a_run_is_made(phalanx: Phalanx, variable: str) -> None:
    done = phalanx("run", "--", "x", env={variable: "/dev/null"})
    assert (done.code, done.out) == (4, "")
    assert "/dev/null: it is no folder" in done.err and variable in done.err
    assert not phalanx.runs.exists()


def test_detach_prints_only_the_run_id_and_the_run_goes_on(phalanx: Phalanx, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    phalanx.part([*up_to_running(), {"until": str(gate)}, *ending_well()])
    done = phalanx("run", "-d", "-N", "2", "--", "./train.sh")
    assert done.code == 0
    assert done.out == phalanx.only_run().name + "\n"
    (known,) = json.loads(phalanx("ps", "--json").out)
    assert known["state"] in ("starting", "running")
    gate.touch()
    assert phalanx("wait").code == 0


def test_a_secret_reaches_the_controller_and_no_file_of_the_run(phalanx: Phalanx) -> None:
    phalanx.part(acts_of(success()))
    canary = "canary-5c1e00aa"
    done = phalanx("run", "--secret", "HF_TOKEN", "-N", "2", "--", "./train.sh", env={"HF_TOKEN": canary})
    assert done.code == 0, done.err
    run = phalanx.only_run()
    told = json.dumps({"HF_TOKEN": canary}).encode()
    assert (run / "secrets.sha256").read_text() == hashlib.sha256(told).hexdigest()
    holding = [path for path in run.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    assert holding == []
    assert canary not in done.out + done.err


def test_a_controller_that_cannot_start_says_why_without_a_traceback(phalanx: Phalanx) -> None:
    phalanx.part([{"die": True}])
    done = phalanx("run", "-N", "2", "--", "./train.sh")
    assert done.code == 1
    assert "cannot listen on 10.2.0.4: no such address; see --advertise" in done.err
    assert "Traceback" not in done.err


def test_a_controller_that_dies_is_lost_contact_and_never_a_success(phalanx: Phalanx, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    phalanx.part([*up_to_running(), log(1, 0, "last words\n"), {"until": str(gate)}, {"die": True}])
    client = phalanx.start("run", "--reconnect-timeout", "0.5", "-N", "2", "--", "./train.sh")
    assert client.stdout is not None
    assert client.stdout.readline() == b"node1: last words\n"
    gate.touch()
    _, err = client.communicate(timeout=20)
    assert client.returncode == 75
    assert "lost contact" in err.decode().splitlines()[-1]
    assert json.loads(phalanx("ps", "--json").out)[0]["state"] == "lost"
    assert "lost" in phalanx("status").out


def test_sigterm_ends_the_run_in_good_order_and_waits_for_it(phalanx: Phalanx) -> None:
    phalanx.part([*up_to_running(), log(1, 0, "on\n"), {"until": "cancel1"}, *ending_cancelled()])
    client = phalanx.start("run", "-N", "2", "--", "./train.sh")
    assert client.stdout is not None and client.stdout.readline() == b"node1: on\n"
    client.send_signal(signal.SIGTERM)
    _, err = client.communicate(timeout=20)
    assert client.returncode == 130
    assert "cancelled" in err.decode()
    assert '"level":1' in (phalanx.only_run() / "events.jsonl").read_text()


def test_a_hangup_detaches_and_the_run_goes_on(phalanx: Phalanx, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    phalanx.part([*up_to_running(), log(1, 0, "on\n"), {"until": str(gate)}, *ending_well()])
    client = phalanx.start("run", "-N", "2", "--", "./train.sh")
    assert client.stdout is not None and client.stdout.readline() == b"node1: on\n"
    client.send_signal(signal.SIGHUP)
    client.communicate(timeout=20)
    assert client.returncode == 129
    gate.touch()
    assert phalanx("wait").code == 0
    assert "cancel.requested" not in (phalanx.only_run() / "events.jsonl").read_text()


# --- on a terminal -------------------------------------------------------------------------------------


def test_the_first_ctrl_c_ends_the_run_in_good_order(phalanx: Phalanx) -> None:
    phalanx.part(
        [*up_to_running(), log(1, 0, "on\n"), {"until": "cancel1"}, log(1, 0, "saved\n"), *ending_cancelled()]
    )
    with Terminal(phalanx, "run", "-N", "2", "--", "./train.sh") as terminal:
        terminal.until("on")
        terminal.type(b"\x03")
        terminal.until("ending the run (2 processes on node[1-2])")
        assert terminal.ended() == 130
        assert b"saved" in terminal.output
        assert b"cancelled after" in terminal.output
        assert terminal.settings() == terminal.before


def test_the_second_ctrl_c_kills(phalanx: Phalanx) -> None:
    phalanx.part([*up_to_running(), log(1, 0, "on\n"), {"until": "cancel2"}, *ending_cancelled()])
    with Terminal(phalanx, "run", "-N", "2", "--", "./train.sh") as terminal:
        terminal.until("on")
        terminal.type(b"\x03")
        terminal.until("Ctrl-C again kills")
        terminal.type(b"\x03")
        terminal.until("killing")
        assert terminal.ended() == 130
        assert terminal.settings() == terminal.before


def test_the_third_ctrl_c_leaves_at_once(phalanx: Phalanx, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    phalanx.part([*up_to_running(), log(1, 0, "on\n"), {"until": str(gate)}, *ending_cancelled()])
    with Terminal(phalanx, "run", "-N", "2", "--", "./train.sh") as terminal:
        terminal.until("on")
        terminal.type(b"\x03")
        terminal.until("Ctrl-C again kills")
        terminal.type(b"\x03")
        terminal.until("Ctrl-C again leaves at once")
        terminal.type(b"\x03")
        assert terminal.process.wait(1) == 130
        assert terminal.settings() == terminal.before
    gate.touch()
    assert phalanx("wait").code == 130


def test_a_terminal_shows_the_live_picture_below_the_lines_and_hides_nothing(phalanx: Phalanx) -> None:
    phalanx.part([*up_to_running(), log(1, 0, "\x1b[2Jhello\n"), log(2, 1, "there\n"), *ending_well()])
    with Terminal(phalanx, "run", "-N", "2", "--", "./train.sh") as terminal:
        assert terminal.ended() == 0
        shown = terminal.output.decode()
    lines = re.sub(r"\x1b\[[0-9;]*[mFJ]", "", shown)
    assert "\x1b" not in lines
    assert "\x1b[2J" not in shown
    assert "node1  │ hello" in lines
    assert "✓ agents" in lines


def test_color_never_leaves_no_colour_on_a_terminal(phalanx: Phalanx) -> None:
    phalanx.part(acts_of(success()))
    with Terminal(phalanx, "run", "--color", "never", "-N", "2", "--", "./train.sh") as terminal:
        assert terminal.ended() == 0
        assert not re.search(rb"\x1b\[[0-9;]*m", terminal.output)


def test_a_reader_that_has_stopped_keeps_neither_ctrl_c_nor_the_client_from_working(
    phalanx: Phalanx, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    flood = "x" * 8000 + "\n"
    phalanx.part([*up_to_running(), *[log(1, 0, flood)] * 200, {"until": "cancel2"}, {"until": str(gate)}])
    with phalanx.start("run", "-N", "2", "--", "./train.sh") as client:
        assert client.stdout is not None
        assert client.stdout.read(1) == b"n"
        for level in (1, 2):
            client.send_signal(signal.SIGINT)
            await_text(phalanx.only_run() / "events.jsonl", f'"level":{level}')
        client.send_signal(signal.SIGINT)
        assert client.wait(5) == 130
    gate.touch()


def await_text(path: Path, text: str) -> None:
    """Until a file has the text."""
    end = time.monotonic() + PATIENCE_S
    while text not in path.read_text():
        assert time.monotonic() < end, f"{text!r} did not come into {path}"
        time.sleep(0.01)


def test_rows_are_appended_to_files_only(phalanx: Phalanx) -> None:
    os.mkfifo(phalanx.place / "pipe")
    done = phalanx("run", "-o", "pipe", "--dry-run", "--", "true")
    assert done.code == 4
    assert "pipe: it is no file, and runs append their rows under a lock; name a file with -o" in done.err
    assert (phalanx.place / "pipe").is_fifo()
