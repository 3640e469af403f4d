"""Control messages both ways across broken connections: each exactly once, in order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from phalanx.protocol import handshake, lifeline
from phalanx.protocol.connection import State
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.lifeline import Lifeline, Overflow
from phalanx.protocol.messages import Kind, Message, Notice, StepStop

from .pair import HELLO, SESSION_KEY, Pair

RESUME = handshake.resume_key(SESSION_KEY)


class Reconnects(RuleBasedStateMachine):
    """Two ends that talk; what was on its way when the connection broke is cut at any byte."""

    def __init__(self) -> None:
        super().__init__()
        self.agent_line, self.controller_line = Lifeline(), Lifeline()
        self.sent_up: list[Message] = []
        self.sent_down: list[Message] = []
        self.came_up: list[Message] = []
        self.came_down: list[Message] = []
        self.now = 100.0
        self.pair = Pair(
            now=self.now, agent_lifeline=self.agent_line, controller_lifeline=self.controller_line
        ).shake()

    @rule(many=st.integers(1, 3))
    def the_agent_says(self, many: int) -> None:
        for _ in range(many):
            message = Notice(f"up {len(self.sent_up)}")
            self.sent_up.append(message)
            self.pair.agent.send(message)

    @rule(many=st.integers(1, 3))
    def the_controller_says(self, many: int) -> None:
        for _ in range(many):
            message = StepStop("ring", f"down {len(self.sent_down)}", 1.0)
            self.sent_down.append(message)
            self.pair.controller.send(message)

    @rule(seconds=st.sampled_from([1.0, 2.0, 3.0]))
    def both_say_what_they_have_and_beat(self, seconds: float) -> None:
        self.now += seconds
        self.pair.now = self.now
        for end in (self.pair.agent, self.pair.controller):
            end.on_time(self.now, self.now)
        self.hear(None, None)

    def hear(self, up: int | None, down: int | None) -> None:
        """Bytes cross the wire, at most ``up`` and ``down`` of them."""
        said = b"".join(self.pair.agent.data_to_send())[:up]
        answered = b"".join(self.pair.controller.data_to_send())[:down]
        self.came_up += self.pair.controller.receive_data(said, self.now)
        self.came_down += self.pair.agent.receive_data(answered, self.now)

    @rule(up=st.integers(0, 120), down=st.integers(0, 120))
    def the_connection_breaks_in_the_middle_of_a_word(self, up: int, down: int) -> None:
        self.hear(up, down)
        self.pair.agent.receive_eof()
        self.pair.controller.receive_eof()
        self.reconnect()

    def reconnect(self) -> None:
        self.pair = Pair(
            hello=replace(HELLO, resume=True),
            agent_key=RESUME,
            controller_key=RESUME,
            now=self.now,
            agent_lifeline=self.agent_line,
            controller_lifeline=self.controller_line,
        ).shake()
        assert self.pair.agent.state is self.pair.controller.state is State.OPEN
        self.came_down += self.pair.at_agent
        self.came_up += self.pair.at_controller

    @rule()
    def nothing_came_twice_or_out_of_order(self) -> None:
        assert self.came_up == self.sent_up[: len(self.came_up)]
        assert self.came_down == self.sent_down[: len(self.came_down)]

    def teardown(self) -> None:
        self.hear(None, None)
        self.hear(None, None)
        assert self.came_up == self.sent_up
        assert self.came_down == self.sent_down


TestReconnects = Reconnects.TestCase


def test_what_was_confirmed_is_not_kept() -> None:
    pair = Pair().shake()
    for number in range(10):
        pair.agent.send(Notice(str(number)))
    pair.pass_time(4)
    assert pair.agent.lifeline.missing() == []
    assert pair.agent.lifeline.confirmed == 10


@pytest.mark.parametrize("count", [3, 2**62])
def test_a_peer_that_confirms_what_was_never_sent_is_refused(count: int) -> None:
    line = Lifeline()
    line.keep(b"one")
    line.keep(b"two")
    with pytest.raises(RemoteError, match="0 to 2 are possible"):
        line.confirm(count)


def test_a_confirmation_cannot_go_back() -> None:
    line = Lifeline()
    line.keep(b"one")
    line.confirm(1)
    with pytest.raises(RemoteError):
        line.confirm(0)


def test_a_peer_that_confirms_nothing_costs_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "KEPT_BYTES", 100)
    line = Lifeline()
    with pytest.raises(Overflow):
        for _ in range(11):
            line.keep(bytes(10))
    assert len(line.missing()) == 10


def test_messages_before_a_bad_frame_are_not_counted_as_received_when_they_were_not_given_out() -> None:
    pair = Pair().shake()
    pair.agent.send(Notice("good"))
    good = b"".join(pair.agent.data_to_send())
    got: list[Message] = []
    with pytest.raises(RemoteError):
        got = pair.controller.receive_data(good + b"\x00\x00\x00\x01\x7f", pair.now)
    assert pair.controller_lifeline.received == len(got)


def test_logs_do_not_pass_through_the_lifeline() -> None:
    from phalanx.protocol.messages import LogData

    pair = Pair().shake()
    pair.agent.send(LogData(1, 0, 0.0, b"line\n"))
    assert pair.agent.lifeline.missing() == []
    assert pair.agent.waiting(Kind.LOG) > 0
