"""One blob on its way into the cache, or whole: written by one transfer, read by many while it comes.

Its file is locked (flock(2)): exclusively by the transfer that writes it, of all processes of the user, and
shared by whoever uses it once it is whole. A dead process holds no lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from phalanx.agent.relay.descriptor import Descriptor, open_own, write_all
from phalanx.agent.relay.journal import Journal
from phalanx.protocol.blob import ChunkMismatch, Manifest

#: Bytes of the file that are read at a time to hash the whole.
_READ_BYTES = 1 << 20


class SpoolError(Exception):
    """The blob cannot be kept. The message says why and what to do."""


def never() -> bool:
    """For who does not want to be stopped."""
    return False


class Spool:
    """A blob at ``path``, or at ``path``.part until it is whole. Safe to use from any thread.

    Digests may be added to ``manifest`` while it is written: what has none yet is not missing, nor kept.
    ``whole``: all is there, matches its digest and has its name. ``writing``: it is ours to write.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.part = path.with_name(path.name + ".part")
        self.bitmap = path.with_name(path.name + ".bitmap")
        self.whole = False
        self.writing = False
        #: bytes that are verified and written
        self.verified = 0
        self._have = bytearray(manifest.count)
        self._spoiled = ""
        self._changed = threading.Condition()
        self._file: Descriptor | None = None
        self._journal: Journal | None = None
        self.adopt()

    # --- what is there

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return self.verified == self.manifest.size

    def has(self, index: int) -> bool:
        """Whether a chunk is verified and can be read."""
        return 0 <= index < len(self._have) and self._have[index] == 1

    def missing(self, first: int, step: int) -> Iterator[int]:
        """Chunks from ``first`` on in steps whose digests are known and that are not there."""
        known = len(self.manifest.digests)
        return (index for index in range(first, known, step) if not self._have[index])

    def wait_for(self, index: int, timeout_s: float, stopped: Callable[[], bool] = never) -> bool:
        """Whether the chunk is there; waits for it until ``stopped``, which is looked at after a ``wake``."""
        with self._changed:
            self._changed.wait_for(lambda: self.has(index) or stopped(), timeout_s)
            return self.has(index)

    def wait_complete(self, timeout_s: float, stopped: Callable[[], bool] = never) -> bool:
        """Whether the blob is whole; waits as ``wait_for`` does."""
        with self._changed:
            self._changed.wait_for(lambda: self.whole or stopped(), timeout_s)
            return self.whole

    def wake(self) -> None:
        """Make all who wait see whether they are stopped."""
        with self._changed:
            self._changed.notify_all()

    def span(self, index: int) -> tuple[Descriptor, int, int]:
        """The file, the offset and the length of a chunk that is there. Raises SpoolError."""
        with self._changed:
            if self._file is None or not self.has(index):
                raise SpoolError(f"chunk {index} is not held")
            return self._file, self.manifest.offset(index), self.manifest.length(index)

    def read(self, index: int) -> bytes:
        """The bytes of a chunk that is there. Raises SpoolError, OSError."""
        file, offset, length = self.span(index)
        payload = os.pread(file.number, length, offset)
        if len(payload) != length:
            raise SpoolError(f"{self.path} is shorter than it was")
        return payload

    # --- writing

    def adopt(self) -> bool:
        """Look whether it lies whole in its place by now; it then stays while this is open."""
        if self.whole or self.writing:
            return self.whole
        try:
            file = open_own(self.path, os.O_RDONLY)
            if not file.lock(fcntl.LOCK_SH) or self.bitmap.exists() or not file.is_at(self.path):
                return False
            if os.fstat(file.number).st_size != self.manifest.size:
                return False
            os.utime(self.path)  # the last use, for the eviction
        except OSError:
            return False
        with self._changed:
            self._file = file
            self._have = bytearray(b"\x01") * len(self._have)
            self.verified = self.manifest.size
            self.whole = True
            self._changed.notify_all()
        return True

    def claim(self, stopped: Callable[[], bool] = never) -> bool:
        """Become the one who writes it. False while someone else does, and when it is whole.

        Takes up what an earlier transfer has left; its chunks are verified again, those whose digests are not
        known yet by ``recall``. Raises SpoolError.
        """
        if self.adopt():
            return False
        with self._changed:
            if self.writing:
                return False
            self.writing, self._spoiled = True, ""
        mine = False
        try:
            mine = self._take_file(stopped)
        except OSError as error:
            raise SpoolError(f"cannot write {self.part}: {error.strerror or error}") from error
        finally:
            if not mine:
                self._give_up()
        return mine

    def _give_up(self) -> None:
        with self._changed:
            self.writing = False
            if self._file is not None:
                self._file.unlock()

    def _take_file(self, stopped: Callable[[], bool]) -> bool:
        # a blob in its place that is not known to be on the disk is work to be taken up, like any other
        place = self.path if self.path.exists() else self.part
        file = open_own(place, os.O_RDWR | (os.O_CREAT if place is self.part else 0))
        if self._file is not None and self._file.is_at(place):
            file = self._file
        if not file.lock(fcntl.LOCK_EX) or not file.is_at(place):
            return False
        if place is self.part and self.path.exists():
            return False  # another process was faster
        if place is self.path:
            place.rename(self.part)
        with self._changed:
            if file is not self._file:
                self._forget()
            self._file = file
        self._journal = Journal(self.bitmap, self.manifest)
        for index in sorted(self._journal.marked):
            if stopped():
                break
            self.recall(index)
        return True

    def _forget(self) -> None:
        self._have = bytearray(len(self._have))
        self.verified = 0

    def recall(self, index: int) -> bool:
        """Whether a chunk is there because an earlier transfer has left it, and it was verified just now."""
        with self._changed:
            file, journal = self._file, self._journal
            known = len(self.manifest.digests)
            if file is None or journal is None or index >= known or index not in journal.marked:
                return False
            journal.marked.remove(index)
        try:
            payload = os.pread(file.number, self.manifest.length(index), self.manifest.offset(index))
            self.manifest.verify(index, payload)
        except (ChunkMismatch, OSError):
            return False  # it is fetched like any other
        with self._changed:
            if self._journal is journal:  # it is still ours
                self._have_it(index)
        return self.has(index)

    def _have_it(self, index: int) -> None:
        with self._changed:
            if not self._have[index]:
                self._have[index] = 1
                self.verified += self.manifest.length(index)
                self._changed.notify_all()

    def keep(self, index: int, payload: bytes | memoryview) -> bool:
        """Write a chunk once it is verified; False when it was there, or is not ours to write.

        Raises ChunkMismatch, and SpoolError when it cannot be written: what was there is then removed.
        """
        self.manifest.verify(index, payload)
        with self._changed:
            file, journal = self._file, self._journal
            if not self.writing or file is None or journal is None or self.has(index):
                return False
        try:
            write_all(file.number, payload, self.manifest.offset(index))
            journal.mark(index)
        except OSError as error:
            words = (
                f"cannot write {self.part}: {error.strerror}; make room there, or set PHALANX_CACHE_DIR of "
                "the agents to a larger disk of the node"
            )
            self.discard(words)
            raise SpoolError(words) from error
        self._have_it(index)
        return True

    def finish(self, stopped: Callable[[], bool] = never, *, trusted: bool = False) -> bool:
        """Hash the blob in order while it comes, and give it its name at the end. False when stopped.

        ``trusted``: who made the manifest has read the whole for it and is believed; the chunks' digests are
        enough then. For the one who has claimed it. Raises SpoolError when the whole is not what the manifest
        says, and what ``keep`` raised in another thread.
        """
        whole = hashlib.sha256()
        buffer = memoryview(bytearray(_READ_BYTES))
        try:
            for index in range(self.manifest.count):
                while not self.wait_for(index, 1.0, lambda: stopped() or not self.writing):
                    if self._spoiled:
                        raise SpoolError(self._spoiled)
                    if stopped() or not self.writing:
                        return False
                if not trusted:
                    self._hash(whole.update, index, buffer)
            if not trusted and whole.digest() != self.manifest.blob:
                self.discard()
                raise SpoolError(
                    f"cannot keep {self.path.name}: every chunk is what its manifest says, the whole is not"
                )
            self._name()
        except OSError as error:
            raise SpoolError(f"cannot finish {self.part}: {error.strerror or error}") from error
        return True

    def _hash(self, update: Callable[[memoryview], None], index: int, buffer: memoryview) -> None:
        file, offset, length = self.span(index)
        while length:
            got = os.preadv(file.number, [buffer[: min(length, len(buffer))]], offset)
            if not got:
                raise SpoolError(f"cannot read {self.part}: it is shorter than it was")
            update(buffer[:got])
            offset, length = offset + got, length - got

    def _name(self) -> None:
        file = self._file
        if file is None:
            raise SpoolError(f"cannot keep {self.path.name}: it was given up")
        os.ftruncate(file.number, self.manifest.size)
        self.part.rename(self.path)
        file.lock(fcntl.LOCK_SH)
        with self._changed:
            self.whole, self.writing = True, False
            self._changed.notify_all()

    def settle(self) -> None:
        """Bring a whole blob to the disk; the next agent takes it as it is only after that. Slow."""
        file = self._file
        if self.whole and file is not None and self._journal is not None:
            os.fsync(file.number)
            self._journal = None
            self.bitmap.unlink(missing_ok=True)

    def unclaim(self) -> None:
        """Leave it for whoever goes on with it, here or in another process."""
        with self._changed:
            if self.writing and not self.verified and not (self._journal and self._journal.marked):
                self.discard()
            elif self.writing and self._file is not None:
                self._file.unlock()
                self.writing, self._journal = False, None
                self._changed.notify_all()

    def discard(self, why: str = "") -> None:
        """Remove what there is of a blob that is ours to write; ``why`` is for who waits for the rest."""
        with self._changed:
            if self.writing:
                self._spoiled = why
                self.part.unlink(missing_ok=True)
                self.bitmap.unlink(missing_ok=True)
                self._forget()
                self._file = self._journal = None
                self.writing = False
                self._changed.notify_all()

    def close(self) -> None:
        """Let go of it: it may be evicted now. Who reads a chunk just now reads it to its end."""
        with self._changed:
            if self._file is not None:
                self._file.unlock()
            self._file = self._journal = None
            self.whole = self.writing = False
            self._forget()
            self._changed.notify_all()
