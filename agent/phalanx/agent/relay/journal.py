"""Which chunks of a blob were verified, kept beside it: a fetch goes on where it was when its agent died.

One byte a chunk, written in place without a sync: it outlives the process, not the machine. It is a hint
only; what it names is verified again by digest.
"""

from __future__ import annotations

import os
from pathlib import Path

from phalanx.agent.relay.descriptor import Descriptor, open_own, write_all
from phalanx.protocol.blob import Manifest

_MAGIC = b"phx1"
_HEAD_BYTES = 8


class Journal:
    """The file with the marks. Raises OSError from everything."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        head = _MAGIC + manifest.chunk_bytes.to_bytes(4, "big")
        self._file: Descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        fd = self._file.number
        self.marked: set[int] = set()  # by an earlier transfer
        if os.pread(fd, _HEAD_BYTES, 0) == head:
            marks = os.pread(fd, manifest.count, _HEAD_BYTES)
            self.marked = {index for index, mark in enumerate(marks) if mark}
        else:
            os.ftruncate(fd, 0)
            write_all(fd, head, 0)

    def mark(self, index: int) -> None:
        """Chunk ``index`` is verified and written."""
        write_all(self._file.number, b"\x01", _HEAD_BYTES + index)
