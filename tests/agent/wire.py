"""A bad network between an agent and a controller: connections that break, go dead, or go dead one way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType


class Wire:
    """Forwards connections to ``target``. ``budget`` gives how many bytes each lives for, None for ever.

    ``up`` and ``down``: whether bytes of the agent, and for it, get through.
    """

    def __init__(self, target: tuple[str, int], budget: Iterator[int] | None = None) -> None:
        self._target = target
        self._budget = budget
        self.up = self.down = True
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.sockets[0].getsockname()
        return host, port

    def cut(self) -> None:
        """Break what is connected now."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = next(self._budget, None) if self._budget is not None else None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        allowance = [left]

        def spend(count: int) -> bool:
            if allowance[0] is not None:
                allowance[0] -= count
            return allowance[0] is None or allowance[0] > 0

        ways = (
            self._copy(reader, far_writer, lambda: self.up, spend),
            self._copy(far_reader, writer, lambda: self.down, spend),
        )
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for one in both:
            one.transport.abort()
        self._writers -= both

    async def _copy(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        passes: Callable[[], bool],
        spend: Callable[[int], bool],
    ) -> None:
        try:
            while data := await source.read(4096):
                if not passes():
                    continue
                alive = spend(len(data))
                target.write(data)
                await target.drain()
                if not alive:
                    return
        except OSError:
            return
