"""Peer: the polling barrier. READY and GO over one of sixteen ports, workers ask again each second.

Rank 0 takes the first free port of sixteen, accepts one worker at a time and reads its READY; when all are
there it sends GO to each. A worker tries the sixteen ports in turn; when nobody answers it sleeps a second.
So a worker that is there before rank 0, which is the usual order, adds up to a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

from benchmarks import worker

PORTS = 16
CONNECT_S, READ_S, POLL_S = 1.5, 2.0, 1.0
_JOB = "JOB1"
_STACK = 256 * 1024


def _serve(base: int, workers: int) -> dict[str, float]:
    """Rank 0: when the last READY came and when the last GO was sent."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for port in range(base, base + PORTS):
        with contextlib.suppress(OSError):
            listener.bind(("0.0.0.0", port))  # noqa: S104 - the peer does so
            break
    listener.listen(workers)
    began = time.monotonic()
    ready: dict[str, socket.socket] = {}
    while len(ready) < workers:
        connection, _ = listener.accept()
        connection.settimeout(READ_S)
        try:
            word, rank, job = connection.recv(128).decode().split()
        except (OSError, ValueError):
            continue
        if word == "READY" and job == _JOB:
            ready[rank] = connection
    joined = time.monotonic()
    for connection in ready.values():
        connection.sendall(f"GO {_JOB}\n".encode())
    for connection in ready.values():
        connection.close()
    listener.close()
    return {"began": began, "joined": joined}


def _ask(base: int, rank: int) -> bool:
    """One round of a worker: whether it heard GO."""
    for port in range(base, base + PORTS):
        try:
            with socket.create_connection(("127.0.0.1", port), CONNECT_S) as connection:
                connection.sendall(f"READY {rank} {_JOB}\n".encode())
                connection.settimeout(1800.0)
                if connection.recv(128).decode().split() == ["GO", _JOB]:
                    return True
        except OSError:
            continue
    return False


class _Workers:
    """Threads that wait for the word to begin."""

    def __init__(self, base: int, ranks: list[int]) -> None:
        self._base = base
        self._go = threading.Event()
        self.released: list[float] = []
        threading.stack_size(_STACK)
        self._threads = [threading.Thread(target=self._work, args=(rank,)) for rank in ranks]
        for thread in self._threads:
            thread.start()

    def _work(self, rank: int) -> None:
        self._go.wait()
        while not _ask(self._base, rank):
            time.sleep(POLL_S)
        self.released.append(time.monotonic())

    def begin(self) -> None:
        self._go.set()

    def wait(self) -> float:
        for thread in self._threads:
            thread.join()
        return max(self.released)


_workers: list[_Workers] = []


async def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Be rank 0, to the end."""
    return dict(await asyncio.to_thread(_serve, request["base"], request["workers"]))


async def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Make the workers."""
    _workers[:] = [_Workers(request["base"], request["ranks"])]
    return {}


async def begin(_request: dict[str, Any]) -> dict[str, Any]:
    """They start to ask."""
    _workers[0].begin()
    return {}


async def released(_request: dict[str, Any]) -> dict[str, Any]:
    """When the last heard GO."""
    return {"last": await asyncio.to_thread(_workers[0].wait)}


if __name__ == "__main__":
    worker.serve({"serve": serve, "prepare": prepare, "begin": begin, "released": released})
