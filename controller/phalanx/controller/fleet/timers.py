"""Named timers of the engine on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """Timers by name; ``fire(name)`` is called when one is over. Setting a name again replaces its timer."""

    def __init__(self, fire: Callable[[str], None]) -> None:
        self._fire = fire
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, name: str, seconds: float) -> None:
        """Start or restart a timer."""
        self.drop(name)
        self._handles[name] = asyncio.get_running_loop().call_later(seconds, self._over, name)

    def drop(self, name: str) -> None:
        """Forget a timer."""
        handle = self._handles.pop(name, None)
        if handle is not None:
            handle.cancel()

    def _over(self, name: str) -> None:
        self._handles.pop(name, None)
        self._fire(name)

    def close(self) -> None:
        """Forget all."""
        for name in list(self._handles):
            self.drop(name)
