"""Screens as they are seen: golden text for every way a run can go.

A change of a screen shows here as a changed file: write them anew with ``PHALANX_WRITE_GOLDEN=1``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.runs import changes
from phalanx.controller.runs.ending import ending
from phalanx.controller.runs.evidence import Evidence
from phalanx.controller.runs.history_entry import entry_of
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.screen import AREA, Passing, progress
from phalanx.controller.runs.view import advance, fold
from phalanx.controller.runs.words import Style, clip, visible

from .stories import RUN, START, STORIES, first_failure, names, recorded, running, started

GOLDEN = Path(__file__).with_name("golden")
PLACE = f"phalanx-runs/{RUN}"
EVIDENCE = Evidence(
    f"{PLACE}/logs/node2/rank3.err",
    ("Traceback (most recent call last):", "RuntimeError: HIP out of memory"),
    4812,
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def check(name: str, text: str) -> None:
    """Compare with the golden file, or write it."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("PHALANX_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def screen(story: str, style: Style) -> str:
    view = fold(recorded(STORIES[story]), RUN)
    lines = progress(view, START + 20, style)
    if view.finished:
        of_rank = view.failure is not None and view.failure.cause is not None
        lines += ["", *ending(view, EVIDENCE if of_rank else Evidence(), style, PLACE)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("story", STORIES)
def test_the_last_screen_of_each_story(story: str) -> None:
    check(story, screen(story, Style(width=110)))


@pytest.mark.parametrize("story", STORIES)
def test_plain_progress_of_each_story(story: str) -> None:
    view = RunView(run_id=RUN)
    lines = []
    for one in recorded(STORIES[story]):
        advance(view, one)
        lines.append(changes.words(view, one))
    check(f"{story}.plain", "".join(f"{line}\n" for line in lines if line))


def test_without_unicode_every_sign_is_ascii() -> None:
    text = screen("first_failure", Style(unicode=False, width=110))
    assert "FAIL" in text
    text = text.replace("×", "x").replace("·", "-").replace("…", "...")
    assert text.isascii()


def test_colour_adds_nothing_but_colour() -> None:
    import re

    coloured = screen("first_failure", Style(color=True, width=110))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == screen("first_failure", Style(width=110))
    assert "\x1b[31m✗\x1b[0m" in coloured


def test_nothing_but_the_exit_stands_below_the_first_failure() -> None:
    lines = screen("first_failure", Style(width=110)).splitlines()
    first = next(i for i, line in enumerate(lines) if "First failure" in line)
    assert "node2 rank 3 (local 1)" in lines[first]
    assert not any("followed" in line or "stopped by phalanx" in line for line in lines[first:])
    assert lines[-1].startswith("exit 3")


def test_ranks_that_wait_until_the_deadline_have_no_first_and_blame_no_node() -> None:
    text = screen("out_of_time", Style(width=110))
    assert "no rank failed, all 4 ran until the deadline" in text
    assert "First failure" not in text
    assert not any(
        node.failed_first for node in entry_of(PLACE, fold(recorded(STORIES["out_of_time"]), RUN), {}).nodes
    )


@pytest.mark.parametrize(
    ("end", "headline"),
    [
        ((0, "exited"), "First failure — node2 rank 1"),
        ((9, "exited"), "First failure — node2 rank 1"),
        ((137, "oom"), "First failure — node2 rank 1"),
        ((143, "stopped"), "Deadline — the script was still running on all 2 ranks"),
    ],
)
def test_a_deadline_is_told_as_one_of_all_only_when_nothing_else_went_wrong(
    end: tuple[int, str], headline: str
) -> None:
    events = [
        *started(),
        *running(),
        ev.RankExited("demo", "main", "node2", 1, 143, "deadline", 60.0, "stopped at its deadline of 60 s"),
        ev.RankExited("demo", "main", "node1", 0, *end, 60.1),
        ev.RunFinished("failed", 3, "failed: demo"),
    ]
    lines = ending(fold(recorded(events), RUN), Evidence(), Style(), PLACE)
    assert any(headline in line for line in lines)


def test_a_thousand_followers_are_one_line() -> None:
    view = fold(recorded(first_failure(nodes=128, per_node=8)), RUN)
    lines = ending(view, Evidence(), Style(), PLACE)
    assert sum("stopped by phalanx" in line for line in lines) == 1
    assert len(lines) < 12
    assert "node[1-128] (128) ranks 0-2,5-1023" in "\n".join(lines)


def test_the_live_area_is_never_taller_or_wider_than_promised() -> None:
    trouble: list[ev.Event] = [ev.AgentSilent(name, "no heartbeat " * 20) for name in names(40)]
    view = fold(recorded([*started(64), *running(64, 8), *trouble, ev.AgentLost("node50", "x" * 300)]), RUN)
    view.state, view.ending = "ending", "y" * 300
    lines = progress(view, START + 9, Style(width=79, color=True), Passing(note="z" * 300))
    assert len(lines) <= AREA
    assert max(visible(line) for line in lines) <= 79


def test_what_a_node_or_a_rank_says_of_itself_cannot_drive_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\rok\u202e"
    events = [
        *started(),
        *running(),
        ev.AgentLost("node1", hostile),
        ev.RankExited("demo", "main", "node2", 1, 3, "exited", 1.0, hostile),
        ev.CaseFinished("demo", "FAILURE", hostile, (), hostile),
        ev.RunFinished("failed", 3, hostile, (hostile,)),
    ]
    view = fold(recorded(events), RUN)
    view.metrics[hostile] = (0, 1.0, hostile)
    text = "\n".join([*progress(view, START, Style()), *ending(view, Evidence(), Style(), PLACE)])
    assert not set(text) & set("\x1b\x07\r\u202e")


def test_progress_of_the_image_is_a_share_of_all_bytes() -> None:
    events = [
        *started(),
        ev.ImageSource("archive a.tar", "bench:1", "sha256:5c1e00aa11bb22cc", 2_000_000_000),
    ]
    passing = Passing({"image": {"node1": (1_000_000_000, 2_000_000_000), "node2": (0, 2_000_000_000)}})
    lines = progress(fold(recorded(events)), START + 9, Style(), passing)
    assert "25 % of 4.0 GB" in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "width", "expected"), [("abcdef", 4, "abc…"), ("abc", 3, "abc"), ("abc", 0, "abc")]
)
def test_clipping_keeps_the_width(text: str, width: int, expected: str) -> None:
    assert clip(text, width) == expected


def test_clipping_keeps_colours_balanced() -> None:
    assert clip("\x1b[31mabcdef\x1b[0m", 4) == "\x1b[31mabc…\x1b[0m"
