"""The machine's libzstd: what comes out of it, and that nobody is made to hold more than he has room for."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator

import pytest
from phalanx.protocol import zstd

LIBRARY = zstd.library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="this machine has no libzstd")

TEXT = b"".join(b"line %d of a file that a layer has\n" % number for number in range(5_000))


def packed(content: bytes, room: int | None = None) -> bytes:
    assert LIBRARY is not None
    into = memoryview(bytearray(len(content) if room is None else room))
    return bytes(into[: LIBRARY.compress(content, into)])


def unpacked(data: bytes | memoryview, room: int) -> bytes:
    assert LIBRARY is not None
    into = memoryview(bytearray(room))
    return bytes(into[: LIBRARY.decompress(data, into)])


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    zstd.library.cache_clear()


def test_what_was_packed_is_unpacked_from_bytes_and_from_views() -> None:
    small = packed(TEXT)
    assert 0 < len(small) < len(TEXT) // 4
    assert unpacked(small, len(TEXT)) == TEXT
    assert unpacked(memoryview(bytearray(b"x" + small))[1:], len(TEXT)) == TEXT


def test_what_does_not_get_small_enough_is_told_by_nothing() -> None:
    noise = os.urandom(65536)
    assert packed(noise, 60_000) == packed(TEXT, 100) == packed(b"") == packed(TEXT, 0) == b""


def test_nothing_is_written_behind_the_room_that_there_is() -> None:
    assert LIBRARY is not None
    memory = bytearray(b"\xa5" * (len(TEXT) + 64))
    with pytest.raises(ValueError, match="Destination buffer is too small"):
        LIBRARY.decompress(packed(TEXT), memoryview(memory)[: len(TEXT) - 1])
    assert memory[len(TEXT) - 1 :] == b"\xa5" * 65


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"no zstd at all", id="something else"),
        pytest.param(packed(TEXT)[:-1] if LIBRARY else b"", id="cut short"),
        # the header of a frame that says that it holds 2**60 bytes (RFC 8878, 3.1.1.1)
        pytest.param(bytes.fromhex("28b52ffd c058 0000000000000010 010000"), id="huge"),
    ],
)
def test_rubbish_is_an_error_in_words(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w{3}"):
        unpacked(data, len(TEXT))


def test_a_machine_without_the_library_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    zstd.library.cache_clear()
    monkeypatch.setattr(zstd, "SONAME", "libzstd-of-another-machine.so.1")
    assert zstd.library() is None


def test_a_python_without_ctypes_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    zstd.library.cache_clear()
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert zstd.library() is None


def test_a_library_that_lacks_a_function_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    zstd.library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert zstd.library() is None
