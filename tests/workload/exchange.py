"""The other nodes of a case, in memory: real barriers among the ranks that call, and a key-value store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from phalanx.agent.exchange import BarrierFailed


class MemoryExchange:
    """A case of ``size`` ranks that all live behind one server."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.arrivals: list[tuple[str, int, int]] = []
        self.waiting = 0
        self.cancelled = asyncio.Event()
        self.values: dict[str, bytes] = {}
        self.ready_ranks: list[int] = []
        self.metrics: list[tuple[int, str, float, str]] = []
        self.lost = ""
        self._changed = asyncio.Condition()
        self._members: dict[tuple[str, int], set[int]] = {}

    async def barrier(self, name: str, member: int, generation: int | None, expected: int) -> Sequence[int]:
        assert generation is not None
        self.arrivals.append((name, member, generation))
        members = self._members.setdefault((name, generation), set())
        async with self._changed:
            members.add(member)
            self.waiting += 1
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: self.lost or len(members) >= (expected or self.size))
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            finally:
                self.waiting -= 1
        if self.lost:
            raise BarrierFailed(self.lost)
        return sorted(members)

    async def until_waiting(self, number: int) -> None:
        """Wait until so many are in barriers."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.waiting >= number)

    async def lose(self, reason: str) -> None:
        """A member is gone: whoever waits is told."""
        async with self._changed:
            self.lost = reason
            self._changed.notify_all()

    async def put(self, key: str, value: bytes) -> None:
        async with self._changed:
            self.values[key] = value
            self._changed.notify_all()

    async def get(self, key: str, wait_s: float) -> bytes | None:
        if wait_s:
            async with self._changed:
                self.waiting += 1
                self._changed.notify_all()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait_for(lambda: key in self.values)
                except TimeoutError:
                    return None
                finally:
                    self.waiting -= 1
        return self.values.get(key)

    async def ready(self, rank: int) -> None:
        self.ready_ranks.append(rank)

    async def metric(self, rank: int, name: str, value: float, unit: str) -> None:
        self.metrics.append((rank, name, value, unit))
