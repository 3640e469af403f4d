"""A chunk for a node as it goes out: packed where its link is slow enough that this brings it sooner."""

from __future__ import annotations

import time

from phalanx.protocol import zstd
from phalanx.protocol.messages import Chunk, ChunkGet
from phalanx.protocol.packing import Packing, room


def chunk_of(wanted: ChunkGet, payload: bytes, rule: Packing) -> Chunk:
    """The answer to ``wanted``, by the rule of the connection on which it goes. Blocks."""
    library = zstd.library() if wanted.unpacks else None
    if library is None or not rule.wants(len(payload)):
        return Chunk(wanted.blob, wanted.index, payload=payload)
    began = time.monotonic()
    into = memoryview(bytearray(room(len(payload))))
    left = library.compress(payload, into)
    rule.packed(len(payload), left, time.monotonic() - began)
    return Chunk(wanted.blob, wanted.index, left > 0, bytes(into[:left]) if left else payload)
