"""How a run ends whose controller cannot go on: what is told to agents, people and the event log. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from ..exits import Exit
from .journal import JournalError


@dataclass(frozen=True, slots=True)
class Ending:
    """``mute``: the event log cannot be written, so nothing more can become true."""

    reason: str
    state: str
    exit_code: int
    mute: bool = False

    @property
    def cancelled(self) -> bool:
        """Whether someone wanted it so."""
        return self.state == "cancelled"


def ending_of(error: BaseException) -> Ending:
    """The ending that an error of the controller's tasks makes."""
    found = list(leaves(error))
    journal = next((leaf for leaf in found if isinstance(leaf, JournalError)), None)
    if journal is not None:
        return Ending(str(journal), "failed", Exit.FAILURE, mute=True)
    if all(isinstance(leaf, asyncio.CancelledError) for leaf in found):
        return Ending("the controller was told to stop at once", "cancelled", Exit.INTERRUPTED)
    first = found[0]
    return Ending(f"the controller cannot go on: {type(first).__name__}: {first}", "failed", Exit.FAILURE)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
