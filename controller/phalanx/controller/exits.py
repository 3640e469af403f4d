"""Exit codes are an interface: scripts and CI act on them, so each is defined here and nowhere else.

0-4 are madengine's published table; 75 is EX_TEMPFAIL of sysexits.h; 124 is that of timeout(1); 125-127 are
those of ``docker run``; 128+n is what shells and srun give for signal n. The exit code of a run comes from
``run.finished`` in its event log: whatever a client of the run loses, it never invents one.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from phalanx.protocol.messages import Cause


class Exit(IntEnum):
    """How a ``phalanx`` command ends."""

    OK = 0
    FAILURE = 1
    BUILD = 2
    RUN = 3
    USAGE = 4
    VALIDATION = 5
    WARNINGS = 6
    REGRESSION = 7
    JOIN = 8
    IMAGE = 9
    SCHEDULER = 10
    LOST_CONTACT = 75
    TIMEOUT = 124
    LAUNCH = 125
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130
    OUT_OF_MEMORY = 253


MEANINGS: dict[Exit, str] = {
    Exit.OK: "success: all nodes, all ranks, all rows",
    Exit.FAILURE: "a failure that has no code of its own",
    Exit.BUILD: "an image could not be built",
    Exit.RUN: "one or more models or ranks failed",
    Exit.USAGE: "bad arguments or configuration; nothing was touched",
    Exit.VALIDATION: "validation found failing nodes or checks",
    Exit.WARNINGS: "finished with warnings, and --strict was given",
    Exit.REGRESSION: "slower than the baseline allows",
    Exit.JOIN: "not all nodes joined",
    Exit.IMAGE: "an image or file could not be brought to every node",
    Exit.SCHEDULER: "the scheduler refused, cancelled or took back the nodes",
    Exit.LOST_CONTACT: "contact with a run was lost; it may still be going",
    Exit.TIMEOUT: "a deadline passed",
    Exit.LAUNCH: "the process of a rank could not be started, or was lost with its engine",
    Exit.NOT_EXECUTABLE: "the command is there but cannot be executed",
    Exit.NOT_FOUND: "the command was not found on the node",
    Exit.INTERRUPTED: "left with Ctrl-C, or cancelled",
    Exit.OUT_OF_MEMORY: "the highest rank code is an out-of-memory kill (as srun has it)",
}

#: Exit statuses above this are 128+n for signal n.
SIGNAL_BASE = 128
Policy = Literal["workflow", "first", "max", "any"]


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank ended, in the order in which the ends became known."""

    status: int
    cause: Cause


@cache
def _code_of_cause() -> dict[Cause, Exit]:
    """Made when first needed: every verb has exit codes, and messages take 50 ms to import."""
    from phalanx.protocol.messages import Cause

    return {
        Cause.OOM: Exit.OUT_OF_MEMORY,
        Cause.DEADLINE: Exit.TIMEOUT,
        Cause.NOT_STARTED: Exit.LAUNCH,
        Cause.ENGINE: Exit.LAUNCH,
        Cause.LOST: Exit.RUN,
    }


def rank_code(end: RankEnd) -> int:
    """The code that one rank contributes; 0 when it succeeded.

    A rank that could not be started keeps 126 and 127 of the shell; an out-of-memory kill is 253, as in srun.
    """
    from phalanx.protocol.messages import Cause

    if end.cause is Cause.NOT_STARTED and end.status in (Exit.NOT_EXECUTABLE, Exit.NOT_FOUND):
        return end.status
    fixed = _code_of_cause().get(end.cause)
    if fixed is not None:
        return fixed
    return end.status & 0xFF


def of_ranks(ends: Sequence[RankEnd], policy: Policy) -> int:
    """The exit code of a run of which only its ranks can be at fault.

    ``workflow``: 0 or 3. ``first``: that of the first failure. ``max``: the highest (srun's rule).
    ``any``: 1 when any failed. Ranks that phalanx stopped are no failures of their own, unless there is
    nothing else.
    """
    from phalanx.protocol.messages import Cause

    failed = [code for end in ends if end.cause is not Cause.STOPPED and (code := rank_code(end))]
    if not failed:
        stopped = [end.status for end in ends if end.cause is Cause.STOPPED]
        if not stopped:
            return Exit.OK
        failed = [max(stopped) or Exit.FAILURE]
    if policy == "workflow":
        return Exit.RUN
    if policy == "first":
        return failed[0]
    if policy == "any":
        return Exit.FAILURE
    return max(failed)


def status_words(status: int) -> str:
    """An exit status in words: ``exit 7``, ``exit 139 (SIGSEGV: Segmentation fault)``."""
    if status == Exit.NOT_FOUND:
        return "exit 127 (command not found)"
    if status == Exit.NOT_EXECUTABLE:
        return "exit 126 (not executable)"
    if status > SIGNAL_BASE:
        try:
            number = signal.Signals(status - SIGNAL_BASE)
        except ValueError:
            return f"exit {status}"
        return f"exit {status} ({number.name}: {signal.strsignal(number)})"
    return f"exit {status}"


def code_words(code: int) -> str:
    """What an exit code of phalanx means, "" for one that only a rank can have given."""
    try:
        return MEANINGS[Exit(code)]
    except ValueError:
        return ""
