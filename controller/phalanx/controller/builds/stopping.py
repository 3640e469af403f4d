"""A build that is told to end (a closed terminal, a cancelled job) ends as with Ctrl-C: nothing stays."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(Exception):
    """A signal has ended the work."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within a task: SIGTERM and SIGHUP cancel it; raises Ended once all is cleaned up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    told: list[int] = []

    def end(number: int) -> None:
        told.append(number)
        if task is not None:
            task.cancel()

    for number in ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        if not told:
            raise
        raise Ended(told[0]) from None
    finally:
        for number in ENDING:
            loop.remove_signal_handler(number)
