"""Log bytes on the controller's disk: each once, at its place, and acknowledged only after a sync."""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from phalanx.controller.logs.paths import StreamName
from phalanx.controller.logs.store import LogStore, StoredStream
from phalanx.protocol.errors import RemoteError

NAME = StreamName("n0", "case", "main", 0, "out")


@dataclass
class Desk:
    """A store and what it said, in order."""

    folder: Path
    said: list[tuple[str, int]] = field(default_factory=list)
    trouble: list[OSError] = field(default_factory=list)
    sync_error: OSError | None = None
    store: LogStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = LogStore(
            self.folder,
            single_case=True,
            ack=lambda name, offset, credit: self.said.append(("ack", offset)),
            ended=lambda stream: self.said.append(("ended", stream.receiver.final or 0)),
            paused=lambda stream, error: self.trouble.append(error),
            sync=self._sync,
        )

    def _sync(self, fd: int) -> None:
        if self.sync_error is not None:
            raise self.sync_error
        self.said.append(("sync", os.fstat(fd).st_size))
        os.fdatasync(fd)

    def text(self, stream: StoredStream) -> bytes:
        """What is in the file of a stream."""
        return (self.folder / stream.path).read_bytes()


async def test_bytes_are_synced_before_they_are_acknowledged(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.store.open(NAME)
    desk.store.data(stream, 0, 1.0, b"hello\n")
    assert desk.said == []
    await desk.store.sync()
    assert desk.said == [("sync", 6), ("ack", 6)]
    assert desk.store.take_grown() == {stream.path: 6}
    assert desk.store.take_grown() == {}


async def test_repeated_bytes_are_stored_once_and_acknowledged_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.store.open(NAME)
    desk.store.data(stream, 0, 1.0, b"abcdef")
    desk.store.data(stream, 3, 2.0, b"defgh")
    desk.store.data(stream, 0, 2.0, b"abc")
    await desk.store.sync()
    assert desk.text(stream) == b"abcdefgh"
    assert desk.said[-1] == ("ack", 8)


async def test_an_undeclared_gap_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.store.open(NAME)
    desk.store.data(stream, 0, 1.0, b"abc")
    with pytest.raises(RemoteError, match="undeclared gap"):
        desk.store.data(stream, 5, 1.0, b"xyz")
    assert desk.text(stream) == b"abc"


async def test_a_declared_gap_is_a_hole_of_its_size_counted_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.store.open(NAME)
    desk.store.data(stream, 0, 1.0, b"abc")
    assert desk.store.gap(stream, 3, 4) == 4
    assert desk.store.gap(stream, 3, 4) == 0
    desk.store.data(stream, 7, 1.0, b"xyz")
    desk.store.end(stream, 10)
    await desk.store.sync()
    assert desk.text(stream) == b"abc\0\0\0\0xyz"
    assert stream.receiver.missing == 4
    assert desk.said[-2:] == [("ack", 10), ("ended", 10)]


async def test_a_stream_is_whole_only_when_its_last_byte_is_on_disk(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.store.open(NAME)
    desk.store.end(stream, 3)
    await desk.store.sync()
    assert desk.store.incomplete("case", ("n0",)) == [NAME]
    desk.store.data(stream, 0, 1.0, b"abc")
    await desk.store.sync()
    assert desk.store.incomplete("case", ("n0",)) == []
    assert desk.said[-1] == ("ended", 3)


@pytest.mark.lab
async def test_what_a_full_disk_does_not_take_is_not_acknowledged_and_comes_again(small_disk: Path) -> None:
    desk = Desk(small_disk)
    stream = desk.store.open(NAME)
    (small_disk / "filler").write_bytes(bytes(3 * 1024 * 1024))
    wanted = os.urandom(2 * 1024 * 1024)
    for offset in range(0, len(wanted), 65536):
        desk.store.data(stream, offset, 1.0, wanted[offset : offset + 65536])
    await desk.store.sync()
    assert [error.errno for error in desk.trouble] == [errno.ENOSPC]
    durable = stream.receiver.durable
    assert [offset for word, offset in desk.said if word == "ack"] == []
    (small_disk / "filler").unlink()
    assert desk.store.resume() == {"n0"}
    for offset in range(durable, len(wanted), 65536):
        desk.store.data(stream, offset, 2.0, wanted[offset : offset + 65536])
    desk.store.end(stream, len(wanted))
    await desk.store.sync()
    assert desk.text(stream) == wanted
    assert desk.said[-2:] == [("ack", len(wanted)), ("ended", len(wanted))]


async def test_after_a_failed_sync_bytes_must_come_again_though_they_could_be_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.store.open(NAME)
    desk.store.data(stream, 0, 1.0, b"first ")
    await desk.store.sync()
    desk.sync_error = OSError(errno.EIO, "Input/output error")
    desk.store.data(stream, 6, 1.0, b"second")
    await desk.store.sync()
    desk.sync_error = None
    desk.store.data(stream, 12, 1.0, b"third")
    await desk.store.sync()
    assert desk.said[-1] == ("ack", 6)
    desk.store.resume()
    desk.store.data(stream, 6, 1.0, b"second third")
    await desk.store.sync()
    assert desk.text(stream) == b"first second third"
    assert desk.said[-1] == ("ack", 18)


async def test_an_empty_stream_whose_file_could_not_be_made_ends_once_there_is_room(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.store.pause_all(OSError(errno.ENOSPC, "No space left on device"))
    stream = desk.store.open(NAME)
    desk.store.end(stream, 0)
    await desk.store.sync()
    assert desk.said == []
    desk.store.resume()
    await desk.store.sync()
    assert desk.said[-1] == ("ended", 0)


async def test_times_are_told_at_most_ten_times_a_second_and_coarser_in_long_logs(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.store.open(NAME)
    for number in range(20_000):
        desk.store.data(stream, number, 1000.0 + number / 50, b"x")
    await desk.store.sync()
    lines = (tmp_path / f"{stream.path}.times").read_text().splitlines()
    assert lines[0] == "0 1000.000"
    assert lines[1] == "5 1000.100"
    assert float(lines[-1].split()[1]) - float(lines[-2].split()[1]) >= 1.0 or len(lines) < 4001
    assert len(lines) <= 4001


async def test_more_streams_than_open_files_are_all_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr("phalanx.controller.logs.store.MOST_OPEN", 16)
    desk = Desk(tmp_path)
    streams = [desk.store.open(StreamName("n0", "case", "main", rank, "out")) for rank in range(100)]
    for turn in range(3):
        for rank, stream in enumerate(streams):
            desk.store.data(stream, turn * 4, 1.0, f"{rank:03}\n".encode())
        await desk.store.sync()
    assert [desk.text(stream) for stream in streams] == [f"{rank:03}\n".encode() * 3 for rank in range(100)]
    assert sum(stream.fd >= 0 for stream in streams) == 16
    await desk.store.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
