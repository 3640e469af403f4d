"""A run whose disk is full goes on: logs stay on their nodes until there is room, said once each way.

Nothing is acknowledged meanwhile. When there is room again, each node whose bytes were left to it is told to
begin at its last ack: its connection is closed, and it comes back and resumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from .store import LogStore, StoredStream

#: Seconds between looks for room, at first and at most: what fails again at once is asked for less often.
LOOK_S, LOOK_MOST_S = 1.0, 60.0
#: A pause that comes sooner than this after the last one ended is the same trouble, in seconds.
SAME_TROUBLE_S = 5.0


class Pausing:
    """Looks for room while streams are paused.

    ``has_room`` blocks; ``say(node, words)`` tells people, ``again(node, reason)`` makes an agent resume.
    """

    def __init__(
        self,
        has_room: Callable[[], bool],
        say: Callable[[str, str], None],
        again: Callable[[str, str], None],
        thread: Executor | None = None,
    ) -> None:
        self._has_room = has_room
        self._say = say
        self._again = again
        self._thread = thread
        self._paused = asyncio.Event()
        self._since = 0.0
        self._resumed = 0.0
        self._look_s = LOOK_S

    @property
    def active(self) -> bool:
        """Whether logs wait for room now."""
        return self._paused.is_set()

    def on_pause(self, stream: StoredStream, error: OSError) -> None:
        """A stream cannot be written. Only the first one of a time of trouble is news."""
        if self._paused.is_set():
            return
        now = asyncio.get_running_loop().time()
        same = self._resumed and now - self._resumed < SAME_TROUBLE_S
        self._look_s = min(self._look_s * 2, LOOK_MOST_S) if same else LOOK_S
        self._paused.set()
        self._since = self._since if same else now
        if not same:
            self._say(
                stream.name.node,
                f"cannot write {stream.path}: {error.strerror}; logs stay on their nodes until there is room",
            )

    async def keep_looking(self, store: LogStore) -> None:
        """Resume the store's streams whenever there is room; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._paused.wait()
            await asyncio.sleep(self._look_s)
            if not await loop.run_in_executor(self._thread, self._has_room):
                continue
            self._paused.clear()
            self._resumed = loop.time()
            nodes = store.resume()
            for node in sorted(nodes):
                self._again(node, "there is room for its logs again")
            if nodes and self._look_s <= LOOK_S:
                seconds = self._resumed - self._since
                self._say(
                    min(nodes), f"logs are written again after {seconds:.0f} s; nothing of them was lost"
                )
