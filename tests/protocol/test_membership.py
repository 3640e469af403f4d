"""Who gets a seat: newcomers, returning agents, impostors and the stale, against a model of the door."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from phalanx.protocol.membership import TRANSITIONS, Entry, Member, Seat, advance, judge
from phalanx.protocol.messages import Channel, Hello

RUN, BUILD = "run-1", "b" * 64
NODES = ("n0", "n1", "n2")


def hello(node: str = "n1", incarnation: str = "i1", resume: bool = False) -> Hello:
    return Hello(
        version=1,
        run_id=RUN,
        channel=Channel.CONTROL,
        node=node,
        node_rank=NODES.index(node) if node in NODES else 9,
        incarnation=incarnation,
        epoch_seen=0,
        resume=resume,
        agent_build=BUILD,
        features=(),
        nonce=bytes(32),
        mac=bytes(32),
    )


class Fleet(RuleBasedStateMachine):
    """The door as the controller keeps it; the model remembers who was ever given which seat."""

    def __init__(self) -> None:
        super().__init__()
        self.seats = {node: Seat(node, rank) for rank, node in enumerate(NODES)}
        self.ever: dict[str, list[str]] = {node: [] for node in NODES}
        self.fenced: set[tuple[str, str]] = set()

    nodes = st.sampled_from(NODES)
    incarnations = st.sampled_from(["i1", "i2", "i3"])
    channels = st.sampled_from(Channel)

    @rule(node=nodes, incarnation=incarnations, resume=st.booleans(), channel=channels)
    def an_agent_knocks(self, node: str, incarnation: str, resume: bool, channel: Channel) -> None:
        seat = self.seats[node]
        said = replace(hello(node, incarnation, resume), channel=channel)
        verdict = judge(RUN, BUILD, seat, said)
        assert verdict.reason
        if verdict.entry is Entry.JOIN:
            assert self.ever[node] in ([], [incarnation]), "a seat is given to one incarnation"
            assert (node, incarnation) not in self.fenced
            assert channel is Channel.CONTROL, "bulk needs a key that only a member has"
            if seat.state is not Member.JOINED:
                self.seats[node] = replace(seat, state=advance(seat.state, "joined"), incarnation=incarnation)
            self.ever[node] = [incarnation]
        elif verdict.entry is Entry.RESUME:
            assert self.ever[node] == [incarnation], "only who sat there may sit down again"
            assert (node, incarnation) not in self.fenced
            if seat.state is Member.SILENT:
                self.seats[node] = replace(seat, state=advance(seat.state, "joined"))
        else:
            self.a_refusal_has_a_cause(seat, incarnation, resume, channel)

    def a_refusal_has_a_cause(self, seat: Seat, incarnation: str, resume: bool, channel: Channel) -> None:
        taken = seat.state is not Member.EXPECTED and incarnation != seat.incarnation
        stranger = resume and incarnation != seat.incarnation
        over = seat.state in (Member.LOST, Member.LEFT)
        assert (taken and not resume) or stranger or over or (channel is Channel.BULK and not resume)

    @rule(node=nodes, trigger=st.sampled_from(["silent", "lost", "left"]))
    def a_node_changes(self, node: str, trigger: str) -> None:
        seat = self.seats[node]
        if trigger not in TRANSITIONS[seat.state]:
            with pytest.raises(ValueError, match=seat.state.value):
                advance(seat.state, trigger)
            return
        self.seats[node] = replace(seat, state=advance(seat.state, trigger))
        if trigger in ("lost", "left"):
            self.fenced.add((node, seat.incarnation))

    @invariant()
    def at_most_one_incarnation_was_ever_given_a_seat(self) -> None:
        assert all(len(ever) <= 1 for ever in self.ever.values())

    @invariant()
    def who_is_lost_or_left_stays_so(self) -> None:
        for node, incarnation in self.fenced:
            seat = self.seats[node]
            assert seat.state in (Member.LOST, Member.LEFT)
            assert judge(RUN, BUILD, seat, hello(node, incarnation or "i1", True)).entry is Entry.REFUSE


TestFleet = Fleet.TestCase

SEAT = Seat("n1", 1)
JOINED = Seat("n1", 1, Member.JOINED, "i1")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"run_id": "run-2"}, "run-2"),
        ({"node_rank": 2}, "no agent is expected"),
        ({"node": "n2"}, "no agent is expected"),
        ({"agent_build": "c" * 64}, "build"),
    ],
)
def test_who_belongs_elsewhere_is_refused_with_the_reason(change: dict[str, object], word: str) -> None:
    seat = SEAT if change.get("node") is None else None
    verdict = judge(RUN, BUILD, seat, replace(hello(), **change))  # type: ignore[arg-type]
    assert verdict.entry is Entry.REFUSE
    assert word in verdict.reason


def test_a_live_agent_is_never_pushed_out_of_its_seat_by_another_with_the_join_key() -> None:
    verdict = judge(RUN, BUILD, JOINED, hello(incarnation="i2"))
    assert verdict.entry is Entry.REFUSE
    assert "keeps its seat" in verdict.reason


def test_an_agent_that_never_heard_its_welcome_may_join_again_as_the_same_incarnation() -> None:
    for state in (Member.JOINED, Member.SILENT):
        assert judge(RUN, BUILD, replace(JOINED, state=state), hello()).entry is Entry.JOIN


def test_the_same_agent_comes_back_with_the_resume_key_whether_or_not_its_silence_was_noticed() -> None:
    for state in (Member.JOINED, Member.SILENT):
        assert judge(RUN, BUILD, replace(JOINED, state=state), hello(resume=True)).entry is Entry.RESUME


@pytest.mark.parametrize("state", [Member.LOST, Member.LEFT])
def test_a_stale_agent_is_fenced_with_either_key(state: Member) -> None:
    seat = replace(JOINED, state=state)
    assert judge(RUN, BUILD, seat, hello(resume=True)).entry is Entry.REFUSE
    assert judge(RUN, BUILD, seat, hello(resume=False)).entry is Entry.REFUSE
    assert judge(RUN, BUILD, seat, hello(incarnation="i2")).entry is Entry.REFUSE


def test_every_state_can_be_reached_and_the_last_ones_are_final() -> None:
    reached = {Member.EXPECTED}
    for _ in Member:
        reached |= {after for before in reached for after in TRANSITIONS[before].values()}
    assert reached == set(Member) == set(TRANSITIONS)
    assert TRANSITIONS[Member.LOST] == TRANSITIONS[Member.LEFT] == {}
