"""Log bytes on the controller's disk: appended at the exact offset, synced, then acknowledged.

Writes go straight to the page cache; one task syncs all files that changed, some ten times a second, and
only then are acks sent. Beside each log lies ``<log>.times`` with a line ``<offset> <unix seconds>`` per
batch received, for ``logs --since`` and timestamps.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.protocol.logstream import CREDIT, LogReceiver

from .paths import StreamName, log_path

#: Seconds between syncs: acks wait for them, so this bounds what an agent must keep and resend.
SYNC_EVERY_S = 0.05


@dataclass(slots=True)
class StoredStream:
    """One stream on disk. ``path`` is relative to the run directory."""

    name: StreamName
    path: str
    fd: int
    receiver: LogReceiver = field(default_factory=LogReceiver)
    times: list[str] = field(default_factory=list)
    ended: bool = False


Ack = Callable[[StreamName, int, int], None]
Ended = Callable[[StoredStream], None]
Tap = Callable[[StreamName, bytes], None]


class LogStore:
    """All log streams of a run. ``ack`` is called after a sync, ``ended`` when a stream is complete."""

    def __init__(self, run_dir: Path, *, single_case: bool, ack: Ack, ended: Ended) -> None:
        self._run_dir = run_dir
        self._single_case = single_case
        self._ack = ack
        self._ended = ended
        self._streams: dict[StreamName, StoredStream] = {}
        self._dirty: dict[StreamName, StoredStream] = {}
        self._wake = asyncio.Event()
        self.taps: dict[str, Tap] = {}
        self.trouble = ""
        self.sizes: dict[str, int] = {}

    def open(self, name: StreamName) -> StoredStream:
        """The stream of that name, made when it is new. Raises OSError when it cannot be."""
        stream = self._streams.get(name)
        if stream is None:
            path = log_path(name, single_case=self._single_case)
            full = self._run_dir / path
            full.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stream = self._streams[name] = StoredStream(name, str(path), fd)
        return stream

    def data(self, stream: StoredStream, offset: int, at: float, payload: bytes) -> None:
        """Append a batch. Raises RemoteError for an undeclared gap, OSError when the disk does not take it.

        After an OSError the stream stands where it stood: the agent sends the batch again.
        """
        before = stream.receiver.received
        fresh = stream.receiver.on_data(offset, payload)
        if not fresh:
            self._touch(stream)
            return
        try:
            _write_all(stream.fd, fresh, before)
        except OSError:
            stream.receiver.received = before
            raise
        stream.times.append(f"{before} {at:.3f}\n")
        tap = self.taps.get(stream.name.step)
        if tap is not None:
            tap(stream.name, bytes(fresh))
        self._touch(stream)

    def gap(self, stream: StoredStream, offset: int, length: int) -> None:
        """Bytes that never come: a hole in the file, counted."""
        stream.receiver.on_gap(offset, length)
        os.ftruncate(stream.fd, stream.receiver.received)
        self._touch(stream)

    def end(self, stream: StoredStream, length: int) -> None:
        """The stream has ``length`` bytes in all."""
        stream.receiver.on_end(length)
        self._touch(stream)

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
        dirty, self._dirty = self._dirty, {}
        marks = [(stream, stream.receiver.received) for stream in dirty.values() if stream.fd >= 0]
        times = [(stream, "".join(stream.times)) for stream, _ in marks]
        for stream, _ in marks:
            stream.times = []
        try:
            await asyncio.to_thread(self._sync_files, [stream.fd for stream, _ in marks], times)
        except OSError as error:
            self.trouble = f"cannot sync logs: {error.strerror}"
            self._dirty.update({stream.name: stream for stream, _ in marks})
            return
        self.trouble = ""
        for stream, mark in marks:
            stream.receiver.synced(mark)
            self.sizes[stream.path] = mark
            self._ack(stream.name, stream.receiver.durable, CREDIT)
            self._close_when_complete(stream)

    def _sync_files(self, fds: list[int], times: list[tuple[StoredStream, str]]) -> None:
        for fd in fds:
            os.fdatasync(fd)
        for stream, text in times:
            if text:
                path = self._run_dir / f"{stream.path}.times"
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
                    file.write(text)

    def _close_when_complete(self, stream: StoredStream) -> None:
        if stream.receiver.complete and not stream.ended:
            stream.ended = True
            os.close(stream.fd)
            stream.fd = -1
            self._ended(stream)

    def incomplete(self, case: str, nodes: tuple[str, ...]) -> list[StreamName]:
        """Streams of a case on these nodes that are not wholly on disk."""
        return [
            name
            for name, stream in self._streams.items()
            if name.case == case and name.node in nodes and not stream.ended
        ]

    async def close(self) -> None:
        """Sync what is left and close every file."""
        await self.sync()
        for stream in self._streams.values():
            if stream.fd >= 0:
                os.close(stream.fd)
                stream.fd = -1


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
