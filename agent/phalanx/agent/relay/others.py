"""What another process of the user has of a blob that it writes: file, journal, and whether it comes on.

Nothing of it is believed: who reads along verifies each chunk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from phalanx.agent.relay.descriptor import Descriptor, open_own
from phalanx.agent.relay.journal import marks_in
from phalanx.protocol.blob import Manifest


class Others:
    """The blob at ``path``, or until it is whole at ``part`` with its ``bitmap``. For one thread only."""

    def __init__(self, path: Path, part: Path, bitmap: Path, manifest: Manifest) -> None:
        self._places = path, part
        self._bitmap = bitmap
        self._manifest = manifest
        self._stamp = 0
        self._grew_at: float | None = None
        self._look_from = 0

    @property
    def still_s(self) -> float:
        """For how many seconds nothing more was seen of it; 0 when nothing ever was."""
        grew_at = self._grew_at
        return 0.0 if grew_at is None else time.monotonic() - grew_at

    def forget(self) -> None:
        """It is none of theirs any more, or another file."""
        self._grew_at = None

    def file(self, known: Descriptor | None) -> Descriptor | None:
        """The file as it is named now, ``known`` when it is that one; None without one. Raises OSError."""
        if known is not None and any(known.is_at(place) for place in self._places):
            return known
        there = [place for place in self._places if place.exists()]
        return open_own(there[0], os.O_RDWR) if there else None

    def look(self, file: Descriptor) -> None:
        """See whether it was written to."""
        stamp = os.fstat(file.number).st_mtime_ns
        if self._grew_at is None or stamp != self._stamp:
            self._stamp, self._grew_at = stamp, time.monotonic()

    def unseen(self, file: Descriptor, has: Callable[[int], bool]) -> list[int]:
        """Chunks that should be there by now and are not among what one ``has``: all of a file that is named.

        Those behind the one that was looked at last come first. Raises OSError.
        """
        manifest, start = self._manifest, self._look_from
        named = file.is_at(self._places[0])
        marked = range(manifest.count) if named else sorted(marks_in(self._bitmap, manifest))
        known = len(manifest.digests)
        unseen = [index for index in marked if index < known and not has(index)]
        return [i for i in unseen if i >= start] + [i for i in unseen if i < start]

    def seen(self, index: int, matches: bool) -> None:
        """A chunk was looked at."""
        self._look_from = index + 1
        if matches:
            self._grew_at = time.monotonic()
