"""A real agent in the process of the test: its session, its duties, its tasks."""

from __future__ import annotations

import asyncio
from pathlib import Path

from phalanx.agent.bootstrap import Bootstrap, Identity
from phalanx.agent.duties import Duties
from phalanx.agent.session import Session

from .controller import NODE


class Agent:
    """``run`` joins; ``status`` is the exit status it ends with."""

    def __init__(self, folder: Path, bootstrap: Bootstrap, **asked: int) -> None:
        self.base = folder / "base"
        (self.base / "blobs").mkdir(parents=True, mode=0o700)
        self.session = Session(bootstrap, Identity(NODE, 0), self.base)
        self._cache = folder / "cache"
        self._asked = asked
        self._task: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Agent:
        await self.session.join()
        duties = self.duties = Duties(self.session, self._cache, **self._asked)
        duties.take_up()
        self._task = asyncio.create_task(self.session.run(duties.background()))
        return self

    async def status(self) -> int:
        """The exit status, once it has ended."""
        assert self._task is not None
        return await asyncio.wait_for(asyncio.shield(self._task), 30)

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        if not self._task.done():
            await self.session.cases.kill_all()
            self._task.cancel()
        results = await asyncio.gather(self._task, return_exceptions=True)
        await self.duties.close()
        trouble = results[0]
        if isinstance(trouble, BaseException) and not isinstance(trouble, asyncio.CancelledError):
            raise trouble
