"""Frames out of a byte stream: cut anywhere, capped before they are held, refused in words."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.protocol.errors import FrameError, LocalError, ProtocolError, SchemaError
from phalanx.protocol.frames import CAPS, PREFIX_BYTES, Frame, FrameDecoder, decode, encode, head
from phalanx.protocol.messages import (
    CHUNK_BYTES,
    BlobChunks,
    Chunk,
    Direction,
    Kind,
    LogData,
    Message,
    Notice,
    StepStart,
)

from .samples import every_frame, every_message
from .strategies import cuts, messages, pieces

DIALOGUE = b"".join(every_frame())


def frames_of(decoder: FrameDecoder, data: bytes) -> list[Frame]:
    decoder.feed(data)
    return list(iter(decoder.next, None))


@given(st.lists(messages(), max_size=5), st.data())
def test_any_split_of_the_bytes_gives_the_same_messages(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    decoder = FrameDecoder(Kind)
    got: list[Frame] = []
    for piece in pieces(stream, data.draw(cuts(len(stream)))):
        got += frames_of(decoder, piece)
    assert [frame.kind for frame in got] == [message.KIND for message in sent]
    whole = frames_of(FrameDecoder(Kind), stream)
    assert got == whole
    assert decoder.pending == 0


def test_a_dialogue_fed_one_byte_at_a_time_gives_every_message() -> None:
    decoder = FrameDecoder(Kind)
    got = [frame for byte in DIALOGUE for frame in frames_of(decoder, bytes([byte]))]
    assert [frame.kind for frame in got] == [message.KIND for message in every_message()]
    assert got == frames_of(FrameDecoder(Kind), DIALOGUE)


def test_a_dialogue_cut_at_every_byte_gives_the_whole_frames_before_the_cut_and_no_error() -> None:
    ends = [0]
    for frame in every_frame():
        ends.append(ends[-1] + len(frame))
    for cut in range(len(DIALOGUE) + 1):
        decoder = FrameDecoder(Kind)
        got = frames_of(decoder, DIALOGUE[:cut])
        assert len(got) == sum(end <= cut for end in ends[1:])
        assert decoder.pending == cut - max(end for end in ends if end <= cut)


def test_after_a_cut_anywhere_the_rest_completes_the_dialogue() -> None:
    whole = frames_of(FrameDecoder(Kind), DIALOGUE)
    for cut in range(len(DIALOGUE) + 1):
        decoder = FrameDecoder(Kind)
        assert frames_of(decoder, DIALOGUE[:cut]) + frames_of(decoder, DIALOGUE[cut:]) == whole


@pytest.mark.parametrize("kind", list(Kind))
def test_a_frame_above_the_cap_is_refused_at_its_fifth_byte(kind: Kind) -> None:
    decoder = FrameDecoder(Kind)
    prefix = struct.pack(">IB", CAPS[kind] + 2, kind)
    decoder.feed(prefix[:4])
    assert decoder.next() is None
    decoder.feed(prefix[4:])
    with pytest.raises(FrameError, match=kind.name):
        decoder.next()


@pytest.mark.parametrize("kind", list(Kind))
def test_a_frame_of_exactly_the_cap_is_taken(kind: Kind) -> None:
    body = bytes(CAPS[kind])
    (frame,) = frames_of(FrameDecoder(Kind), struct.pack(">IB", CAPS[kind] + 1, kind) + body)
    assert frame == Frame(kind, body)


def test_a_frame_without_a_kind_is_refused() -> None:
    decoder = FrameDecoder(Kind)
    with pytest.raises(FrameError):
        frames_of(decoder, struct.pack(">IB", 0, Kind.CONTROL))


@pytest.mark.parametrize("kind", [0, 5, 127, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(FrameError, match="not allowed here"):
        frames_of(FrameDecoder(Kind), struct.pack(">IB", 1, kind))


@pytest.mark.parametrize("kind", [Kind.CONTROL, Kind.LOG, Kind.BULK])
def test_before_the_handshake_only_handshake_frames_are_allowed(kind: Kind) -> None:
    decoder = FrameDecoder({Kind.HANDSHAKE})
    with pytest.raises(FrameError, match="not allowed here"):
        frames_of(decoder, struct.pack(">IB", 1, kind))


def test_what_a_stranger_can_make_us_hold_is_a_handshake_frame() -> None:
    decoder = FrameDecoder({Kind.HANDSHAKE})
    claim = struct.pack(">IB", CAPS[Kind.HANDSHAKE] + 1, Kind.HANDSHAKE)
    decoder.feed(claim + bytes(CAPS[Kind.HANDSHAKE] - 1))
    assert decoder.next() is None
    assert decoder.pending == PREFIX_BYTES + 4 * 1024 - 1


def test_a_message_above_its_cap_is_not_sent() -> None:
    cap = CAPS[Kind.LOG]
    encode(LogData(1, 0, 0.0, bytes(cap - 64)))
    with pytest.raises(LocalError, match="LogData"):
        encode(LogData(1, 0, 0.0, bytes(cap)))


def test_the_largest_chunk_and_the_largest_manifest_page_fit_their_frames() -> None:
    chunk = Chunk(bytes(32), 2**32 - 1, payload=bytes(CHUNK_BYTES))
    page = BlobChunks(bytes(32), 2**63 - 1, 2**32 - 1, (bytes(32),) * 4096)
    for message, sender in ((chunk, Direction.AGENT), (page, Direction.CONTROLLER)):
        (frame,) = frames_of(FrameDecoder(Kind), encode(message))
        assert decode(frame, sender) == message


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES])
def test_a_head_with_its_payload_behind_it_is_the_frame(length: int) -> None:
    payload = bytes(length)
    assert head(Chunk(bytes(32), 7), length) + payload == encode(Chunk(bytes(32), 7, payload=payload))


def test_no_head_is_made_of_a_frame_above_its_cap() -> None:
    with pytest.raises(LocalError):
        head(Chunk(bytes(32), 0), CAPS[Kind.BULK])


def test_an_argument_list_above_the_frame_is_refused_in_words_before_anything_is_sent() -> None:
    step = StepStart("case", "main", ("x" * 131072,) * 3, {}, {}, (), 0.0)
    with pytest.raises(LocalError, match="StepStart"):
        encode(step)


@pytest.mark.parametrize(
    "message",
    [
        Notice("\ud800 is a lone surrogate, as in a file name that is not UTF-8"),
        Notice("x" * 8193),
        LogData(2**32, 0, 0.0),
        LogData(2**70, 0, 0.0),
        LogData(-1, 0, 0.0),
        Chunk(b"short", 0),
        LogData(1, 0, float("nan")),
    ],
    ids=lambda message: repr(message)[:40],
)
def test_what_the_receiver_would_refuse_is_not_sent(message: Message) -> None:
    with pytest.raises(LocalError):
        encode(message)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x05\x90", b"\xff\xff"])
@pytest.mark.parametrize("kind", [Kind.LOG, Kind.BULK])
def test_a_header_that_is_not_whole_is_refused(kind: Kind, body: bytes) -> None:
    with pytest.raises(SchemaError):
        decode(Frame(kind, body), Direction.AGENT)


def test_a_payload_behind_a_message_that_has_none_is_refused() -> None:
    header = msgpack.packb([46, [bytes(32), 0, "not held"]], use_bin_type=True)
    frame = Frame(Kind.BULK, len(header).to_bytes(2, "big") + header + b"surprise")
    with pytest.raises(SchemaError, match="carries no payload"):
        decode(frame, Direction.AGENT)


def nested(opening: bytes, innermost: bytes) -> Callable[[int], bytes]:
    def body(size: int) -> bytes:
        return opening * ((size - len(innermost)) // len(opening)) + innermost

    return body


BOMBS: dict[str, Callable[[int], bytes]] = {
    "arrays in arrays": nested(b"\x91", b"\x90"),
    "maps in maps": nested(b"\x81\xa0", b"\x80"),
    "wide arrays in wide arrays": nested(b"\xdc\x20\x00", b"\x90"),
    "wide maps in wide maps": nested(b"\xde\x10\x00\xa0", b"\x80"),
    "a list of empty maps": lambda size: b"\xdd" + struct.pack(">I", size - 5) + b"\x80" * (size - 5),
    "lists of empty lists": lambda size: b"\x9f" + (b"\xdc\x20\x00" + b"\x90" * 8192) * (size // 8195),
    "an array that claims 4 Gi items": lambda size: b"\xdd\xff\xff\xff\xff",
    "a map that claims 4 Gi items": lambda size: b"\xdf\xff\xff\xff\xff",
    "a string that claims 4 GiB": lambda size: b"\xdb\xff\xff\xff\xff",
    "bytes that claim 4 GiB": lambda size: b"\xc6\xff\xff\xff\xff",
    "an extension": lambda size: b"\xc7\x01\x05\x00",
    "an extension that claims 4 GiB": lambda size: b"\xc9\xff\xff\xff\xff\x05",
    "a timestamp": lambda size: b"\xd6\xff\x00\x00\x00\x00",
    "many keys of one hash": lambda size: b"\xdf\x00\x00\xff\xff" + b"\xa0\xc0" * 65535,
    "keys that are lists": lambda size: b"\x92\x01\x81\x90\x00",
    "text that is not UTF-8": lambda size: b"\x92\x01\x91\xa2\xff\xfe",
    "two documents": lambda size: b"\x92\x0b\x91\xa0\x90",
    "nothing": lambda size: b"",
    "the byte that msgpack never uses": lambda size: b"\xc1",
}


@pytest.mark.parametrize("kind", [Kind.HANDSHAKE, Kind.CONTROL])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_msgpack_bomb_is_a_typed_error_and_its_memory_is_bounded(
    bomb: Callable[[int], bytes], kind: Kind
) -> None:
    body = bomb(CAPS[kind])
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(Frame(kind, body), Direction.AGENT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= MOST_MEMORY[kind]


#: What decoding one frame may cost for a moment, in bytes: little for a stranger, bounded for a known peer.
MOST_MEMORY = {Kind.HANDSHAKE: 1 << 20, Kind.CONTROL: 80 << 20}
