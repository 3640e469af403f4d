"""The log pump against a controller's receiver: every byte of the file, or a declared gap."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from phalanx.agent import logs as logs_module
from phalanx.agent.logs import LogPump, Stream
from phalanx.protocol import messages as m
from phalanx.protocol.frames import encode
from phalanx.protocol.logstream import BATCH, LogReceiver


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Far:
    """The other side of a stream. ``open``: whether the link takes log bytes; ``acking``: whether it acks."""

    def __init__(self, path: Path, credit: int = 4 << 20) -> None:
        self.path = path
        self.credit = credit
        self.open = self.acking = True
        self.data = bytearray()
        self.batches: list[bytes] = []
        self.gaps: list[m.LogGap] = []
        self.receiver = LogReceiver()
        self.pump = LogPump(self._control, self._log)
        self.stream = self.pump.follow(lambda number: m.LogOpen(number, "demo", "main", 0, "out"), path)

    def _control(self, message: m.Message) -> None:
        encode(message)
        if isinstance(message, m.LogEnd):
            self.receiver.on_end(message.length)
            self._ack()

    def _log(self, message: m.LogData | m.LogGap) -> bool:
        if not self.open:
            return False
        encode(message)
        if isinstance(message, m.LogData):
            fresh = bytes(self.receiver.on_data(message.offset, message.payload))
            self.data += fresh
            self.batches.append(message.payload)
        else:
            self.gaps.append(message)
            self.data += b"?" * self.receiver.on_gap(message.offset, message.length)
        self._ack()
        return True

    def _ack(self) -> None:
        if self.acking:
            self.receiver.synced(self.receiver.received)
            ack = m.LogAck(self.stream.number, self.receiver.durable, self.credit)
            asyncio.get_running_loop().call_soon(self.pump.on_ack, ack)

    def break_and_mend(self) -> None:
        """The link was down: what the receiver had not made durable is gone with it."""
        self.pump.reconnected()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.data) < count:
                await asyncio.sleep(0.005)

    async def all(self) -> bytes:
        self.pump.finish(self.stream)
        assert await self.pump.drained("demo", 20)
        return bytes(self.data)


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    far = Far(tmp_path / "out")
    task = asyncio.create_task(far.pump.run())
    yield far
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_whole_lines_go_at_once_and_a_partial_one_after_a_moment(far: Far) -> None:
    with far.path.open("wb", buffering=0) as file:
        file.write(b"one\ntwo\nthr")
        await far.until(8)
        assert far.batches[0] == b"one\ntwo\n"
        await far.until(11)
        assert far.batches[1] == b"thr"
        file.write(b"ee\n")
    assert await far.all() == b"one\ntwo\nthree\n"


async def test_a_progress_bar_without_line_ends_is_seen_while_it_runs(far: Far) -> None:
    with far.path.open("wb", buffering=0) as file:
        for percent in (10, 20, 30):
            before = len(far.data)
            file.write(b"\r%3d%%" % percent)
            await far.until(before + 5)
    assert await far.all() == b"\r 10%\r 20%\r 30%"


async def test_a_line_without_an_end_is_cut_into_batches(far: Far) -> None:
    far.path.write_bytes(b"x" * (40 << 20))
    assert await far.all() == b"x" * (40 << 20)
    assert max(map(len, far.batches)) <= BATCH


async def test_bytes_that_are_no_text_arrive_as_they_are(far: Far) -> None:
    content = (
        bytes(range(256)) * 3
        + b"\xff\xfe\n\r\n\0"
        + "é€𝄞".encode()[:-1]
        + b"\xed\xa0\x80"
        + os.urandom(1 << 20)
    )
    far.path.write_bytes(content)
    assert await far.all() == content


async def test_nothing_was_written_is_an_end_too(far: Far) -> None:
    assert await far.all() == b""
    assert far.receiver.final == 0


async def test_a_truncated_file_is_a_gap_of_what_was_not_sent_and_goes_on(far: Far) -> None:
    with far.path.open("ab", buffering=0) as file:
        file.write(b"sent\n")
        await far.until(5)
        far.open = False
        file.write(b"lost for ever\n")
        while far.stream.sender.size < 19:
            await asyncio.sleep(0.005)
        os.truncate(far.path, 0)
        file.write(b"after\n")
        while far.stream.start == 0:
            await asyncio.sleep(0.005)
        far.open = True
    assert await far.all() == b"sent\n" + b"?" * 14 + b"after\n"
    assert [(gap.offset, gap.length) for gap in far.gaps] == [(5, 14)]


async def test_a_gap_is_declared_again_after_a_break(far: Far) -> None:
    far.acking = False
    far.path.write_bytes(b"in flight\n")
    await far.until(10)
    os.truncate(far.path, 0)
    while far.stream.start == 0:
        await asyncio.sleep(0.005)
    far.receiver, far.data = LogReceiver(), bytearray()  # the link broke before it was on disk
    far.acking = True
    far.break_and_mend()
    assert await far.all() == b"?" * 10
    assert [(gap.offset, gap.length) for gap in far.gaps] == [(0, 10)]


async def test_a_file_that_is_cut_after_its_end_still_ends(far: Far) -> None:
    far.open = False
    far.path.write_bytes(b"never seen\n")
    far.pump.finish(far.stream)
    while far.stream.sender.final is None:
        await asyncio.sleep(0.005)
    os.truncate(far.path, 3)
    far.open = True
    data = await far.all()
    assert len(data) == 11
    assert far.receiver.missing == 11


@pytest.mark.parametrize("trick", ["link", "fifo", "folder"])
async def test_what_is_put_in_place_of_a_spool_file_is_not_read(far: Far, tmp_path: Path, trick: str) -> None:
    if trick == "link":
        (tmp_path / "secret").write_text("secret")
        far.path.symlink_to(tmp_path / "secret")
    elif trick == "fifo":
        os.mkfifo(far.path)
    else:
        far.path.mkdir()
    assert await far.all() == b""
    assert far.stream.broken


async def test_what_was_in_flight_is_sent_again_after_a_break(far: Far) -> None:
    content = os.urandom(3 << 20)
    far.acking = False
    far.path.write_bytes(content)
    await far.until(len(content))
    far.receiver, far.data = LogReceiver(), bytearray()
    far.acking = True
    far.break_and_mend()
    assert await far.all() == content


async def test_credit_holds_back_what_is_sent(tmp_path: Path) -> None:
    far = Far(tmp_path / "out", credit=1000)
    far.acking = False
    far.path.write_bytes(b"x\n" * 100_000)
    far.pump.on_ack(m.LogAck(far.stream.number, 0, 1000))
    task = asyncio.create_task(far.pump.run())
    await far.until(1000)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(far.data) == 1000
    far.acking = True
    far.pump.on_ack(m.LogAck(far.stream.number, 1000, 1000))
    far.credit = 4 << 20
    assert len(await far.all()) == 200_000
    task.cancel()


def disk_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


async def test_acked_bytes_go_back_to_the_disk_and_others_stay(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "PUNCH_BYTES", 1 << 20)
    content = os.urandom(8 << 20)
    far.path.write_bytes(content)
    os.sync()
    await far.until(len(content))
    while far.stream.sender.acked < len(content):
        await asyncio.sleep(0.005)
    if far.stream.punched > len(content):
        pytest.skip("this filesystem punches no holes")
    assert disk_bytes(far.path) < 2 << 20
    far.acking = False
    more = os.urandom(4 << 20)
    with far.path.open("ab") as file:
        file.write(more)
    await far.until(len(content) + (3 << 20))
    assert far.path.read_bytes()[len(content) :] == more, "what is not acked must stay"
    far.receiver.received = far.receiver.durable
    del far.data[far.receiver.durable :]
    far.acking = True
    far.break_and_mend()
    assert await far.all() == content + more


async def test_a_stream_that_is_through_holds_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    far = Far(tmp_path / "out")
    far.path.write_bytes(b"x\n")
    task = asyncio.create_task(far.pump.run())
    await far.all()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert descriptors() <= before
    assert not far.pump.pending()


def test_want_of_descriptors_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"x\n")
    stream = Stream(1, m.LogOpen(1, "demo", "main", 0, "out"), path, over=True)
    real = os.open

    def refuse(*asked: object, **more: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    stream.measure()
    assert stream.sender.final is None and not stream.broken
    monkeypatch.setattr(os, "open", real)
    stream.measure()
    assert stream.sender.final == 2
    stream.close()
