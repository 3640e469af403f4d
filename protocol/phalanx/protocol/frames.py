"""Frames: 4-byte big-endian length, 1-byte kind, body. Caps per kind hold before anything is buffered.

A body is msgpack. For LOG and BULK it is a 2-byte header length, a msgpack header, then raw bytes that are
never copied through msgpack. The length counts the kind byte and the body.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

import msgpack

from .errors import FrameError, LocalError, SchemaError
from .messages import CHUNK_BYTES, MESSAGES, Direction, Kind, Message
from .schema import compile_fields

_PREFIX = struct.Struct(">IB")
_HEADER = struct.Struct(">H")
PREFIX_BYTES = _PREFIX.size

#: Largest body per kind, in bytes. HANDSHAKE is what an unauthenticated peer can make us hold.
CAPS: dict[int, int] = {
    Kind.HANDSHAKE: 4 * 1024,
    Kind.CONTROL: 256 * 1024,
    Kind.LOG: 256 * 1024,
    Kind.BULK: CHUNK_BYTES + 4 * 1024,
}

_KINDS: dict[int, Kind] = {kind.value: kind for kind in Kind}
_WITH_HEADER = frozenset({Kind.LOG, Kind.BULK})


def _unpack_limits(array: int, entries: int, text: int) -> dict[str, Any]:
    return {
        "raw": False,
        "strict_map_key": True,
        "max_array_len": array,
        "max_map_len": entries,
        "max_str_len": text,
        "max_bin_len": text,
        "max_ext_len": 0,
    }


#: Nothing in a message needs more. Without limits a frame of nested empty arrays or maps costs thousands of
#: times its size; a stranger, who may send HANDSHAKE frames only, gets the tightest ones.
_UNPACK_LIMITS: dict[int, dict[str, Any]] = {
    Kind.HANDSHAKE: _unpack_limits(64, 16, 4096),
    Kind.CONTROL: _unpack_limits(8192, 4096, 256 * 1024),
    Kind.LOG: _unpack_limits(64, 16, 4096),
    Kind.BULK: _unpack_limits(64, 16, 16 * 1024),
}


class Frame(NamedTuple):
    """One whole frame as it came: its kind and its body."""

    kind: Kind
    body: bytes


class FrameDecoder:
    """Cuts a byte stream into frames. ``allowed`` changes as the connection moves on."""

    __slots__ = ("_buffer", "_start", "allowed")

    def __init__(self, allowed: Iterable[Kind]) -> None:
        self._buffer = bytearray()
        self._start = 0
        self.allowed = frozenset(allowed)

    def feed(self, data: bytes | memoryview) -> None:
        """Add bytes that came from the peer."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    @property
    def pending(self) -> int:
        """Bytes held that are not yet part of a frame that was given out."""
        return len(self._buffer) - self._start

    def next(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed.

        Raises FrameError as soon as the five bytes of the prefix show a kind or a length that is not allowed.
        """
        if self.pending < PREFIX_BYTES:
            return None
        kind, body_length = read_prefix(self._buffer, self.allowed, self._start)
        end = self._start + PREFIX_BYTES + body_length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[self._start + PREFIX_BYTES : end])
        self._start = end
        return Frame(kind, body)


def read_prefix(data: bytes | bytearray, allowed: Container[int], start: int = 0) -> tuple[Kind, int]:
    """The kind of a frame and the bytes of its body, from its first PREFIX_BYTES.

    Raises FrameError for a kind or a length that is not allowed.
    """
    length, kind = _PREFIX.unpack_from(data, start)
    if kind not in allowed:
        raise FrameError(f"frame kind {kind} is not allowed here")
    body_length = length - 1
    if not 0 <= body_length <= CAPS[kind]:
        raise FrameError(f"frame of {length} bytes; kind {Kind(kind).name} allows {CAPS[kind]}")
    return _KINDS[kind], body_length


def encode(message: Message) -> bytes:
    """The frame of a message.

    Raises LocalError for what the receiver would have to refuse: a field outside its annotation, a frame
    larger than its kind allows.
    """
    fields = compile_fields(type(message))
    try:
        values = fields.pack(message)
        fields.check(values)
        packed = _packed(message, values)
    except (SchemaError, TypeError, ValueError, OverflowError) as error:
        raise LocalError(f"cannot send {type(message).__name__}: {error}") from None
    return _frame(message, packed, fields.raw)


def head(message: Message, payload_bytes: int) -> bytes:
    """The frame of a message up to its payload, which whoever sends it puts behind from where it lies.

    Raises LocalError for a frame larger than its kind allows.
    """
    packed = _packed(message, compile_fields(type(message)).pack(message))
    length = _HEADER.size + len(packed) + payload_bytes
    if length > CAPS[message.KIND]:
        raise LocalError(f"cannot send {type(message).__name__}: {length} bytes are too many")
    return b"".join((_PREFIX.pack(length + 1, message.KIND), _HEADER.pack(len(packed)), packed))


def canonical(message: Message, **instead: Any) -> bytes:
    """The frame of a message that is known to be right (it came, or was encoded), for hashing.

    ``instead``: values of fields that differ.
    """
    fields = compile_fields(type(message))
    values = fields.pack(message)
    for name, value in instead.items():
        values[fields.place(name)] = value
    return _frame(message, _packed(message, values), fields.raw)


def _packed(message: Message, values: list[Any]) -> bytes:
    packed: bytes = msgpack.packb([message.CODE, values], use_bin_type=True)
    return packed


def _frame(message: Message, packed: bytes, raw: str | None) -> bytes:
    if message.KIND in _WITH_HEADER:
        payload: bytes = getattr(message, raw) if raw else b""
        parts = [_HEADER.pack(len(packed)), packed, payload]
    else:
        parts = [packed]
    length = sum(map(len, parts))
    if length > CAPS[message.KIND]:
        raise LocalError(
            f"cannot send {type(message).__name__}: {length} bytes, its kind allows {CAPS[message.KIND]}"
        )
    return b"".join((_PREFIX.pack(length + 1, message.KIND), *parts))


def decode(frame: Frame, sender: Direction) -> Message:
    """The message in a frame from ``sender`` (CONTROLLER or AGENT).

    Raises SchemaError for anything that is not a known message of that kind and direction.
    """
    payload = None
    header = frame.body
    if frame.kind in _WITH_HEADER:
        if len(header) < _HEADER.size:
            raise SchemaError("frame without a header")
        (length,) = _HEADER.unpack_from(header)
        if len(header) < _HEADER.size + length:
            raise SchemaError("header longer than its frame")
        payload = header[_HEADER.size + length :]
        header = header[_HEADER.size : _HEADER.size + length]
    code, values = _unpack(header, frame.kind)
    kind = MESSAGES.get(code)
    if kind is None or frame.kind != kind.KIND:
        raise SchemaError(f"no message {code} of kind {frame.kind.name}")
    if kind.DIRECTION not in (sender, Direction.BOTH):
        raise SchemaError(f"{kind.__name__} does not go {sender.value}")
    fields = compile_fields(kind)
    if payload and fields.raw is None:
        raise SchemaError(f"{kind.__name__} carries no payload")
    decoded: Message = fields.unpack(values, payload)
    return decoded


def _unpack(data: bytes, kind: Kind) -> tuple[int, Any]:
    try:
        outer = msgpack.unpackb(data, **_UNPACK_LIMITS[kind])
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        # ValueError covers UnicodeDecodeError, FormatError, StackError, ExtraData and the limits.
        raise SchemaError(f"not msgpack within limits: {type(error).__name__}") from None
    if type(outer) is not list or len(outer) != 2 or type(outer[0]) is not int:
        raise SchemaError("expected [code, fields]")
    return outer[0], outer[1]
