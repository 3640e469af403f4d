"""The workload API: barriers, key-value exchange, readiness and metrics over HTTP on a unix socket.

Any language in any image can speak it; curl is enough. Each connection has a thread, because the standard
library's HTTP is blocking, and hands what it has read to the agent's loop, where all waiting is done. So a
wait ends with its deadline, with its client or with the server, and no thread outlives it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Protocol

from .exchange import BarrierFailed, ExchangeError
from .workload_calls import HELP, Barrier, Call, Get, Help, Metric, Put, Ready
from .workload_http import Answer, converse, document, hung_up, listening, turn_away

log = logging.getLogger(__name__)

#: Connections at a time. Each rank of a node needs one or two; each costs a thread and a descriptor.
MOST_CONNECTIONS = 512

#: Seconds until connections are taken again after the process ran out of descriptors, and in which a client
#: that is turned away can send what it wanted to.
_PAUSE_S = 0.5

#: Barrier names times ranks whose round is remembered; the longest unused is forgotten first.
_MOST_ROUNDS = 65536

#: unix(7): sun_path has 108 bytes, the last one for NUL.
LONGEST_PATH = 107


class WorkloadUnavailable(Exception):
    """The socket cannot be served. The message says why and what to do."""


class Exchange(Protocol):
    """One case's rendezvous with the other nodes. All run on the agent's loop; waits may be cancelled."""

    async def barrier(self, name: str, member: int, generation: int | None, expected: int) -> Sequence[int]:
        """Arrive and wait for all ``expected`` members (0: all ranks): who they are. Raises BarrierFailed."""

    async def put(self, key: str, value: bytes) -> None:
        """Set a key of the case. Raises ExchangeError."""

    async def get(self, key: str, wait_s: float) -> bytes | None:
        """The key's value, waited for up to ``wait_s`` seconds; None if unset. Raises ExchangeError."""

    async def ready(self, rank: int) -> None:
        """The workload of this rank is ready."""

    async def metric(self, rank: int, name: str, value: float, unit: str) -> None:
        """A number that the workload reports."""


class Rounds:
    """Which generation of a barrier a rank meets next: the one after the last whose outcome it was told.

    So a call that timed out or lost its connection, made again, meets the same one.
    """

    def __init__(self) -> None:
        self._next: OrderedDict[tuple[str, int], int] = OrderedDict()

    def next(self, key: tuple[str, int]) -> int:
        """The generation that ``key`` (name, rank) waits for next."""
        return self._next.get(key, 0)

    def told(self, key: tuple[str, int], generation: int) -> None:
        """The outcome of ``generation`` is on its way to the caller."""
        self._next[key] = max(self.next(key), generation + 1)
        self._next.move_to_end(key)
        if len(self._next) > _MOST_ROUNDS:
            self._next.popitem(last=False)

    def untold(self, key: tuple[str, int], generation: int) -> None:
        """The outcome did not reach the caller, who will ask again."""
        if self.next(key) == generation + 1:
            self._next[key] = generation


class WorkloadServer:
    """Serves one case on one node; made by ``start``, ended by ``stop``, both on the agent's loop.

    ``path``: where the socket is, in a private directory. ``client_path``: where processes of the host reach
    it, another name for the same socket where ``path`` is too long to connect to.
    """

    def __init__(self, path: Path, exchange: Exchange, ranks: Sequence[int], name: str) -> None:
        self.path = path
        self.client_path = path
        self.ranks = tuple(ranks)
        self.name = name
        self._exchange = exchange
        self._rounds = Rounds()
        self._connections = 0
        self._calls: set[asyncio.Task[Answer]] = set()
        self._listener: socket.socket | None = None
        self._shortcut: Path | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    def start(cls, path: Path, exchange: Exchange, *, ranks: Sequence[int], name: str = "") -> WorkloadServer:
        """Make the socket and serve ``ranks`` of the case ``name``. Raises WorkloadUnavailable."""
        server = cls(path, exchange, ranks, name)
        try:
            server._listen()
        except OSError as error:
            server.stop()
            raise WorkloadUnavailable(
                f"cannot serve the workload API at {path}: {error.strerror or error}; "
                "set TMPDIR of the nodes to a directory that can be written"
            ) from error
        return server

    def _listen(self) -> None:
        self._listener = listening(self.path, MOST_CONNECTIONS)
        if len(os.fsencode(self.path)) > LONGEST_PATH:
            self._shortcut = Path(tempfile.mkdtemp(prefix="phalanx-", dir="/tmp"))
            self.client_path = self._shortcut / "sock"
            self.client_path.symlink_to(self.path)
        self._loop.add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Take no more calls, end those that wait (their clients are told), and remove the socket."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)
        for call in self._calls:
            call.cancel()
        if self._shortcut is not None:
            self.client_path.unlink(missing_ok=True)
            self._shortcut.rmdir()
            self._shortcut = None

    # --- connections

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # out of descriptors: the client stays in the backlog meanwhile
            log.warning("cannot take a call of the workload: %s", error)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_PAUSE_S, self._accept_again)
            return
        if self._connections >= MOST_CONNECTIONS:
            self._turn_away(connection)
            return
        thread = threading.Thread(target=self._serve, args=(connection,), name="workload call", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._turn_away(connection)
            return
        self._connections += 1

    def _turn_away(self, connection: socket.socket) -> None:
        turn_away(connection)
        self._loop.call_later(_PAUSE_S, connection.close)

    def _accept_again(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _serve(self, connection: socket.socket) -> None:
        """Everything of one connection, in a thread of its own."""
        try:
            converse(connection, self.ranks, partial(self._ask, connection))
        finally:
            self._on_loop(self._disconnected)

    def _disconnected(self) -> None:
        self._connections -= 1

    def _on_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: nobody counts any more
            return

    def _ask(self, connection: socket.socket, call: Call) -> Answer:
        """Have ``call`` performed on the loop; its answer. In the thread of the connection."""
        work = self._watched(call, connection)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except (CancelledError, RuntimeError):  # stopped, or the loop is closed
            work.close()
            return document(503, error="the case is over on this node")

    # --- calls

    async def _watched(self, call: Call, connection: socket.socket) -> Answer:
        """Perform ``call``, and give it up when its client hangs up."""
        task: asyncio.Task[Answer] | None = asyncio.current_task()
        assert task is not None  # noqa: S101 - run_coroutine_threadsafe makes a task

        def look() -> None:
            # Readable without a hang-up: a further request, or a client that has said all it will. Neither
            # ends the wait, and both would wake the loop for ever.
            self._loop.remove_reader(connection)
            if hung_up(connection):
                task.cancel()

        self._calls.add(task)
        self._loop.add_reader(connection, look)
        try:
            return await self._performed(call)
        except ExchangeError as error:
            return document(409, error=str(error))
        except Exception:  # a mistake of ours must not leave the workload without an answer
            log.exception("cannot perform a call of the workload: %r", call)
            return document(500, error="the agent failed at this; its log says why")
        finally:
            self._loop.remove_reader(connection)
            self._calls.discard(task)

    async def _performed(self, call: Call) -> Answer:
        match call:
            case Barrier():
                return await self._barrier(call)
            case Get():
                return await self._get(call)
            case Put():
                await self._exchange.put(call.key, call.value)
            case Ready():
                await self._exchange.ready(call.rank)
            case Metric():
                await self._exchange.metric(call.rank, call.name, call.value, call.unit)
            case Help():
                return Answer(200, HELP.encode(), "text/plain; charset=utf-8")
        return Answer(204)

    async def _barrier(self, call: Barrier) -> Answer:
        key = (call.name, call.rank)
        generation = self._rounds.next(key) if call.generation is None else call.generation
        undelivered = partial(self._on_loop, partial(self._rounds.untold, key, generation))
        try:
            async with asyncio.timeout(call.timeout_s):
                members = await self._exchange.barrier(call.name, call.rank, generation, call.count)
        except TimeoutError:
            words = f"not all have arrived within {call.timeout_s:g} s; call again to go on waiting"
            return document(408, error=words, name=call.name, generation=generation)
        except BarrierFailed as error:
            self._rounds.told(key, generation)
            return document(
                409, undelivered=undelivered, error=str(error), name=call.name, generation=generation
            )
        self._rounds.told(key, generation)
        return document(
            200, undelivered=undelivered, name=call.name, generation=generation, members=len(members)
        )

    async def _get(self, call: Get) -> Answer:
        value = await self._exchange.get(call.key, call.wait_s)
        if value is None:
            waited = f" within {call.wait_s:g} s" if call.wait_s else "; add ?wait=SECONDS to wait for it"
            return document(404, error=f"the key {call.key!r} is not set{waited}")
        return Answer(200, value, "application/octet-stream")
