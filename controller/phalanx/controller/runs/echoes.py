"""The echoes of a first failure: ranks that ended badly after it, those alike told once.

One rank fails and a thousand others follow, stopped or broken by it. A screen that lists them buries the one
line that matters, so they are folded by how they ended.
"""

from __future__ import annotations

from phalanx.controller.exits import status_words
from phalanx.controller.logs.sources import EXEC_STEP
from phalanx.controller.runs.model import Failure, Fault, Followers, RankView, RunView
from phalanx.protocol.messages import CAUSE_WORDS, Cause


def followers(view: RunView) -> list[Followers]:
    """Ranks that ended badly besides the first failure, those alike together, the largest group first."""
    first = view.failure
    groups: dict[str, list[RankView]] = {}
    for rank in view.ranks.values():
        if not rank.failed or rank.step.startswith(EXEC_STEP) or (first is not None and _is(rank, first)):
            continue
        groups.setdefault(end_words(rank.status, rank.cause), []).append(rank)
    found = [
        Followers(
            words,
            tuple(dict.fromkeys(rank.node for rank in members)),
            tuple(sorted({rank.rank for rank in members if rank.rank >= 0})),
            len(members),
        )
        for words, members in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)


def _is(rank: RankView, failure: Failure) -> bool:
    place = (failure.case, failure.step, failure.node, failure.rank)
    return failure.fault is Fault.RANK and place == (rank.case, rank.step, rank.node, rank.rank)


def end_words(status: int, cause: Cause | None) -> str:
    """How a rank ended: status and signal, and who did it when it was not itself."""
    if cause is None:
        return "still running"
    if cause is Cause.LOST or (cause in (Cause.NOT_STARTED, Cause.ENGINE) and not status):
        return CAUSE_WORDS[cause]
    if cause is Cause.EXITED:
        return status_words(status)
    return f"{CAUSE_WORDS[cause]} · {status_words(status)}"
