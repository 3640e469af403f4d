"""What went wrong in a run, for its page: the first failure, the echoes, and each case that failed.

Reads the ends of log files, never more than a page of each; how many there are is limited as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.echoes import (
    IF_THEY_WAIT,
    deadline_of,
    end_words,
    followers,
    how_of,
    out_of_time,
    still_running,
    where_of,
)
from phalanx.controller.runs.evidence import Evidence, of_failure
from phalanx.controller.runs.model import CaseView, Failure, Followers, RunView, failure_of
from phalanx.protocol.messages import Cause

#: Lines of the log of the first failure, and of any other.
FIRST_LINES, OTHER_LINES = 80, 30
#: Cases and kinds of echoes that are shown with the end of a log; more are named.
MOST_CASES, MOST_ECHOES = 12, 8


@dataclass(frozen=True, slots=True)
class Told:
    """A failure in words: where, how, and the end of the log that tells why."""

    failure: Failure
    where: str
    how: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class FailedCase:
    """A case that did not end well. ``told`` is None for one without a failed rank, or beyond the limit."""

    name: str
    status: str
    reason: str
    told: Told | None


@dataclass(frozen=True, slots=True)
class Echo:
    """Ranks that ended badly alike after the first failure, and the end of the log of one of them."""

    group: Followers
    evidence: Evidence
    of: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """Ranks that ran until a deadline: ``met`` says which, ``how`` which deadline, ``hint`` what to ask."""

    met: str
    how: str
    hint: str


@dataclass(frozen=True, slots=True)
class Failures:
    """All that went wrong. ``more_echoes``: beyond the limits of a page.

    ``deadline`` is None, or what ran until it when no rank failed by itself: ``first`` is then one of many
    alike, and ``echoes`` are all of them.
    """

    first: Told | None = None
    deadline: Deadline | None = None
    cases: tuple[FailedCase, ...] = ()
    echoes: tuple[Echo, ...] = ()
    more_echoes: int = 0


def failures(run: RunDirectory, view: RunView) -> Failures:
    """Gather the failures of a run from its view and its logs."""
    first = view.failure
    groups = followers(view)
    return Failures(
        first=None if first is None else _told(run, view, first, FIRST_LINES),
        deadline=None if first is None else _deadline(view, first),
        cases=tuple(_cases(run, view)),
        echoes=tuple(_echo(run, view, group) for group in groups[:MOST_ECHOES]),
        more_echoes=max(0, len(groups) - MOST_ECHOES),
    )


def _told(run: RunDirectory, view: RunView, failure: Failure, lines: int) -> Told:
    return Told(failure, where_of(failure), how_of(failure), of_failure(run, view, failure, lines))


def _deadline(view: RunView, first: Failure) -> Deadline | None:
    if not any(out_of_time(view)):
        return None
    return Deadline(still_running(view, first), deadline_of(first), IF_THEY_WAIT)


def _cases(run: RunDirectory, view: RunView) -> list[FailedCase]:
    """Cases that did not end well, in their order; that of the first failure is told elsewhere."""
    first = view.failure.case if view.failure is not None else ""
    bad = [
        case
        for case in view.cases.values()
        if case.status not in ("", "SUCCESS", "SKIPPED") and case.name != first
    ]
    told = 0
    found = []
    for case in bad if len(view.case_names) > 1 else ():
        failure = None if told >= MOST_CASES else _first_of(view, case)
        told += failure is not None
        found.append(
            FailedCase(
                case.name,
                case.status,
                case.reason,
                None if failure is None else _told(run, view, failure, OTHER_LINES),
            )
        )
    return found


def _first_of(view: RunView, case: CaseView) -> Failure | None:
    """The rank of a case that failed first by itself."""
    failed = [
        rank
        for rank in view.ranks.values()
        if rank.case == case.name and rank.failed and rank.cause is not Cause.STOPPED
    ]
    if not failed:
        return None
    rank = min(failed, key=lambda rank: rank.ended or 0.0)
    return failure_of(rank, case.local(rank.rank))


def _echo(run: RunDirectory, view: RunView, group: Followers) -> Echo:
    """A group with the log of its first member."""
    member = next(
        (
            rank
            for rank in view.ranks.values()
            if rank.node in group.nodes[:1]
            and rank.failed
            and end_words(rank.status, rank.cause) == group.words
        ),
        None,
    )
    if member is None:
        return Echo(group, Evidence(), "")
    failure = failure_of(member, view.case(member.case).local(member.rank))
    return Echo(group, of_failure(run, view, failure, OTHER_LINES), where_of(failure))
