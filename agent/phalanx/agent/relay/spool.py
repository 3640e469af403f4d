"""One blob on its way into the cache, or whole: written by one transfer, read by many while it comes.

Its file is locked (flock(2)): exclusively by the transfer that writes it, of all processes of the user, and
shared by whoever uses it once it is whole. A dead process holds no lock. Other processes read along what is
written (``follow``). When the writer does not come on, one of them writes a file of its own beside the first
(``claim_apart``): who is whole first gets the name, and takes away what the other has.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from phalanx.agent.relay.descriptor import Descriptor, open_own, rename_anew, write_all
from phalanx.agent.relay.journal import Journal
from phalanx.agent.relay.others import Others
from phalanx.protocol.blob import ChunkMismatch, Manifest

#: Bytes of the file that are read at a time to hash the whole.
_READ_BYTES = 1 << 20
#: Chunks of another process that do not match after which the next look goes on behind them.
_DOUBTFUL = 4
#: How often another process may be faster before it is no chance: what it names is not what we look for.
_MOST_LOSSES = 3


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
        self.part, self.bitmap = self._beside(0)
        self.whole = False
        self.writing = False
        #: bytes that are verified and written
        self.verified = 0
        self._have = bytearray(manifest.count)
        self._spoiled = ""
        self._changed = threading.Condition()
        self._file: Descriptor | None = None
        self._journal: Journal | None = None
        # where chunks may lie that were not verified since it was claimed, and those that just are
        self._left: dict[int, Descriptor] = {}
        self._recalled: set[int] = set()
        self._others = Others(path, self.part, self.bitmap, manifest)
        self._losses = 0
        self._unsettled = False
        self.adopt()

    def _beside(self, place: int) -> tuple[Path, Path]:
        """The names of a file that is not whole and of its journal; place 0 is that of who claims it."""
        stem = f"{self.path.name}.{place}" if place else self.path.name
        return self.path.with_name(stem + ".part"), self.path.with_name(stem + ".bitmap")

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

    # --- what another process writes

    def follow(self, stopped: Callable[[], bool] = never) -> None:
        """What another process has written of it by now is there for us as well, each chunk verified here."""
        if self.adopt():
            return
        try:
            file = self._followed()
            if file is not None:
                self._read_along(file, stopped)
                self._adopt_followed(file)
        except OSError:
            return  # it is looked at again

    @property
    def still_s(self) -> float:
        """For how many seconds another process that writes it has written nothing; 0 when there is none."""
        return 0.0 if self.writing or self.whole else self._others.still_s

    def _followed(self) -> Descriptor | None:
        file = self._others.file(self._file)
        with self._changed:
            if file is None or self.writing or self.whole:
                return None
            if file is not self._file:
                self._forget()
                self._file = file
        self._others.look(file)
        return file

    def _read_along(self, file: Descriptor, stopped: Callable[[], bool]) -> None:
        doubtful = 0
        for index in self._others.unseen(file, self.has):
            if stopped() or doubtful == _DOUBTFUL:
                return
            matches = self._matching(file, index) is not None
            doubtful += not matches
            self._others.seen(index, matches)
            with self._changed:
                if matches and self._file is file:
                    self._set(index, True)

    def _adopt_followed(self, file: Descriptor) -> None:
        """It has its name and every chunk was verified here: that it is not on the disk yet is no matter."""
        with self._changed:
            free = self._file is file and self.complete and not (self.writing or self.whole)
            if free and file.is_at(self.path) and file.lock(fcntl.LOCK_SH):
                self.whole = self._unsettled = True
                self._changed.notify_all()

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
            if self.writing:  # another thread is about to claim it
                return False
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
        return self._begin(lambda: self._take_file(stopped))

    def claim_apart(self) -> bool:
        """Write it beside another process that does not come on, in its own file; False when it is whole.

        What is verified of the other's file is taken over by ``recall``. Raises SpoolError.
        """
        return self._begin(self._take_own_file)

    def _begin(self, take: Callable[[], bool]) -> bool:
        if self.adopt():
            return False
        with self._changed:
            if self.writing:
                return False
            self.writing, self._spoiled = True, ""
        mine = False
        try:
            mine = take()
        except OSError as error:
            raise SpoolError(f"cannot write {self.part}: {error.strerror or error}") from error
        finally:
            if not mine:
                self._give_up()
        return mine

    def _give_up(self) -> None:
        with self._changed:
            self.writing = False
            if self._file is not None and not self.whole:
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
            place.unlink()  # another process was faster
            return False
        if place is self.path:
            if file.is_at(self.part):  # who named it died before the other name went
                place.unlink()
            else:
                place.rename(self.part)
        with self._changed:
            if file is not self._file:
                self._forget()
            self._file = file
        self._journal = Journal(self.bitmap, self.manifest)
        self._left = dict.fromkeys(self._journal.marked, file)
        self.recall_all(stopped)
        return True

    def _take_own_file(self) -> bool:
        for place in itertools.count(1):
            part, bitmap = self._beside(place)
            file = open_own(part, os.O_RDWR | os.O_CREAT)
            if file.lock(fcntl.LOCK_EX) and file.is_at(part):
                break
        journal = Journal(bitmap, self.manifest)
        with self._changed:
            left = {index: self._file for index in range(len(self._have)) if self._file and self.has(index)}
            self._left = left | dict.fromkeys(journal.marked, file)
            self._forget()
            self.part, self.bitmap = part, bitmap
            self._file, self._journal = file, journal
        return True

    def _forget(self) -> None:
        self._have = bytearray(len(self._have))
        self.verified = 0
        self._unsettled = False
        self._others.forget()

    def recall_all(self, stopped: Callable[[], bool] = never) -> None:
        """Verify all that is left of an earlier transfer, or of one that did not come on; see ``recall``."""
        for index in sorted(self._left):
            if stopped():
                return
            self.recall(index)

    def recall(self, index: int) -> bool:
        """Whether a chunk is there because another transfer has left it, and it was verified just now.

        Raises SpoolError when it lies in another file and cannot be written to ours.
        """
        with self._changed:
            self._changed.wait_for(lambda: index not in self._recalled)
            file, journal = self._file, self._journal
            if journal is None or index >= len(self.manifest.digests) or index not in self._left:
                return self.has(index)
            source = self._left.pop(index)
            self._recalled.add(index)
        payload = None
        try:
            payload = self._matching(source, index)
            if payload is not None and source is not file:
                self.keep(index, payload)
        finally:
            with self._changed:
                if self._journal is journal and source is file:  # it is still ours
                    self._set(index, payload is not None)  # without it, it is fetched like any other
                self._recalled.discard(index)
                self._changed.notify_all()
        return self.has(index)

    def _matching(self, file: Descriptor, index: int) -> bytes | None:
        """A chunk as it lies in a file, when it is what it should be."""
        try:
            payload = os.pread(file.number, self.manifest.length(index), self.manifest.offset(index))
            self.manifest.verify(index, payload)
        except (ChunkMismatch, OSError):
            return None
        return payload

    def _set(self, index: int, there: bool) -> None:
        with self._changed:
            if self.has(index) != there:
                self._have[index] = there
                self.verified += self.manifest.length(index) if there else -self.manifest.length(index)
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
        with self._changed:
            if self._file is file:
                self._set(index, True)
        return True

    def finish(self, stopped: Callable[[], bool] = never, *, trusted: bool = False) -> bool:
        """Hash the blob in order while it comes, and give it its name at the end. Whether it is whole then:
        not when stopped, or when another process was faster and has not brought it to the disk yet.

        ``trusted``: who made the manifest has read the whole for it and is believed; the chunks' digests are
        enough then. For the one who has claimed it. Raises SpoolError when the whole is not what the manifest
        says, and what ``keep`` raised in another thread.
        """
        whole = hashlib.sha256()
        buffer = memoryview(bytearray(_READ_BYTES))
        try:
            for index in range(self.manifest.count):
                if not self._await(index, stopped):
                    return self.whole
                if not trusted:
                    self._hash(whole.update, index, buffer)
            if not trusted and whole.digest() != self.manifest.blob:
                self.discard()
                raise SpoolError(
                    f"cannot keep {self.path.name}: every chunk is what its manifest says, the whole is not"
                )
            return self._name() or self._lose()
        except OSError as error:
            raise SpoolError(f"cannot finish {self.part}: {error.strerror or error}") from error

    def _await(self, index: int, stopped: Callable[[], bool]) -> bool:
        """Whether a chunk has come; not when another process was faster with all of it. Raises SpoolError."""
        while self.writing and not stopped():
            if self.wait_for(index, 1.0, lambda: stopped() or not self.writing):
                return True
            if self.writing and self._is_overtaken():
                self._lose()
                return False
        if self._spoiled:
            raise SpoolError(self._spoiled)
        return False

    def _hash(self, update: Callable[[memoryview], None], index: int, buffer: memoryview) -> None:
        file, offset, length = self.span(index)
        while length:
            got = os.preadv(file.number, [buffer[: min(length, len(buffer))]], offset)
            if not got:
                raise SpoolError(f"cannot read {self.part}: it is shorter than it was")
            update(buffer[:got])
            offset, length = offset + got, length - got

    def _name(self) -> bool:
        """Give it its name; False when another process was faster."""
        file = self._file
        if file is None:
            raise SpoolError(f"cannot keep {self.path.name}: it was given up")
        os.ftruncate(file.number, self.manifest.size)
        beside, journal = self._beside(0)
        apart = self.part != beside
        if apart:  # the journal at the first place, which would say that it is not on the disk, is not ours
            os.fsync(file.number)
        if self._is_overtaken() or not rename_anew(self.part, self.path):
            return False
        if apart:
            for left in (beside, journal, self.bitmap):
                left.unlink(missing_ok=True)
        file.lock(fcntl.LOCK_SH)
        with self._changed:
            self._end_writing()
            self.whole, self._unsettled = True, not apart
            self._changed.notify_all()
        return True

    def _is_overtaken(self) -> bool:
        """Whether another process has made it whole, or taken our file away."""
        file = self._file
        return file is None or self.path.exists() or not file.is_at(self.part)

    def _lose(self) -> bool:
        """Leave it to the process that was faster; whether it is to be had from there. Raises SpoolError."""
        self.discard()
        self._losses += 1
        if self._losses > _MOST_LOSSES:
            raise SpoolError(f"cannot keep {self.path.name}: other runs of yours replace it or take it away")
        return self.adopt()

    def settle(self) -> None:
        """Bring a whole blob to the disk, whoever wrote it; the next agent takes it as it is only after that.
        Slow."""
        file = self._file
        if self.whole and file is not None and self._unsettled:
            os.fsync(file.number)
            self._unsettled = False
            self.bitmap.unlink(missing_ok=True)

    def unclaim(self) -> None:
        """Leave it for whoever goes on with it, here or in another process."""
        with self._changed:
            if self.writing and (self.part != self._beside(0)[0] or not (self.verified or self._left)):
                self.discard()
            elif self.writing and self._file is not None:
                self._file.unlock()
                self._end_writing()
                self._changed.notify_all()

    def discard(self, why: str = "") -> None:
        """Remove what there is of a blob that is ours to write; ``why`` is for who waits for the rest."""
        with self._changed:
            if self.writing:
                self._spoiled = why
                if self._file is not None and self._file.is_at(self.part):
                    self.part.unlink(missing_ok=True)
                    self.bitmap.unlink(missing_ok=True)
                self._forget()
                self._file = None
                self._end_writing()
                self._changed.notify_all()

    def _end_writing(self) -> None:
        self.writing, self._journal, self._left = False, None, {}
        self.part, self.bitmap = self._beside(0)

    def close(self) -> None:
        """Let go of it: it may be evicted now. Who reads a chunk just now reads it to its end."""
        with self._changed:
            self.unclaim()
            if self._file is not None:
                self._file.unlock()
            self._file = None
            self.whole = False
            self._end_writing()
            self._forget()
            self._changed.notify_all()
