"""Who gets in: only who knows the key, over this certificate, in this dialogue, for this node of this run."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.protocol import handshake
from phalanx.protocol.connection import State
from phalanx.protocol.errors import AuthError, LocalError, ProtocolError, RemoteError
from phalanx.protocol.frames import Frame, FrameDecoder, decode, encode
from phalanx.protocol.lifeline import Lifeline
from phalanx.protocol.messages import Challenge, Direction, Hello, Kind, Message, Welcome

from .pair import CERTIFICATE, HELLO, JOIN_KEY, RUN, SECRET, SESSION_KEY, WELCOME, Pair


def changed(data: bytes, sender: Direction, change: Callable[[Message], Message]) -> bytes:
    """The single frame in ``data`` with its message changed by a man in the middle."""
    frame = Frame(Kind(data[4]), data[5:])
    return encode(change(decode(frame, sender)))


def refused(pair: Pair) -> None:
    with pytest.raises(AuthError):
        pair.shake()
    assert State.OPEN not in (pair.controller.state, pair.agent.state) or (
        pair.agent.state is State.CLOSED
    ), "at least the side that saw the lie has closed"


def test_both_sides_that_know_the_key_get_in() -> None:
    pair = Pair().shake()
    assert pair.controller.state is pair.agent.state is State.OPEN
    assert pair.agent.accepted is not None
    assert pair.agent.accepted.session_key == SESSION_KEY
    assert pair.controller.hello is not None
    assert pair.controller.hello.node == "n1"


def test_the_session_key_is_nowhere_before_the_agent_has_proved_itself() -> None:
    pair = Pair()
    pair.controller_speaks()
    pair.agent_speaks()
    assert SESSION_KEY not in pair.said_by_controller
    assert pair.controller.data_to_send() == []


def test_no_secret_and_no_join_key_ever_crosses_the_wire() -> None:
    pair = Pair().shake()
    said = pair.said_by_agent + pair.said_by_controller
    assert SECRET not in said
    assert JOIN_KEY not in said


def test_an_agent_with_the_wrong_key_is_refused() -> None:
    refused(Pair(agent_key=b"x" * 32))


def test_a_controller_with_the_wrong_key_is_refused_by_the_agent() -> None:
    pair = Pair()
    pair.controller_speaks()
    pair.agent_speaks()
    impostor = handshake.sign_welcome(
        b"x" * 32, CERTIFICATE, pair.controller.challenge, pair.controller.hello or HELLO, WELCOME
    )
    with pytest.raises(AuthError, match="could not prove"):
        pair.agent.receive_data(encode(impostor), pair.now)
    assert pair.agent.state is State.CLOSED
    assert pair.agent.accepted is None


@pytest.mark.parametrize(
    ("run_id", "node", "node_rank"),
    [("another-run", "n1", 1), (RUN, "n2", 1), (RUN, "n1", 2), (RUN, "n11", 1), (RUN[:-1], "an1", 1)],
)
def test_the_key_of_another_run_node_or_rank_does_not_open_this_seat(
    run_id: str, node: str, node_rank: int
) -> None:
    refused(Pair(agent_key=handshake.join_key(SECRET, run_id, node, node_rank)))


def test_labels_of_keys_cannot_run_into_each_other() -> None:
    assert handshake.join_key(SECRET, "ab", "c", 1) != handshake.join_key(SECRET, "a", "bc", 1)
    assert handshake.join_key(SECRET, "a", "b1", 1) != handshake.join_key(SECRET, "a", "b", 11)


def test_a_node_cannot_speak_for_another_with_its_own_key() -> None:
    stolen = replace(HELLO, node="n2", node_rank=2)
    refused(Pair(hello=stolen, controller_key=handshake.join_key(SECRET, RUN, "n2", 2)))


def test_a_recorded_hello_does_not_open_a_second_connection() -> None:
    recorded = Pair().shake().said_by_agent
    replay = Pair(nonce=b"m" * 32)
    replay.controller_speaks()
    replay.controller.receive_data(recorded, replay.now)
    with pytest.raises(AuthError):
        replay.controller.welcome(JOIN_KEY, WELCOME, Lifeline(), replay.now)
    assert replay.controller.state is State.CLOSED
    assert replay.controller.data_to_send() == []


def test_a_recorded_welcome_does_not_convince_an_agent_that_asks_again() -> None:
    first = Pair()
    first.controller_speaks()
    first.agent_speaks()
    first.controller.welcome(JOIN_KEY, WELCOME, Lifeline(), first.now)
    recorded = first.controller_speaks()
    second = Pair(hello=replace(HELLO, nonce=b"z" * 32))
    second.controller_speaks()
    second.agent.data_to_send()
    with pytest.raises(AuthError):
        second.agent.receive_data(recorded, second.now)


def test_someone_in_the_middle_with_another_certificate_is_noticed_by_the_controller() -> None:
    pair = Pair(agent_sees=b"m" * 32)
    pair.controller_speaks()
    pair.agent_speaks()
    with pytest.raises(AuthError, match="wrong proof"):
        pair.controller.welcome(JOIN_KEY, WELCOME, Lifeline(), pair.now)
    assert pair.controller.data_to_send() == []


def test_someone_in_the_middle_is_noticed_by_the_agent_even_when_the_controller_is_fooled() -> None:
    pair = Pair()
    pair.controller_speaks()
    pair.agent_speaks()
    hello = pair.controller.hello
    assert hello is not None
    other = handshake.sign_welcome(JOIN_KEY, b"m" * 32, pair.controller.challenge, hello, WELCOME)
    with pytest.raises(AuthError):
        pair.agent.receive_data(encode(other), pair.now)


def strip(message: Message) -> Message:
    return replace(message, features=())  # type: ignore[call-arg]


@pytest.mark.parametrize("side", ["hello", "welcome"])
def test_a_feature_that_was_stripped_on_the_way_is_noticed(side: str) -> None:
    if side == "hello":
        refused(Pair(to_controller=lambda data: changed(data, Direction.AGENT, strip)))
        return
    pair = Pair()
    pair.controller_speaks()
    pair.agent_speaks()
    pair.controller.welcome(JOIN_KEY, WELCOME, Lifeline(), pair.now)
    pair.to_agent = lambda data: changed(data, Direction.CONTROLLER, strip)
    with pytest.raises(AuthError):
        pair.controller_speaks()


def test_a_version_range_that_was_narrowed_on_the_way_is_noticed() -> None:
    def narrow(message: Message) -> Message:
        return replace(message, version_max=2)  # type: ignore[call-arg]

    refused(Pair(to_agent=lambda data: changed(data, Direction.CONTROLLER, narrow)))


FIELDS = [
    *((Hello, field.name) for field in dataclasses.fields(Hello)),
    *((Welcome, field.name) for field in dataclasses.fields(Welcome)),
    *((Challenge, field.name) for field in dataclasses.fields(Challenge)),
]


def different(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 1.0
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, tuple):
        return (*value, "more")
    if isinstance(value, str):
        return ("y" if value[0] == "x" else "x") + value[1:]
    return next(member for member in type(value) if member is not value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_every_field_of_the_dialogue_is_under_the_proof(kind: type[Message], name: str) -> None:
    challenge = Challenge(1, 1, b"n" * 32)
    hello = handshake.sign_hello(JOIN_KEY, CERTIFICATE, challenge, HELLO)
    welcome = handshake.sign_welcome(JOIN_KEY, CERTIFICATE, challenge, hello, WELCOME)
    handshake.check_welcome(JOIN_KEY, CERTIFICATE, challenge, hello, welcome)
    said: dict[type[Message], Message] = {Challenge: challenge, Hello: hello, Welcome: welcome}
    said[kind] = replace(said[kind], **{name: different(getattr(said[kind], name))})
    arguments = JOIN_KEY, CERTIFICATE, said[Challenge], said[Hello]
    with pytest.raises(AuthError):
        handshake.check_welcome(*arguments, said[Welcome])  # type: ignore[arg-type]
    if kind is not Welcome:
        with pytest.raises(AuthError):
            handshake.check_hello(*arguments)  # type: ignore[arg-type]


def test_the_proof_of_one_side_is_not_the_proof_of_the_other() -> None:
    challenge = Challenge(1, 1, b"n" * 32)
    hello = handshake.sign_hello(JOIN_KEY, CERTIFICATE, challenge, HELLO)
    reflected = replace(WELCOME, mac=hello.mac)
    with pytest.raises(AuthError):
        handshake.check_welcome(JOIN_KEY, CERTIFICATE, challenge, hello, reflected)


@pytest.mark.parametrize(("low", "high"), [(2, 3), (99, 99)])
def test_without_a_common_version_the_agent_says_both_ranges(low: int, high: int) -> None:
    pair = Pair()
    offer = Challenge(low, high, b"n" * 32)
    with pytest.raises(AuthError, match=f"1-1, the controller {low}-{high}"):
        pair.agent.receive_data(encode(offer), pair.now)
    assert pair.agent.state is State.CLOSED
    assert pair.agent.data_to_send() == []


def test_a_wider_range_of_the_controller_ends_in_the_version_that_both_speak() -> None:
    pair = Pair()
    pair.agent.receive_data(encode(Challenge(1, 7, b"n" * 32)), pair.now)
    assert pair.agent.hello is not None
    assert pair.agent.hello.version == 1


def test_a_version_that_was_not_offered_is_refused_even_with_the_right_proof() -> None:
    pair = Pair()
    pair.controller_speaks()
    hello = handshake.sign_hello(JOIN_KEY, CERTIFICATE, pair.controller.challenge, replace(HELLO, version=9))
    pair.controller.receive_data(encode(hello), pair.now)
    with pytest.raises(AuthError, match="9 was not offered"):
        pair.controller.welcome(JOIN_KEY, WELCOME, Lifeline(), pair.now)


def test_a_stranger_may_say_one_hello_and_nothing_more() -> None:
    pair = Pair()
    pair.controller_speaks()
    (hello,) = pair.agent.data_to_send()
    pair.controller.receive_data(hello, pair.now)
    with pytest.raises(RemoteError):
        pair.controller.receive_data(hello[:5], pair.now)
    assert pair.controller.state is State.CLOSED


@pytest.mark.parametrize("kind", [Kind.CONTROL, Kind.LOG, Kind.BULK])
def test_nothing_but_a_handshake_is_heard_before_the_proof(kind: Kind) -> None:
    pair = Pair()
    with pytest.raises(RemoteError):
        pair.controller.receive_data(struct.pack(">IB", 1, kind), pair.now)


def test_a_controller_says_nothing_but_its_challenge_to_a_stranger() -> None:
    pair = Pair()
    said = b"".join(pair.controller.data_to_send())
    decoder = FrameDecoder(Kind)
    decoder.feed(said)
    frame = decoder.next()
    assert frame is not None
    assert decode(frame, Direction.CONTROLLER) == pair.controller.challenge
    assert decoder.pending == 0
    with pytest.raises(LocalError):
        pair.controller.send(WELCOME)


def test_a_challenge_twice_is_refused() -> None:
    pair = Pair()
    challenge = pair.controller_speaks()
    with pytest.raises(RemoteError):
        pair.agent.receive_data(challenge, pair.now)


@given(st.binary(max_size=200), st.booleans())
def test_whatever_a_stranger_says_is_a_typed_error_or_a_wait(noise: bytes, framed: bool) -> None:
    pair = Pair()
    data = struct.pack(">IB", len(noise) + 1, Kind.HANDSHAKE) + noise if framed else noise
    for end in (pair.controller, pair.agent):
        try:
            assert end.receive_data(data, pair.now) == []
        except ProtocolError:
            assert end.state is State.CLOSED
        assert end.state is not State.OPEN


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_bit_that_flips_anywhere_in_the_handshake_lets_nobody_in(place: int, bit: int) -> None:
    def flipped(data: bytes) -> bytes:
        at = place % len(data) if data else 0
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] if data else data

    for wires in ({"to_agent": flipped}, {"to_controller": flipped}):
        pair = Pair(**wires)  # type: ignore[arg-type]
        with contextlib.suppress(ProtocolError):
            pair.shake()
        assert not (pair.controller.state is State.OPEN and pair.agent.state is State.OPEN)


def test_the_resume_key_is_not_the_join_key_and_not_the_session_key() -> None:
    keys = {handshake.resume_key(SESSION_KEY), SESSION_KEY, JOIN_KEY, SECRET}
    assert len(keys) == 4
    again = Pair(
        hello=replace(HELLO, resume=True),
        agent_key=handshake.resume_key(SESSION_KEY),
        controller_key=handshake.resume_key(SESSION_KEY),
    ).shake()
    assert again.controller.state is State.OPEN
    refused(Pair(hello=replace(HELLO, resume=True), controller_key=handshake.resume_key(SESSION_KEY)))


def test_keys_are_those_of_rfc_5869() -> None:
    # HKDF-SHA256, empty salt, info = length-prefixed labels, one block; computed with another implementation.
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"".join(len(word).to_bytes(4, "big") + word for word in (b"join", RUN.encode(), b"n1", b"1"))
    assert HKDF(SHA256(), 32, None, info).derive(SECRET) == JOIN_KEY
