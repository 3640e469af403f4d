"""Lines of a growing file are handed on whole, once, in order, and not without end."""

from __future__ import annotations

from pathlib import Path

from phalanx.controller.targets.words import KEPT_LINES, LINE_LIMIT, PASSED_LINES, Sayings, WordsFile


def test_a_line_is_handed_on_when_it_is_whole(tmp_path: Path) -> None:
    path, heard = tmp_path / "log", list[str]()
    file = WordsFile(path, heard.append)
    assert not file.read()
    path.write_bytes(b"one\ntw")
    file.read()
    assert heard == ["one"]
    with path.open("ab") as more:
        more.write(b"o\r\n\nthree")
    file.read()
    assert heard == ["one", "two"]
    file.finish()
    assert heard == ["one", "two", "three"]


def test_what_an_earlier_spawn_left_in_the_file_is_not_said_again(tmp_path: Path) -> None:
    path, heard = tmp_path / "log", list[str]()
    path.write_bytes(b"old\n")
    file = WordsFile(path, heard.append)
    with path.open("ab") as more:
        more.write(b"new\n")
    file.finish()
    assert heard == ["new"]


def test_a_line_without_end_is_cut_and_strange_bytes_do_no_harm(tmp_path: Path) -> None:
    path, heard = tmp_path / "log", list[str]()
    file = WordsFile(path, heard.append)
    path.write_bytes(b"\xff" * (LINE_LIMIT + 10))
    file.finish()
    assert heard == ["\ufffd" * LINE_LIMIT]


def test_who_talks_for_ever_is_passed_on_for_a_while_and_remembered_by_the_end(tmp_path: Path) -> None:
    passed = list[str]()
    sayings = Sayings(lambda node, line: passed.append(line), tmp_path)
    for i in range(PASSED_LINES * 3):
        sayings.hear("n1", str(i))
    assert len(passed) == PASSED_LINES + 1
    assert passed[-1].endswith(f"they are in {tmp_path})")
    assert sayings.of("n1") == tuple(str(i) for i in range(PASSED_LINES * 3))[-KEPT_LINES:]
