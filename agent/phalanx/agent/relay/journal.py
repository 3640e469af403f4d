"""Which chunks of a blob were verified, kept beside it: a fetch goes on where it was when its agent died, and
other processes see what is there while it comes.

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
        self._file: Descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        marked = _marks(self._file, manifest)
        self.marked: set[int] = marked or set()  # by an earlier transfer
        if marked is None:
            os.ftruncate(self._file.number, 0)
            write_all(self._file.number, _head(manifest), 0)

    def mark(self, index: int) -> None:
        """Chunk ``index`` is verified and written."""
        write_all(self._file.number, b"\x01", _HEAD_BYTES + index)


def marks_in(path: Path, manifest: Manifest) -> set[int]:
    """The chunks that another process has marked by now. Raises OSError."""
    return _marks(open_own(path, os.O_RDONLY), manifest) or set()


def _head(manifest: Manifest) -> bytes:
    return _MAGIC + manifest.chunk_bytes.to_bytes(4, "big")


def _marks(file: Descriptor, manifest: Manifest) -> set[int] | None:
    """The chunks that are marked; None when it is of chunks of another size, or not yet a journal."""
    if os.pread(file.number, _HEAD_BYTES, 0) != _head(manifest):
        return None
    marks = os.pread(file.number, manifest.count, _HEAD_BYTES)
    return {index for index, mark in enumerate(marks) if mark}
