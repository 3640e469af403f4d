"""Log bytes on the controller's disk: appended at the exact offset, synced, then acknowledged.

Writes go straight to the page cache; one task syncs all files that changed, some ten times a second, and
only then are acks sent. When the disk takes no more, nothing is acknowledged: agents stop at their credit
and keep the bytes, and send them again from the last ack once there is room (``pausing``). Beside each log
lies ``<log>.times`` with lines ``<offset> <unix seconds>``, for ``logs --since`` and timestamps.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.protocol.logstream import CREDIT, LogReceiver

from .paths import StreamName, log_path

#: Seconds between syncs: acks wait for them, so this bounds what an agent must keep and resend.
SYNC_EVERY_S = 0.05
#: Threads that sync: filesystems join syncs that come together, so eight files cost little more than one.
SYNC_THREADS = 8
#: Files that are kept open, at most; never more than a third of what the process may open.
MOST_OPEN = 8192
#: Seconds between two lines of ``.times``: fine while the file is small, then once a second. A stream that
#: never rests so costs some 2 MB a day.
TIMES_FINE_S, TIMES_COARSE_S = 0.1, 1.0
TIMES_FINE_BYTES = 64 * 1024


@dataclass(slots=True)
class StoredStream:
    """One stream on disk. ``path`` is relative to the run directory; ``fd`` -1 while the file is closed.

    ``paused``: the disk did not take its bytes; what comes is left to the agent, which will send it again.
    """

    name: StreamName
    path: str
    fd: int = -1
    receiver: LogReceiver = field(default_factory=LogReceiver)
    missing_durable: int = 0
    times: list[str] = field(default_factory=list)
    times_bytes: int = 0
    last_time: float = 0.0
    ended: bool = False
    paused: bool = False

    def note_time(self, offset: int, at: float) -> None:
        """Remember when the bytes from ``offset`` on came, unless that was said a moment ago."""
        pause = TIMES_FINE_S if self.times_bytes < TIMES_FINE_BYTES else TIMES_COARSE_S
        if abs(at - self.last_time) >= pause:
            line = f"{offset} {at:.3f}\n"
            self.times.append(line)
            self.times_bytes += len(line)
            self.last_time = at

    def pause(self) -> None:
        """Go back to what is surely on disk: the agent sends what follows again, from its last ack."""
        self.paused = True
        self.receiver.received = self.receiver.durable
        self.receiver.missing = self.missing_durable
        self.times.clear()


Ack = Callable[[StreamName, int, int], None]
Ended = Callable[[StoredStream], None]
Paused = Callable[[StoredStream, OSError], None]
Sync = Callable[[int], None]


def most_open() -> int:
    """Log files that may be open at one time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(MOST_OPEN, soft // 3))


class LogStore:
    """All log streams of a run. ``ack`` is called after a sync, ``ended`` when a stream is complete,
    ``paused`` for each stream whose bytes the disk does not take."""

    def __init__(
        self,
        run_dir: Path,
        *,
        single_case: bool,
        ack: Ack,
        ended: Ended,
        paused: Paused = lambda stream, error: None,
        sync: Sync = os.fdatasync,
    ) -> None:
        self._run_dir = run_dir
        self._single_case = single_case
        self._ack = ack
        self._ended = ended
        self._paused = paused
        self._fdatasync = sync
        self._streams: dict[StreamName, StoredStream] = {}
        self._running: dict[str, dict[StreamName, StoredStream]] = {}
        self._open: OrderedDict[StreamName, StoredStream] = OrderedDict()
        self._most_open = most_open()
        self._dirty: dict[StreamName, StoredStream] = {}
        self._wake = asyncio.Event()
        self._syncing = asyncio.Lock()
        self._threads = ThreadPoolExecutor(SYNC_THREADS, "log sync")
        self._grown: dict[str, int] = {}
        self._full: OSError | None = None
        self.sizes: dict[str, int] = {}
        #: called after a sync of streams of this step
        self.on_growth: dict[str, Callable[[], None]] = {}

    # --- streams

    def open(self, name: StreamName) -> StoredStream:
        """The stream of that name, made when it is new. One whose file cannot be made is paused."""
        stream = self._streams.get(name)
        if stream is None:
            path = log_path(name, single_case=self._single_case)
            stream = self._streams[name] = StoredStream(name, str(path))
            self._running.setdefault(name.case, {})[name] = stream
            try:
                if self._full is not None:
                    raise self._full
                self._file(stream)
            except OSError as error:
                self._pause(stream, error)
        return stream

    def data(self, stream: StoredStream, offset: int, at: float, payload: bytes) -> None:
        """Append a batch. Raises RemoteError for an undeclared gap.

        What the disk does not take pauses the stream: the agent sends the batch again.
        """
        if stream.paused or stream.ended:
            return
        before = stream.receiver.received
        fresh = stream.receiver.on_data(offset, payload)
        if fresh:
            try:
                _write_all(self._file(stream), fresh, before)
            except OSError as error:
                self._pause(stream, error)
                return
            stream.note_time(before, at)
        self._touch(stream)

    def gap(self, stream: StoredStream, offset: int, length: int) -> int:
        """Bytes that never come: a hole in the file; how many are new. Raises RemoteError, as ``data``."""
        if stream.paused or stream.ended:
            return 0
        new = stream.receiver.on_gap(offset, length)
        try:
            if new:
                os.ftruncate(self._file(stream), stream.receiver.received)
        except OSError as error:
            self._pause(stream, error)
            return 0
        self._touch(stream)
        return new

    def end(self, stream: StoredStream, length: int) -> None:
        """The stream has ``length`` bytes in all."""
        stream.receiver.on_end(length)
        self._touch(stream)

    def incomplete(self, case: str, nodes: tuple[str, ...]) -> list[StreamName]:
        """Streams of a case on these nodes that are not wholly on disk."""
        present = frozenset(nodes)
        return [name for name in self._running.get(case, ()) if name.node in present]

    def of_step(self, case: str, step: str) -> list[StoredStream]:
        """The streams of a step, in the order in which they came to be known."""
        return [s for name, s in self._streams.items() if name.step == step and name.case == case]

    def take_grown(self) -> dict[str, int]:
        """Sizes of the logs that have grown on disk since the last call, by path."""
        grown, self._grown = self._grown, {}
        return grown

    # --- a disk that takes no more

    def pause_all(self, error: OSError) -> None:
        """Take no more bytes of any stream, until ``resume``."""
        self._full = error
        for streams in list(self._running.values()):
            for stream in list(streams.values()):
                if not stream.paused:
                    self._pause(stream, error)

    def resume(self) -> set[str]:
        """Take bytes again; the nodes that must send again what was not acknowledged."""
        self._full = None
        nodes: set[str] = set()
        for streams in self._running.values():
            for stream in streams.values():
                if stream.paused:
                    stream.paused = False
                    self._touch(stream)
                    nodes.add(stream.name.node)
        return nodes

    def _pause(self, stream: StoredStream, error: OSError) -> None:
        stream.pause()
        self._paused(stream, error)

    # --- files

    def _file(self, stream: StoredStream) -> int:
        """The open file of a stream; the one that rested longest is closed when there are too many."""
        if stream.fd < 0:
            if not self._syncing.locked():
                while len(self._open) >= self._most_open:
                    self._close_file(next(iter(self._open.values())))
            full = self._run_dir / stream.path
            full.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            stream.fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._open[stream.name] = stream
        self._open.move_to_end(stream.name)
        return stream.fd

    def _close_file(self, stream: StoredStream) -> None:
        self._open.pop(stream.name, None)
        if stream.fd >= 0:
            os.close(stream.fd)
            stream.fd = -1

    # --- sync

    def _touch(self, stream: StoredStream) -> None:
        self._dirty[stream.name] = stream
        self._wake.set()

    async def keep_synced(self) -> None:
        """Sync and acknowledge until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.sync()
            await asyncio.sleep(SYNC_EVERY_S)

    async def sync(self) -> None:
        """Sync what changed, then acknowledge it."""
        async with self._syncing:
            dirty, self._dirty = self._dirty, {}
            marks = [
                (s, s.receiver.received, s.receiver.missing)
                for s in dirty.values()
                if not s.paused and not s.ended
            ]
            # Threads go on when their task is cancelled: nothing may close a file under them.
            files = [(s, "".join(s.times)) for s, _, _ in marks]
            work = asyncio.create_task(self._sync_files(files), name="sync of logs")
            for stream, _, _ in marks:
                stream.times = []
            try:
                errors = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise
            for (stream, mark, missing), error in zip(marks, errors, strict=True):
                if error is not None:
                    # What a failed sync did not write is dropped by the kernel: a second try proves nothing.
                    self._pause(stream, error)
                elif not stream.paused:
                    self._is_durable(stream, mark, missing)
            for step in {stream.name.step for stream, _, _ in marks} & self.on_growth.keys():
                self.on_growth[step]()

    async def _sync_files(self, files: list[tuple[StoredStream, str]]) -> list[OSError | None]:
        loop = asyncio.get_running_loop()
        share = max(8, -(-len(files) // SYNC_THREADS))
        shares = [files[start : start + share] for start in range(0, len(files), share)]
        found = await asyncio.gather(
            *(loop.run_in_executor(self._threads, self._sync_share, share) for share in shares)
        )
        return [error for errors in found for error in errors]

    def _sync_share(self, files: list[tuple[StoredStream, str]]) -> list[OSError | None]:
        errors: list[OSError | None] = []
        for stream, times in files:
            try:
                self._sync_file(stream)
            except OSError as error:
                errors.append(error)
                continue
            errors.append(None)
            # Times are a convenience: losing some holds no log up.
            with suppress(OSError):
                self._append_times(stream, times)
        return errors

    def _sync_file(self, stream: StoredStream) -> None:
        """A file that was closed to make room is opened for it: the kernel syncs files, not descriptors."""
        if stream.fd >= 0:
            self._fdatasync(stream.fd)
            return
        try:
            fd = os.open(self._run_dir / stream.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # nothing was ever written to it
        try:
            self._fdatasync(fd)
        finally:
            os.close(fd)

    def _append_times(self, stream: StoredStream, text: str) -> None:
        if text:
            path = self._run_dir / f"{stream.path}.times"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "w") as file:
                file.write(text)

    def _is_durable(self, stream: StoredStream, mark: int, missing: int) -> None:
        stream.receiver.synced(mark)
        stream.missing_durable = missing
        size = stream.receiver.durable
        if self.sizes.get(stream.path) != size:
            self.sizes[stream.path] = self._grown[stream.path] = size
        self._ack(stream.name, stream.receiver.durable, CREDIT)
        if stream.receiver.complete and not stream.ended:
            stream.ended = True
            self._close_file(stream)
            del self._running[stream.name.case][stream.name]
            self._ended(stream)

    async def close(self) -> None:
        """Sync what is left and close every file."""
        await self.sync()
        for stream in list(self._open.values()):
            self._close_file(stream)
        self._threads.shutdown(wait=False)


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
