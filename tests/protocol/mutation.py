"""Frames that were right once, changed at random: what a broken or hostile peer sends.

``run`` decodes so many of them and counts what came out. Anything but a message or a typed error is a
finding; it is raised with the bytes that did it and the seed that leads there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from phalanx.protocol.errors import ProtocolError
from phalanx.protocol.frames import FrameDecoder, decode
from phalanx.protocol.messages import Direction, Kind

from .samples import every_frame

#: Bytes that mean something in msgpack: empty, nested, huge, extension, nil, not used.
TELLING = bytes((0x00, 0x7F, 0x80, 0x81, 0x90, 0x91, 0x9F, 0xA0, 0xC0, 0xC1, 0xC3, 0xC6, 0xC7, 0xC9, 0xCB))
TELLING += bytes((0xCF, 0xD3, 0xD4, 0xD6, 0xD9, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF))


class Finding(AssertionError):
    """Bytes that raised something else than a typed error."""


def flip(data: bytearray, rng: random.Random) -> None:
    """One bit of the body, its kind or its length."""
    place = int(rng.random() * len(data))
    data[place] ^= 1 << int(rng.random() * 8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    """One byte by one that msgpack gives a meaning."""
    data[int(rng.random() * len(data))] = TELLING[int(rng.random() * len(TELLING))]


def insert(data: bytearray, rng: random.Random) -> None:
    """A byte too many, the length corrected so that the body is looked at."""
    data.insert(5 + int(rng.random() * (len(data) - 4)), TELLING[int(rng.random() * len(TELLING))])
    correct(data)


def delete(data: bytearray, rng: random.Random) -> None:
    """Some bytes too few, the length corrected."""
    place = 5 + int(rng.random() * (len(data) - 5))
    del data[place : place + 1 + int(rng.random() * 8)]
    correct(data)


def repeat(data: bytearray, rng: random.Random) -> None:
    """A part of the body twice, the length corrected."""
    low = 5 + int(rng.random() * (len(data) - 5))
    data[low:low] = data[low : low + 1 + int(rng.random() * 32)]
    correct(data)


def correct(data: bytearray) -> None:
    """Make the length fit the bytes."""
    data[0:4] = (len(data) - 4).to_bytes(4, "big")


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip,
    overwrite,
    overwrite,
    insert,
    delete,
    repeat,
)


def mutated(frames: list[bytes], rng: random.Random) -> bytes:
    """A frame of ``frames`` with one to three changes."""
    data = bytearray(frames[int(rng.random() * len(frames))])
    for _ in range(1 + int(rng.random() * 3)):
        MUTATIONS[int(rng.random() * len(MUTATIONS))](data, rng)
    return bytes(data)


def outcome(data: bytes, sender: Direction) -> str:
    """What the receiver makes of ``data``: the message's or the error's name, or that it waits for more.

    Raises Finding for anything else.
    """
    decoder = FrameDecoder(Kind)
    decoder.feed(data)
    try:
        frame = decoder.next()
        return "waits" if frame is None else type(decode(frame, sender)).__name__
    except ProtocolError as error:
        return type(error).__name__
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error} from {data.hex()}") from error


def run(seed: int, count: int) -> Counter[str]:
    """Decode ``count`` mutated frames; how often each outcome came."""
    rng = random.Random(seed)
    frames = every_frame()
    seen: Counter[str] = Counter()
    for number in range(count):
        seen[outcome(mutated(frames, rng), Direction.AGENT if number & 1 else Direction.CONTROLLER)] += 1
    return seen
