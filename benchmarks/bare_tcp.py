"""Peer: the least that a star can do. 4-byte length and msgpack, no TLS, no proof, nobody to remember it.

Server and clients of this module are what ``barrier`` compares with: a join is a word and its answer, a
barrier is a word of everyone and one answer for all.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator
from typing import Any, cast

import msgpack

from benchmarks import worker
from benchmarks.light_agents import own_address

_LENGTH = struct.Struct(">I")
BACKLOG = 4096


def frame(message: list[Any]) -> bytes:
    """A message with its length."""
    body: bytes = msgpack.packb(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[list[Any]]:
        """The messages that are whole."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield msgpack.unpackb(body)


class _Star:
    def __init__(self, size: int) -> None:
        self.size = size
        self.members: list[asyncio.Transport] = []
        self.arrived: dict[int, set[int]] = {}

    def enter(self, generation: int, rank: int) -> None:
        arrived = self.arrived.setdefault(generation, set())
        arrived.add(rank)
        if len(arrived) == self.size:
            go = frame(["release", generation])
            for member in self.members:
                member.write(go)


class _Seat(asyncio.Protocol):
    def __init__(self, star: _Star) -> None:
        self._star = star
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for kind, *values in self._frames.feed(data):
            if kind == "join" and self._transport is not None:
                self._star.members.append(self._transport)
                self._transport.write(frame(["welcome"]))
            elif kind == "enter":
                self._star.enter(*values)


class _Client(asyncio.Protocol):
    def __init__(self, fleet: _Clients, rank: int) -> None:
        self._fleet, self.rank = fleet, rank
        self._frames = Frames()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(frame(["join", self.rank]))

    def data_received(self, data: bytes) -> None:
        for kind, *_ in self._frames.feed(data):
            self._fleet.count(kind)


class _Clients:
    def __init__(self) -> None:
        self.clients: list[_Client] = []
        self._counts: dict[str, int] = {}
        self._last = 0.0
        self._changed = asyncio.Event()

    def count(self, kind: str) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._last = time.monotonic()
        if self._counts[kind] % len(self.clients) == 0:
            self._changed.set()

    async def until(self, kind: str, times: int = 1) -> float:
        while self._counts.get(kind, 0) < times * len(self.clients):
            self._changed.clear()
            await self._changed.wait()
        return self._last


_state: dict[str, Any] = {}


async def server(request: dict[str, Any]) -> dict[str, Any]:
    """Listen."""
    star = _Star(request["agents"])
    loop = asyncio.get_running_loop()
    _state["server"] = made = await loop.create_server(lambda: _Seat(star), "127.0.0.1", 0, backlog=BACKLOG)
    return {"port": made.sockets[0].getsockname()[1]}


async def join(request: dict[str, Any]) -> dict[str, Any]:
    """Connect all."""
    loop = asyncio.get_running_loop()
    _state["fleet"] = fleet = _Clients()
    fleet.clients = [_Client(fleet, rank) for rank in request["ranks"]]
    await asyncio.gather(
        *(
            loop.create_connection(
                lambda client=client: client,  # type: ignore[misc]
                "127.0.0.1",
                request["port"],
                local_addr=own_address(client.rank),
            )
            for client in fleet.clients
        )
    )
    return {"last": await fleet.until("welcome")}


async def enter(request: dict[str, Any]) -> dict[str, Any]:
    """Arrive: all but ``late``."""
    return _arrive(request["generation"], lambda rank: rank != request.get("late", -1))


async def arrive(request: dict[str, Any]) -> dict[str, Any]:
    """Arrive: only ``late``."""
    return _arrive(request["generation"], lambda rank: rank == request["late"])


def _arrive(generation: int, who: Any) -> dict[str, Any]:
    for client in _state["fleet"].clients:
        if who(client.rank) and client.transport is not None:
            client.transport.write(frame(["enter", generation, client.rank]))
    return {"last": time.monotonic()}


async def released(request: dict[str, Any]) -> dict[str, Any]:
    """When the last was released."""
    return {"last": await _state["fleet"].until("release", request["generation"] + 1)}


if __name__ == "__main__":
    worker.serve({"server": server, "join": join, "enter": enter, "arrive": arrive, "released": released})
