"""A log stream against the bytes that were written: loss, repeats, old words, crashes of either side."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.frames import CAPS
from phalanx.protocol.logstream import BATCH, CREDIT, LogReceiver, LogSender, whole_lines
from phalanx.protocol.messages import Kind, LogAck, LogData, LogEnd, LogGap

from .pair import Pair

SMALL_CREDIT = 64
HOLE = None


class LogStream(RuleBasedStateMachine):
    """An agent with a spool, a controller with a file, and a network between them that misbehaves."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.lost: set[int] = set()
        self.closed = False
        self.sender = LogSender(credit=SMALL_CREDIT)
        self.receiver = LogReceiver()
        self.file: list[int | None] = []
        #: lanes on their way: control frames overtake log frames, and reach the other side whatever breaks
        self.lanes: dict[Kind, list[LogData | LogGap | LogEnd]] = {Kind.CONTROL: [], Kind.LOG: []}
        self.to_agent: list[LogAck] = []
        self.old: list[LogData | LogGap | LogEnd] = []

    # --- the agent

    @precondition(lambda self: not self.closed)
    @rule(data=st.binary(min_size=1, max_size=40), lost=st.integers(0, 40))
    def the_workload_writes(self, data: bytes, lost: int) -> None:
        """The last ``lost`` bytes are gone from the spool before they are sent (the file was truncated)."""
        self.written += data
        self.lost |= set(range(len(self.written) - min(lost, len(data) - 1), len(self.written)))
        self.sender.grown(len(self.written))

    @precondition(lambda self: not self.closed)
    @rule()
    def the_workload_ends(self) -> None:
        self.closed = True
        self.sender.finish(len(self.written))

    @precondition(lambda self: self.sender.room() > 0)
    @rule(most=st.integers(1, 50))
    def the_agent_sends(self, most: int) -> None:
        start = self.sender.sent
        length = min(most, self.sender.room())
        run = 1
        while run < length and (start + run in self.lost) == (start in self.lost):
            run += 1
        if start in self.lost:
            self.say(LogGap(1, start, run, "spool lost"))
        else:
            self.say(LogData(1, start, 0.0, bytes(self.written[start : start + run])))
        self.sender.took(run)

    @precondition(lambda self: self.sender.drained and not self.sender.end_sent)
    @rule()
    def the_agent_says_that_it_is_over(self) -> None:
        self.sender.end_sent = True
        self.say(LogEnd(1, len(self.written)))

    def say(self, message: LogData | LogGap | LogEnd) -> None:
        self.lanes[message.KIND].append(message)

    # --- the controller

    @precondition(lambda self: self.lanes[Kind.LOG])
    @rule()
    def the_controller_takes_the_next_log_frame(self) -> None:
        self.take(self.lanes[Kind.LOG].pop(0))

    @precondition(lambda self: self.lanes[Kind.CONTROL])
    @rule()
    def a_control_frame_comes_before_the_logs(self) -> None:
        self.take(self.lanes[Kind.CONTROL].pop(0))

    def take(self, message: LogData | LogGap | LogEnd) -> None:
        if isinstance(message, LogData):
            self.file += self.receiver.on_data(message.offset, message.payload)
        elif isinstance(message, LogGap):
            self.file += [HOLE] * self.receiver.on_gap(message.offset, message.length)
        else:
            self.receiver.on_end(message.length)

    @rule()
    def the_controller_syncs_and_acks(self) -> None:
        self.receiver.synced(len(self.file))
        self.to_agent.append(LogAck(1, self.receiver.durable, SMALL_CREDIT))

    @rule(least=st.integers(0, 80))
    def the_controller_syncs_a_part(self, least: int) -> None:
        self.receiver.synced(least)

    @precondition(lambda self: self.to_agent)
    @rule()
    def the_agent_takes_the_next_ack(self) -> None:
        ack = self.to_agent.pop(0)
        self.sender.on_ack(ack.offset, ack.credit)

    # --- what goes wrong

    @rule(fault=st.sampled_from(["connection", "agent", "controller"]))
    def something_breaks(self, fault: str) -> None:
        if fault == "controller":
            del self.file[self.receiver.durable :]
            held = len(self.file)
            self.receiver = LogReceiver(received=held, durable=held, missing=self.file.count(HOLE))
        self.the_connection_breaks()
        if fault != "connection":
            self.another_agent_reads_the_spool()

    def the_connection_breaks(self) -> None:
        self.old = [*self.old, *self.lanes[Kind.LOG]][-20:]
        self.lanes[Kind.LOG].clear()
        self.to_agent.clear()
        self.sender.reconnected()

    def another_agent_reads_the_spool(self) -> None:
        self.lanes[Kind.CONTROL].clear()
        self.sender = LogSender(credit=SMALL_CREDIT)
        self.sender.grown(len(self.written))
        if self.closed:
            self.sender.finish(len(self.written))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def words_of_an_old_connection_come_late_or_twice(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.old))
        try:
            self.take(message)
        except RemoteError:
            self.the_connection_breaks()

    # --- what must hold

    @invariant()
    def the_file_is_what_was_written_with_declared_holes(self) -> None:
        assert len(self.file) <= len(self.written)
        for place, byte in enumerate(self.file):
            assert byte == self.written[place] or (byte is HOLE and place in self.lost)

    @invariant()
    def nothing_is_acked_that_is_not_on_disk(self) -> None:
        assert self.sender.acked <= self.receiver.durable <= self.receiver.received == len(self.file)
        assert self.receiver.missing == self.file.count(HOLE)

    @invariant()
    def what_is_in_flight_stays_within_the_credit(self) -> None:
        assert self.sender.sent - self.sender.acked <= SMALL_CREDIT

    def teardown(self) -> None:
        """Once faults stop, everything arrives: the whole stream, each byte once, each loss declared."""
        if not self.closed:
            self.the_workload_ends()
        self.the_connection_breaks()
        for _ in range(8 + 4 * len(self.written)):
            if self.sender.done and self.receiver.complete:
                break
            if self.sender.room() > 0:
                self.the_agent_sends(50)
            elif self.sender.drained and not self.sender.end_sent:
                self.the_agent_says_that_it_is_over()
            for lane in self.lanes.values():
                while lane:
                    self.take(lane.pop(0))
            self.the_controller_syncs_and_acks()
            self.the_agent_takes_the_next_ack()
        assert self.sender.done
        assert self.receiver.complete
        assert len(self.file) == len(self.written)


TestLogStream = LogStream.TestCase


def test_a_hole_that_was_not_declared_is_refused_and_nothing_is_written() -> None:
    receiver = LogReceiver()
    receiver.on_data(0, b"abc")
    with pytest.raises(RemoteError, match="undeclared gap"):
        receiver.on_data(4, b"e")
    assert receiver.received == 3


def test_a_gap_that_is_declared_behind_data_comes_behind_it() -> None:
    pair = Pair().shake()
    pair.agent.send(LogData(1, 0, 0.0, b"abc"))
    pair.agent.send(LogGap(1, 3, 2, "the file was truncated"))
    pair.agent.send(LogData(1, 5, 0.0, b"def"))
    pair.agent_speaks()
    assert [message.offset for message in pair.at_controller] == [0, 3, 5]  # type: ignore[attr-defined]


def test_a_repeat_that_overlaps_gives_only_the_new_bytes() -> None:
    receiver = LogReceiver()
    receiver.on_data(0, b"abcd")
    assert bytes(receiver.on_data(2, b"cdef")) == b"ef"
    assert bytes(receiver.on_data(0, b"abcdef")) == b""
    assert receiver.received == 6


def test_bytes_beyond_the_declared_end_are_refused() -> None:
    receiver = LogReceiver()
    receiver.on_data(0, b"abc")
    receiver.on_end(4)
    with pytest.raises(RemoteError, match="beyond the declared end"):
        receiver.on_data(3, b"de")


def test_a_gap_beyond_the_declared_end_is_refused() -> None:
    receiver = LogReceiver()
    receiver.on_end(4)
    with pytest.raises(RemoteError):
        receiver.on_gap(0, 5)


def test_an_end_before_what_came_already_is_refused() -> None:
    receiver = LogReceiver()
    receiver.on_data(0, b"abc")
    with pytest.raises(RemoteError, match="3 bytes came"):
        receiver.on_end(2)


def test_an_ack_of_bytes_that_do_not_exist_is_refused() -> None:
    sender = LogSender()
    sender.grown(10)
    with pytest.raises(RemoteError, match="ack of byte 11"):
        sender.on_ack(11, CREDIT)


def test_without_credit_nothing_is_sent_until_more_is_given() -> None:
    sender = LogSender(credit=4)
    sender.grown(10)
    sender.took(sender.room())
    assert (sender.sent, sender.room()) == (4, 0)
    sender.on_ack(4, 0)
    assert sender.room() == 0
    sender.on_ack(4, 4)
    assert sender.room() == 4


def test_what_may_be_sent_at_once_fits_a_frame() -> None:
    sender = LogSender()
    sender.grown(100 * CREDIT)
    assert 0 < sender.room() <= BATCH < CAPS[Kind.LOG]


@given(st.binary(max_size=200), st.booleans())
def test_only_whole_lines_leave_unless_they_waited_too_long(data: bytes, flush: bool) -> None:
    length = whole_lines(data, flush)
    if flush:
        assert length == len(data)
    else:
        assert data[:length].endswith(b"\n") or length == 0
        assert b"\n" not in data[length:]


def test_a_line_longer_than_a_batch_leaves_in_parts() -> None:
    assert whole_lines(b"x" * BATCH, flush=False) == BATCH
