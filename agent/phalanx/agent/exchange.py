"""The workload's barriers and keys, asked of the controller: the async half of the workload socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from phalanx.protocol.barrier import from_ranges
from phalanx.protocol.messages import (
    BarrierEnter,
    BarrierFail,
    BarrierRelease,
    KvGet,
    KvPut,
    KvReply,
    Message,
    WorkloadMetric,
    WorkloadReady,
)


class BarrierFailed(Exception):
    """The barrier will never be complete; the message says who left or what is wrong."""


class ExchangeError(Exception):
    """The controller refused a key; the message says why."""


Waiter = asyncio.Future[list[int]]

#: Numbers of requests, over all cases: a KvReply names the request alone.
_NUMBERS = itertools.count(1)

#: How the controller says that a key has no value.
_NOT_SET = "not set"


@dataclass(slots=True)
class CaseExchange:
    """What the ranks of one case on this node ask. ``send`` queues a message for the controller.

    ``crowded``: so much waits for the controller already that no more is taken.
    """

    case: str
    send: Callable[[Message], None]
    crowded: Callable[[], bool] = lambda: False
    _barriers: dict[tuple[str, int], list[Waiter]] = field(default_factory=dict)
    _requests: dict[int, asyncio.Future[KvReply]] = field(default_factory=dict)
    _awaited: dict[str, asyncio.Future[KvReply]] = field(default_factory=dict)
    _generations: dict[tuple[str, int], int] = field(default_factory=dict)

    async def barrier(self, name: str, member: int, generation: int | None, expected: int) -> list[int]:
        """Arrive, and wait until all have: who they are. May be cancelled; arriving again counts once.

        ``generation`` None: the one after the last that this member came to. Raises BarrierFailed.
        """
        if generation is None:
            generation = self._generations.get((name, member), -1) + 1
        self._generations[name, member] = generation
        waiter: Waiter = asyncio.get_running_loop().create_future()
        waiters = self._barriers.setdefault((name, generation), [])
        waiters.append(waiter)
        try:
            self._say(BarrierEnter(self.case, name, generation, member, expected))
            return await waiter
        finally:
            waiters.remove(waiter)
            if not waiters and self._barriers.get((name, generation)) is waiters:
                del self._barriers[name, generation]

    def on_release(self, message: BarrierRelease) -> None:
        """All have arrived."""
        members = from_ranges(message.members)  # a RemoteError here drops the link, as it should
        for waiter in self._barriers.get((message.name, message.generation), ()):
            if not waiter.done():
                waiter.set_result(members)

    def on_fail(self, message: BarrierFail) -> None:
        """They never will."""
        for waiter in self._barriers.get((message.name, message.generation), ()):
            if not waiter.done():
                waiter.set_exception(BarrierFailed(message.reason))

    def _say(self, message: Message) -> None:
        """Raises ExchangeError rather than fill what the agent itself needs to be heard."""
        if self.crowded():
            raise ExchangeError("the controller has not answered for a while; try again later")
        self.send(message)

    async def put(self, key: str, value: bytes) -> None:
        """Set a key. Raises ExchangeError."""
        reply = await self._ask(lambda request: KvPut(request, self.case, key, value))
        if reply.error:
            raise ExchangeError(f"cannot set the key {key!r}: {reply.error}")

    async def get(self, key: str, wait_s: float) -> bytes | None:
        """A key's value, waited for up to ``wait_s`` seconds; None if it is not set. Raises ExchangeError."""
        if wait_s <= 0:
            reply = await self._ask(lambda request: KvGet(request, self.case, key, 0.0))
        else:
            try:
                async with asyncio.timeout(wait_s):
                    reply = await asyncio.shield(self._once_set(key, wait_s))
            except TimeoutError:
                return None
        if reply.value is None and reply.error not in ("", _NOT_SET):
            raise ExchangeError(f"cannot read the key {key!r}: {reply.error}")
        return reply.value

    def _once_set(self, key: str, wait_s: float) -> asyncio.Future[KvReply]:
        """The answer once a key is set, asked for once for all ranks of the node.

        Who gives up leaves it to whoever asks next: a server that takes long is asked for again and again.
        """
        answer = self._awaited.get(key)
        if answer is None or answer.done():
            request, answer = self._request()
            self._awaited[key] = answer
            try:
                self._say(KvGet(request, self.case, key, wait_s))
            except ExchangeError:
                del self._requests[request], self._awaited[key]
                raise
            answer.add_done_callback(lambda done: self._answered(key, done))
        return answer

    def _answered(self, key: str, answer: asyncio.Future[KvReply]) -> None:
        if self._awaited.get(key) is answer:
            del self._awaited[key]

    def _request(self) -> tuple[int, asyncio.Future[KvReply]]:
        request = next(_NUMBERS) & 0xFFFFFFFF
        answer = self._requests[request] = asyncio.get_running_loop().create_future()
        return request, answer

    async def _ask(self, make: Callable[[int], Message]) -> KvReply:
        request, answer = self._request()
        try:
            self._say(make(request))
            return await answer
        finally:
            self._requests.pop(request, None)

    def on_reply(self, message: KvReply) -> bool:
        """An answer; whether it was for this case."""
        answer = self._requests.pop(message.request, None)
        if answer is not None and not answer.done():
            answer.set_result(message)
        return answer is not None

    async def ready(self, rank: int) -> None:
        """The workload of a rank is ready."""
        self._say(WorkloadReady(self.case, rank))

    async def metric(self, rank: int, name: str, value: float, unit: str) -> None:
        """The workload of a rank reports a number."""
        self._say(WorkloadMetric(self.case, rank, name, value, unit))

    def give_up(self, reason: str) -> None:
        """Whoever waits will wait in vain: tell them."""
        for waiters in self._barriers.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(BarrierFailed(reason))
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(ExchangeError(reason))
                answer.exception()  # perhaps nobody waits for it any more
