"""The agent decodes with pure-Python msgpack, the controller with the C one: they agree on every byte."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import Any

import msgpack
import pytest
from phalanx.protocol.messages import Direction

from .mutation import mutated, outcome
from .samples import every_frame
from .test_frames import BOMBS

COUNT = 20_000
PROGRAM = """
import json, sys
from msgpack import Packer
from tests.protocol.mutation import outcome
from phalanx.protocol.messages import Direction
from phalanx.protocol.frames import encode
from tests.protocol.samples import every_message
lines = [outcome(bytes.fromhex(line.strip()), Direction.AGENT) for line in sys.stdin]
print(json.dumps({"packer": Packer.__module__, "outcomes": lines,
                  "frames": [encode(message).hex() for message in every_message()]}))
"""


def told(data: list[bytes], pure: bool) -> dict[str, Any]:
    """What an interpreter with one of the two implementations makes of each frame."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    environment.pop("MSGPACK_PUREPYTHON", None)
    if pure:
        environment["MSGPACK_PUREPYTHON"] = "1"
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="\n".join(piece.hex() for piece in data),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=240,
    )
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


def hostile_frames() -> list[bytes]:
    rng = random.Random(20_000)
    frames = every_frame()
    found = [*frames, *(mutated(frames, rng) for _ in range(COUNT))]
    for kind, cap in ((1, 4096), (2, 256 * 1024)):
        for bomb in BOMBS.values():
            body = bomb(cap)[:cap]
            found.append((len(body) + 1).to_bytes(4, "big") + bytes([kind]) + body)
    return found


def test_both_implementations_of_msgpack_agree_on_hostile_frames_and_on_our_own() -> None:
    if msgpack.Packer.__module__ == "msgpack.fallback":
        pytest.fail("this interpreter has no C msgpack: install msgpack from a wheel")
    data = hostile_frames()
    native, pure = told(data, pure=False), told(data, pure=True)
    assert native["packer"] != pure["packer"] == "msgpack.fallback"
    assert native["frames"] == pure["frames"]
    differences = [
        (piece.hex()[:80], one, other)
        for piece, one, other in zip(data, native["outcomes"], pure["outcomes"], strict=True)
        if one != other
    ]
    assert differences == []
    assert native["outcomes"][: len(every_frame())] == [
        outcome(frame, Direction.AGENT) for frame in every_frame()
    ]
