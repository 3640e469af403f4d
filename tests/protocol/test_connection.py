"""Dialogues between two ends, read top to bottom: whole, byte by byte, cut, slow, silent and one-way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.protocol import handshake
from phalanx.protocol.connection import (
    TRANSITIONS,
    ControllerConnection,
    PeerDead,
    State,
    Timers,
)
from phalanx.protocol.errors import LocalError, ProtocolError, RemoteError
from phalanx.protocol.frames import encode
from phalanx.protocol.lifeline import CONFIRM_BYTES, KEPT_BYTES, Lifeline, Overflow
from phalanx.protocol.liveness import Health
from phalanx.protocol.messages import (
    BarrierEnter,
    BarrierRelease,
    Chunk,
    ChunkGet,
    Kind,
    LogAck,
    LogData,
    Message,
    Notice,
)

from .pair import CERTIFICATE, HELLO, JOIN_KEY, WELCOME, Pair, on_bulk
from .strategies import cuts, pieces

FROM_AGENT: list[Message] = [
    BarrierEnter(case="ring", name="start", generation=0, member=1),
    LogData(1, 0, 0.5, b"hello\n" * 100),
    Notice("the disk is nearly full"),
]
FROM_CONTROLLER: list[Message] = [
    BarrierRelease(case="ring", name="start", generation=0, members=((0, 3),)),
    LogAck(1, 600, 4096),
]


def dialogue(pair: Pair) -> Pair:
    pair.shake()
    for message in FROM_AGENT:
        pair.agent.send(message)
    pair.agent_speaks()
    for message in FROM_CONTROLLER:
        pair.controller.send(message)
    pair.controller_speaks()
    return pair


def test_a_dialogue_arrives_whole_control_before_logs() -> None:
    pair = dialogue(Pair())
    assert pair.at_controller == [FROM_AGENT[0], FROM_AGENT[2], FROM_AGENT[1]]
    assert pair.at_agent == FROM_CONTROLLER


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_the_same_dialogue_a_few_bytes_at_a_time_is_the_same(step: int) -> None:
    whole, slow = dialogue(Pair()), dialogue(Pair(step=step))
    assert slow.at_controller == whole.at_controller
    assert slow.at_agent == whole.at_agent
    assert (slow.said_by_agent, slow.said_by_controller) == (whole.said_by_agent, whole.said_by_controller)


def controller_that_hears(data: list[bytes]) -> tuple[ControllerConnection, list[Message]]:
    """A controller that welcomes whoever proves the join key, fed ``data`` piece by piece."""
    controller = ControllerConnection(CERTIFICATE, b"n" * 32, Timers(), 100.0)
    got: list[Message] = []
    for piece in data:
        got += controller.receive_data(piece, 100.0)
        if controller.state is State.JUDGE:
            controller.welcome(JOIN_KEY, WELCOME, Lifeline(), 100.0)
            got += controller.receive_data(b"", 100.0)
    return controller, got


def test_a_recorded_dialogue_cut_at_every_byte_loses_only_what_was_not_whole() -> None:
    pair = dialogue(Pair())
    hello_ends = len(encode(pair.controller.hello or HELLO))
    spoken = pair.said_by_agent
    before = 0
    for cut in range(len(spoken) + 1):
        controller, got = controller_that_hears([spoken[:hello_ends][:cut], spoken[hello_ends:cut]])
        assert got == pair.at_controller[: len(got)]
        assert before <= len(got) <= before + 1
        before = len(got)
        controller.receive_eof()
        assert controller.state is State.CLOSED
        assert controller.receive_data(spoken[cut:], 100.0) == []
    assert before == len(pair.at_controller)


@given(st.data())
def test_any_split_of_what_comes_after_the_handshake_gives_the_same_messages(data: st.DataObject) -> None:
    pair = dialogue(Pair())
    hello_ends = len(encode(pair.controller.hello or HELLO))
    rest = pair.said_by_agent[hello_ends:]
    parts = pieces(rest, data.draw(cuts(len(rest))))
    _, got = controller_that_hears([pair.said_by_agent[:hello_ends], *parts])
    assert got == pair.at_controller


@given(st.integers(0, 100_000), st.integers(1, 255))
def test_a_changed_byte_after_the_handshake_is_a_message_a_wait_or_a_typed_error(place: int, by: int) -> None:
    pair = dialogue(Pair())
    hello_ends = len(encode(pair.controller.hello or HELLO))
    spoken = bytearray(pair.said_by_agent)
    spoken[hello_ends + place % (len(spoken) - hello_ends)] ^= by
    try:
        controller_that_hears([bytes(spoken[:hello_ends]), bytes(spoken[hello_ends:])])
    except ProtocolError as error:
        assert isinstance(error, RemoteError), "the peer is to blame, not this side"


def test_a_frame_of_the_other_channel_is_refused() -> None:
    key = handshake.resume_key(b"k" * 32)
    bulk = Pair(hello=on_bulk(), agent_key=key, controller_key=key).shake()
    with pytest.raises(LocalError, match="does not carry LOG"):
        bulk.agent.send(LogData(1, 0, 0.0, b"x"))
    with pytest.raises(RemoteError):
        bulk.controller.receive_data(encode(LogData(1, 0, 0.0, b"x")), bulk.now)
    control = Pair().shake()
    with pytest.raises(LocalError, match="does not carry BULK"):
        control.controller.send(ChunkGet(bytes(32), 0))
    with pytest.raises(RemoteError):
        control.controller.receive_data(encode(ChunkGet(bytes(32), 0)), control.now)


def test_a_heartbeat_leaves_before_the_bulk_that_was_queued_first() -> None:
    key = handshake.resume_key(b"k" * 32)
    pair = Pair(hello=on_bulk(), agent_key=key, controller_key=key).shake()
    chunk = Chunk(bytes(32), 0, payload=bytes(1 << 20))
    for _ in range(4):
        pair.agent.send(chunk)
    pair.agent.on_time(pair.now + 2.0)
    first, *rest = pair.agent.data_to_send(budget=1 << 20)
    assert first[4] == Kind.CONTROL
    assert [frame[4] for frame in rest] == [Kind.BULK]
    assert pair.agent.waiting(Kind.BULK) == 3 * len(encode(chunk))


def test_sending_before_the_handshake_is_a_bug_of_this_side() -> None:
    pair = Pair()
    for end in (pair.agent, pair.controller):
        with pytest.raises(LocalError, match="cannot send"):
            end.send(Notice("too early"))


def test_a_peer_that_does_not_read_costs_a_bounded_backlog_and_its_connection() -> None:
    pair = Pair().shake()
    frame = encode(Notice("x" * 8000))
    with pytest.raises(Overflow, match="does not confirm"):
        for _ in range(2 * KEPT_BYTES // len(frame)):
            pair.agent.send_encoded(Kind.CONTROL, frame)
    assert pair.agent.state is State.CLOSED
    assert pair.agent.waiting(Kind.CONTROL) == 0


def test_two_ends_that_hear_each_other_stay_alive_for_hours_and_know_their_clocks() -> None:
    pair = Pair().shake()
    pair.pass_time(4 * 3600)
    assert pair.controller.on_time(pair.now) is Health.ALIVE
    assert pair.agent.on_time(pair.now) is Health.ALIVE
    assert pair.controller.liveness.clock_offset_s == pytest.approx(0.0, abs=0.01)


def test_a_silent_peer_is_silent_after_three_beats_and_dead_after_ten_seconds() -> None:
    pair = Pair().shake()
    pair.pass_time(10)
    healths = []
    with pytest.raises(PeerDead, match=r"nothing heard for 10\.0 s"):
        for second in range(1, 20):
            healths.append(pair.controller.on_time(pair.now + second))
    assert healths == [Health.ALIVE] * 5 + [Health.SILENT] * 4
    assert pair.controller.state is State.CLOSED


def test_a_one_way_break_is_seen_from_both_sides_within_two_beats_of_the_limit() -> None:
    pair = Pair().shake()
    pair.pass_time(10)
    broke = pair.now
    verdicts: dict[str, float] = {}
    while len(verdicts) < 2 and pair.now < broke + 20:
        pair.now += 1
        for name, end in (("agent", pair.agent), ("controller", pair.controller)):
            try:
                end.on_time(pair.now, pair.now)
            except PeerDead:
                verdicts[name] = pair.now - broke
        pair.controller.data_to_send()
        pair.agent_speaks()
    assert verdicts["agent"] <= 12
    assert verdicts["controller"] <= 14


def test_a_controller_that_was_stopped_does_not_blame_its_agents() -> None:
    pair = Pair().shake()
    pair.pass_time(10)
    woke = pair.now + 15
    assert pair.controller.on_time(woke) is not Health.DEAD
    assert pair.controller.state is State.OPEN


def test_a_closed_connection_says_hears_and_waits_for_nothing() -> None:
    pair = Pair().shake()
    pair.agent.send(Notice("unsent"))
    pair.agent.close()
    assert pair.agent.data_to_send() == []
    assert pair.agent.receive_data(b"\xff" * 100, pair.now) == []
    assert pair.agent.next_deadline() is None
    assert pair.agent.on_time(pair.now + 1000) is Health.ALIVE
    pair.agent.close()
    with pytest.raises(LocalError):
        pair.agent.send(Notice("too late"))


def test_the_rhythm_is_the_one_that_the_controller_gave() -> None:
    pair = Pair(welcome=replace(WELCOME, heartbeat_s=0.5)).shake()
    assert pair.agent.timers.heartbeat_s == 0.5
    first = pair.agent.next_deadline()
    assert first is not None
    assert first <= pair.now + 0.5
    pair.agent.on_time(first)
    assert pair.agent.next_deadline() == pytest.approx(first + 0.5)


def test_every_state_is_reached_and_all_can_close() -> None:
    reached = {State.AWAIT_HELLO, State.AWAIT_CHALLENGE}
    for _ in State:
        reached |= {after for before in reached for after in TRANSITIONS[before].values()}
    assert reached == set(State) == set(TRANSITIONS)
    assert all(row["close"] is State.CLOSED for row in TRANSITIONS.values())


def test_much_that_came_is_confirmed_at_once_and_a_peer_that_reads_is_never_given_up() -> None:
    pair = Pair().shake()
    frame = encode(Notice("x" * 8000))
    for _ in range(2 * KEPT_BYTES // CONFIRM_BYTES):  # within one heartbeat
        for _ in range(CONFIRM_BYTES // len(frame)):
            pair.agent.send_encoded(Kind.CONTROL, frame)
        pair.agent_speaks()
        pair.controller_speaks()
    assert pair.agent.state is State.OPEN
    assert pair.agent.lifeline.kept_bytes <= 2 * CONFIRM_BYTES
