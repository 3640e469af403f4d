"""The last screen of a run: what came out, or what failed first. Pure functions of view and evidence.

On failure the cause stands last, where the eye is: the echoes folded before it, then the first failure with
node, rank, cause in words and the end of that rank's output, its file, and the next command.
"""

from __future__ import annotations

from dataclasses import replace

from phalanx.controller.exits import Exit, code_words
from phalanx.controller.logs.clean import clean_text
from phalanx.controller.nodesets import counted, fold, fold_numbers
from phalanx.controller.runs.echoes import (
    IF_THEY_WAIT,
    deadline_of,
    followers,
    how_of,
    out_of_time,
    still_running,
    waited,
    where_of,
)
from phalanx.controller.runs.evidence import Evidence
from phalanx.controller.runs.model import Failure, Fault, RunView, TransferView
from phalanx.controller.runs.results_table import results_table
from phalanx.controller.runs.words import Style, duration, moment, number, plural, size

#: Groups of followers that are listed; more are counted.
GROUPS = 6
#: Missing nodes that are listed with their reason; more are folded.
MISSING = 16
SAID = 6


def ending(view: RunView, evidence: Evidence, style: Style, directory: str) -> list[str]:
    """The last screen. ``directory``: the run directory as a person would type it."""
    if view.state == "succeeded" and view.exit_code == 0:
        return success(view, evidence, style, directory)
    if view.state == "cancelled":
        return cancelled(view, evidence, style, directory)
    if view.exit_code == Exit.JOIN and view.missing:
        return join_failure(view, evidence, style)
    return failure(view, evidence, style, directory)


def success(view: RunView, evidence: Evidence, style: Style, directory: str) -> list[str]:
    """All went well: ranks, rows, where things are."""
    total = sum(case.ranks for case in view.cases.values())
    parts = [f"{number(total)}/{plural(total, 'rank')} ok"] if total else ["ok"]
    parts.append(duration(view.seconds(view.last_at or 0.0)))
    if view.rows:
        parts.append(plural(view.rows, "row"))
    lines = [f"  {style.mark('done')} " + f" {style.dot} ".join(parts)]
    lines += transfer_lines(view, style)
    lines += _case_table(view, style)
    lines += _loose_ends(view, evidence, style)
    return [*lines, f"  files  {directory}"]


def transfer_lines(view: RunView, style: Style) -> list[str]:
    """How images that had to travel did so."""
    names = len(view.images) > 1
    return [
        _transfer_line(f"{clean_text(image.reference)}  " if names else "", image.transfer, style)
        for image in view.images
        if image.transfer is not None and image.transfer.seconds
    ]


def _transfer_line(name: str, moved: TransferView, style: Style) -> str:
    parts = [
        f"{size(moved.read_bytes)} to {plural(moved.nodes, 'node')} in {duration(moved.seconds)}",
        f"in their engines after {duration(moved.ready_s)}",
        f"{size(moved.read_bytes / moved.seconds)}/s in all",
        f"source sent {size(moved.sent_bytes or moved.source_bytes)}",
        f"{size(moved.saved_bytes)} saved",
        f"slowest {clean_text(moved.slowest)}",
    ]
    return f"  image  {name}{f' {style.dot} '.join(parts)}"


def cancelled(view: RunView, evidence: Evidence, style: Style, directory: str) -> list[str]:
    """Someone asked for the end and got it."""
    by = clean_text(view.cancels[-1][1]) if view.cancels else ""
    words = f"cancelled after {duration(view.seconds(view.last_at or 0.0))}" + (f" by {by}" if by else "")
    lines = [f"  {style.mark('failed')} {words}", *_follower_lines(view), *_case_table(view, style)]
    lines += _loose_ends(view, evidence, style)
    return [*lines, f"  files  {directory}", f"exit {view.exit_code}"]


def join_failure(view: RunView, evidence: Evidence, style: Style) -> list[str]:
    """Which nodes are missing, each with the reason as far as it is known."""
    took = duration(view.phases["agents"].seconds(view.finished_at or view.last_at or 0.0))
    missing = {clean_text(node): clean_text(reason) for node, reason in view.missing.items()}
    joined = view.expected - len(missing)
    head = f"{view.joined or joined}/{view.expected} joined in {took} {style.dash} missing {counted(missing)}"
    lines = [f"  {style.mark('failed')} agents       {head}"]
    by_reason: dict[str, list[str]] = {}
    for node, reason in missing.items():
        by_reason.setdefault(reason or "no word from it", []).append(node)
    for reason, nodes in list(by_reason.items())[:MISSING]:
        lines.append(f"     {fold(nodes)}   {reason}")
    if len(by_reason) > MISSING:
        lines.append(
            f"     … and {len(by_reason) - MISSING} more reasons: phalanx status {view.run_id} --json"
        )
    lines += _spawner_lines(view, set(view.missing))
    lines += _loose_ends(view, evidence, style)
    if joined > 0:
        lines.append(f"  Continue with {joined}?  --min-nodes {joined}      Exclude: -x {fold(missing)}")
    lines.append(f"exit {view.exit_code}")
    return lines


def _spawner_lines(view: RunView, missing: set[str]) -> list[str]:
    """The spawner's own words about what is missing, when the reasons do not hold them yet."""
    known = " ".join(view.missing.values())
    said = [clean_text(text) for node, text in view.spawner_said if node in missing or not node]
    fresh = [text for text in dict.fromkeys(said) if text and text not in known]
    return [f"     said: {text}" for text in fresh[-SAID:]]


def failure(view: RunView, evidence: Evidence, style: Style, directory: str) -> list[str]:
    """Echoes first, the first failure last."""
    lines = [f"  {style.mark('failed')} {_headline(view)}"]
    lines += _follower_lines(view)
    lines += _case_table(view, style)
    lines += _loose_ends(view, evidence, style)
    lines.append("")
    lines += _first(view, evidence, style)
    lines += _next(view, evidence, directory)
    words = _exit_words(view)
    lines.append(f"exit {view.exit_code}" + (f"  ({words})" if words else ""))
    return lines


def _exit_words(view: RunView) -> str:
    """What the exit code means. A rank's own small code has the rank's meaning, not ours."""
    code = view.exit_code or 0
    of_rank = view.failure is not None and view.failure.fault in (Fault.RANK, Fault.NODE)
    return "" if of_rank and code != Exit.RUN and code < Exit.TIMEOUT else code_words(code)


def _headline(view: RunView) -> str:
    text = f"failed after {duration(view.seconds(view.last_at or 0.0))}"
    if any(out_of_time(view)):
        return f"{text}: no rank failed, {waited(view)} ran until the deadline"
    echoes = sum(group.count for group in followers(view))
    if view.failure is not None and view.failure.fault is Fault.RANK and echoes:
        text += f": 1 rank failed first, {plural(echoes, 'other')} followed"
    return text


def _follower_lines(view: RunView) -> list[str]:
    lines = []
    groups = followers(view)
    for group in groups[:GROUPS]:
        noun = "rank" if len(group.ranks) == 1 else "ranks"
        ranks = f" {noun} {fold_numbers(group.ranks)}" if group.ranks else ""
        where = counted(clean_text(node) for node in group.nodes)
        lines.append(f"     {where}{ranks}   {group.words}")
    if len(groups) > GROUPS:
        lines.append(f"     … and {len(groups) - GROUPS} more kinds of end")
    return lines


def _case_table(view: RunView, style: Style) -> list[str]:
    """The rows, then why cases that failed did, when there is more than one."""
    lines = results_table(view)
    if len(view.case_names) > 1:
        lines += [
            f"     {style.mark('failed')} {clean_text(case.name)}: {clean_text(case.reason)}"
            for case in view.cases.values()
            if case.reason and case.status not in ("SUCCESS", "SKIPPED")
        ]
    return lines


def _loose_ends(view: RunView, evidence: Evidence, style: Style) -> list[str]:
    """What is left over, what was not written, what is missing in a log: never passed over in silence."""
    lines = []
    if view.leftovers:
        left = "; ".join(clean_text(words) for words in view.leftovers[:4])
        lines.append(f"  {style.mark('warn')} left over    {left}")
    for case in view.cases.values():
        if case.error:
            lines.append(
                f"  {style.mark('warn')} rows         {clean_text(case.name)}: {clean_text(case.error)}"
            )
        if case.left_out:
            some = "; ".join(clean_text(words) for words in case.left_out[:3])
            lines.append(f"  {style.mark('warn')} left out     {some}")
    if view.log_gaps:
        total = sum(view.log_gaps.values())
        where = next(iter(view.log_gaps))
        lines.append(
            f"  {style.mark('warn')} logs         {number(total)} bytes never came (first in {where})"
        )
    if evidence.history:
        lines.append(f"  {style.mark('warn')} history      {clean_text(evidence.history)}")
    return lines


def _first(view: RunView, evidence: Evidence, style: Style) -> list[str]:
    if view.failure is None:
        return [f"  {clean_text(view.reason) or 'the run failed'}"]
    first = _cleaned(view.failure)
    place = where_of(first, with_case=view.parallel > 1)
    together = any(out_of_time(view))
    what, where = ("Deadline", still_running(view, first)) if together else ("First failure", place)
    heading = f"  {what} {style.dash} {where} at {moment(first.at, millis=True)}"
    lines = [style.paint(heading, "1")]
    lines += _together_lines(first, place) if together else [f"  {how_of(first)}"]
    if evidence.lines:
        lines += [f"  {style.bar} {line}" for line in evidence.lines]
        shown = len(evidence.lines)
        total = f"last {shown} of {number(evidence.total)} lines" if evidence.total > shown else "all of it"
        lines.append(f"  {style.bar} ({total}: {evidence.path})")
    if evidence.diagnostics:
        others = "; every node wrote its own" if together else ""
        lines.append(
            f"  {style.bar} (processes, sockets and memory of the node: {evidence.diagnostics}{others})"
        )
    return lines


def _together_lines(first: Failure, place: str) -> list[str]:
    return [f"  {deadline_of(first)}", f"  {IF_THEY_WAIT}", f"  the end of what {place} said:"]


def _cleaned(failure: Failure) -> Failure:
    """A failure whose texts may go to a terminal."""
    return replace(
        failure,
        detail=clean_text(failure.detail),
        node=clean_text(failure.node),
        case=clean_text(failure.case),
        step=clean_text(failure.step),
    )


def _next(view: RunView, evidence: Evidence, directory: str) -> list[str]:
    if view.failure is None:
        return [f"  next   less {directory}/logs/controller.log"]
    first = _cleaned(view.failure)
    if any(out_of_time(view)):
        return [f"  next   phalanx logs {view.run_id}"]
    if first.fault is Fault.RANK and first.rank >= 0:
        case = f" --case {first.case}" if len(view.case_names) > 1 else ""
        return [f"  next   phalanx logs {view.run_id}{case} --rank {first.rank}"]
    if first.fault in (Fault.RANK, Fault.NODE) and evidence.lines:
        return [f"  next   phalanx logs {view.run_id} -w {first.node}"]
    if first.fault in (Fault.IMAGE, Fault.NODE) or (first.fault is Fault.CASE and not first.case):
        return [f"  next   phalanx nodes {view.run_id}"]
    if first.fault is Fault.CASE:
        return [f"  next   phalanx logs {view.run_id}"]
    return [f"  next   phalanx status {view.run_id}"]
