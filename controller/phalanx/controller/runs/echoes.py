"""The echoes of a first failure: ranks that ended badly after it, those alike told once.

One rank fails and a thousand others follow, stopped or broken by it. A screen that lists them buries the one
line that matters, so they are folded by how they ended.

Ranks that wait for each other until their time is over have no first: which of them a deadline met some
milliseconds before the others says nothing, and to name it would send people to the wrong node.
"""

from __future__ import annotations

from phalanx.controller.exits import status_words
from phalanx.controller.logs.sources import EXEC_STEP
from phalanx.controller.runs.model import Failure, Fault, Followers, RankView, RunView
from phalanx.controller.runs.words import number
from phalanx.protocol.messages import CAUSE_WORDS, Cause

#: What to ask when ranks ran until a deadline and none of them failed by itself.
IF_THEY_WAIT = (
    "if they wait for each other: is one on another MASTER_ADDR or MASTER_PORT, or not there at all?"
)


def followers(view: RunView) -> list[Followers]:
    """Ranks that ended badly besides the first failure, those alike together, the largest group first.

    All of them when none was first.
    """
    first = None if any(out_of_time(view)) else view.failure
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


def out_of_time(view: RunView) -> tuple[int, int]:
    """How many ranks of a step, of how many, ran until a deadline; (0, 0) when it was one alone, or when one
    ended badly by itself.

    Those that phalanx stopped count: the deadline of another came a moment before their own.
    """
    first = view.failure
    if first is None or first.cause is not Cause.DEADLINE:
        return 0, 0
    ranks = [rank for rank in view.ranks.values() if (rank.case, rank.step) == (first.case, first.step)]
    failed = [rank for rank in ranks if rank.failed]
    waited = all(rank.cause in (Cause.DEADLINE, Cause.STOPPED) for rank in failed)
    return (len(failed), len(ranks)) if waited and len(failed) > 1 else (0, 0)


def waited(view: RunView) -> str:
    """``all 4`` or ``3 of 4``: the ranks of ``out_of_time``."""
    count, total = out_of_time(view)
    return f"all {number(count)}" if count == total else f"{number(count)} of {number(total)}"


def still_running(view: RunView, failure: Failure) -> str:
    """What the deadline met, of a run that is ``out_of_time``."""
    step = "the script" if failure.step == "main" else f"step {failure.step}"
    return f"{step} was still running on {waited(view)} ranks"


def deadline_of(failure: Failure) -> str:
    """Which deadline it was, in the words of the node when it said some."""
    return failure.detail or CAUSE_WORDS[Cause.DEADLINE]


def _is(rank: RankView, failure: Failure) -> bool:
    place = (failure.case, failure.step, failure.node, failure.rank)
    return failure.fault is Fault.RANK and place == (rank.case, rank.step, rank.node, rank.rank)


def where_of(failure: Failure, *, with_case: bool = False) -> str:
    """Where a failure was: ``node2 rank 3 (local 1), step pre``, and the case when that is wanted."""
    step = "" if failure.step in ("", "main") else f", step {failure.step}"
    if with_case and failure.case and failure.node:
        step += f", case {failure.case}"
    if failure.fault is Fault.RANK and failure.rank >= 0:
        return f"{failure.node} rank {failure.rank} (local {failure.local}){step}"
    if failure.fault is Fault.CASE and not failure.node:
        return f"case {failure.case}"
    return (failure.node or failure.fault.value) + step


def how_of(failure: Failure) -> str:
    """How it ended, with what is known beside."""
    if failure.fault is Fault.RANK:
        words = end_words(failure.status, failure.cause)
        return f"{words}: {failure.detail}" if failure.detail else words
    if failure.fault is Fault.NODE:
        return f"the node was lost: {failure.detail}" if failure.detail else "the node was lost"
    return failure.detail or f"{failure.fault.value} failed"


def end_words(status: int, cause: Cause | None) -> str:
    """How a rank ended: status and signal, and who did it when it was not itself."""
    if cause is None:
        return "still running"
    if cause is Cause.LOST or (cause in (Cause.NOT_STARTED, Cause.ENGINE) and not status):
        return CAUSE_WORDS[cause]
    if cause is Cause.EXITED:
        return status_words(status)
    return f"{CAUSE_WORDS[cause]} · {status_words(status)}"
