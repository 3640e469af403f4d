"""What an agent reads before it joins, from someone it does not know yet."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from phalanx.agent.bootstrap import LONGEST_LINE, Bootstrap, BootstrapError, identify, parse, read

SECRET = "5ec4e7" * 10

GOOD: dict[str, Any] = {
    "run_id": "20260101-demo-7f3a",
    "addresses": [["10.0.0.1", 4000], ["::1", 4001]],
    "pin": "ab" * 32,
    "secret": SECRET,
    "agent_build": "c" * 64,
    "join_timeout_s": 60.0,
    "give_back": ["scancel", "7"],
}

BAD: list[Any] = [
    *({**GOOD, name: None} for name in GOOD if name != "give_back"),
    *({key: value for key, value in GOOD.items() if key != name} for name in GOOD if name != "give_back"),
    {**GOOD, "pin": "ab" * 31},
    {**GOOD, "pin": "zz"},
    {**GOOD, "secret": SECRET + "x"},
    {**GOOD, "secret": ""},
    {**GOOD, "run_id": "../../etc"},
    {**GOOD, "run_id": ""},
    {**GOOD, "addresses": [["10.0.0.1"]]},
    {**GOOD, "addresses": [["10.0.0.1", "port"]]},
    {**GOOD, "addresses": [["10.0.0.1", float("inf")]]},
    {**GOOD, "give_back": 7},
    [GOOD],
    SECRET,
    None,
]


def test_a_good_line_is_understood() -> None:
    told = parse(json.dumps(GOOD).encode())
    assert told.addresses == (("10.0.0.1", 4000), ("::1", 4001))
    assert told.secret == bytes.fromhex(SECRET)
    assert told.give_back == ("scancel", "7")


def test_the_secret_is_not_in_what_is_printed_of_it() -> None:
    told = parse(json.dumps(GOOD).encode())
    assert SECRET not in repr(told) and repr(told.secret)[2:20] not in repr(told)


@pytest.mark.parametrize("document", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_refused_without_repeating_any_of_it(document: Any) -> None:
    with pytest.raises(BootstrapError) as caught:
        parse(json.dumps(document).encode())
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in str(chain)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)


@pytest.mark.parametrize("line", [b"", b"\xff\xfe", b"{", b"[" * 100_000, SECRET.encode() * 3])
def test_what_is_no_json_is_refused_as_well(line: bytes) -> None:
    with pytest.raises(BootstrapError) as caught:
        parse(line)
    assert SECRET not in str(caught.value)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def test_the_line_is_read_in_pieces_and_stdin_is_closed_behind_it(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    line = json.dumps(GOOD).encode() + b"\nwhat comes behind"
    feeder = threading.Thread(
        target=lambda: [os.write(writer, line[i : i + 7]) for i in range(0, len(line), 7)]
    )
    feeder.start()
    told = read(reader, 10.0)
    assert isinstance(told, Bootstrap)
    assert os.read(reader, 10) == b""
    feeder.join()


def test_a_line_that_does_not_come_is_not_waited_for_for_ever(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"{")
    with pytest.raises(BootstrapError, match=r"within 0\.1 s"):
        read(pipe[0], 0.1)


def test_a_line_that_ends_early_or_never_is_refused(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    flood = threading.Thread(target=_flood, args=(writer,))
    flood.start()
    with pytest.raises(BootstrapError, match="longer than"):
        read(reader, 10.0)
    os.close(reader)
    flood.join()


def _flood(writer: int) -> None:
    try:
        for _ in range(2 * LONGEST_LINE // 4096):
            os.write(writer, b"x" * 4096)
    except BrokenPipeError:
        return


def test_who_an_agent_is_comes_from_its_options_then_from_slurm() -> None:
    slurm = {"SLURMD_NODENAME": "gpu-17", "SLURM_NODEID": "3"}
    assert (identify({}, slurm).node, identify({}, slurm).node_rank) == ("gpu-17", 3)
    assert identify({"node": "a", "node-rank": "1"}, slurm).node == "a"
    with pytest.raises(BootstrapError, match="rank"):
        identify({}, {"SLURM_NODEID": "-1"})
