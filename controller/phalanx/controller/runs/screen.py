"""The live picture of a run as lines of text: pure functions of its view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from phalanx.controller.logs.clean import clean_text
from phalanx.controller.nodesets import counted, fold, fold_numbers
from phalanx.controller.runs.model import PHASES, CaseView, Mark, NodeView, PhaseView, RunView
from phalanx.controller.runs.words import Style, clip, clock, duration, number, plural, short_image, size
from phalanx.protocol.messages import Cause

#: Lines of the live area, at most, and of them those of cases that run at once.
AREA = 12
AREA_OF_CASES = 4


@dataclass(slots=True)
class Passing:
    """What is shown while it lasts and never recorded: progress by phase and node, and a word to the user."""

    progress: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    note: str = ""


def title(view: RunView, now: float, style: Style) -> str:
    """Head line: id, where, how large, how long."""
    parts = [f"run {view.run_id}"]
    if view.target:
        parts.append(f"slurm job {view.job_id}" if view.job_id else view.target)
    case = view.current()
    if case is not None and case.ranks and case.nodes:
        parts.append(f"{plural(len(case.nodes), 'node')} × {plural(case.ranks_per_node, 'rank')}")
    elif view.expected:
        parts.append(plural(view.expected, "node"))
    return f" {style.dot} ".join(parts) + f"   {clock(view.seconds(now))}"


def progress(view: RunView, now: float, style: Style, passing: Passing | None = None) -> list[str]:
    """The live area: title, one line per phase that has begun, nodes in trouble, the last notice."""
    passing = passing or Passing()
    lines = [title(view, now, style), ""]
    for name in PHASES:
        phase = view.phases[name]
        if phase.mark is not Mark.WAITING:
            lines.append(phase_line(view, name, now, style, passing.progress.get(name)))
        if name == "run" and view.parallel > 1:
            lines += case_lines(view, now, style)
    lines += trouble_lines(view, style)
    if view.state == "ending":
        lines.append(f"  {style.mark('active')} ending       {clean_text(view.ending)}")
    if passing.note:
        lines.append(f"  {style.mark('warn')} {passing.note}")
    return [clip(line, style.width) for line in lines[:AREA]]


def phase_line(
    view: RunView, name: str, now: float, style: Style, done: Mapping[str, tuple[int, int]] | None = None
) -> str:
    """One phase: its sign, its name, what is known of it, how long it takes."""
    phase = view.phases[name]
    text = _PHASE_WORDS[name](view, style, done or {})
    took = _took(phase, now)
    return f"  {style.mark(phase.mark.value)} {name:<12} {text}   {style.paint(took, '2')}".rstrip()


def _took(phase: PhaseView, now: float) -> str:
    return duration(phase.seconds(now)) if phase.began is not None else ""


def _allocation(view: RunView, style: Style, done: Mapping[str, tuple[int, int]]) -> str:
    if view.phases["allocation"].mark is Mark.ACTIVE:
        return f"waiting for {plural(view.expected, 'node')}"
    nodes = sorted(view.nodes.values(), key=lambda node: node.node_rank)
    where = counted(clean_text(node.name) for node in nodes if node.node_rank >= 0)
    return f"job {view.job_id}  {where}" if view.job_id else where


def _agents(view: RunView, style: Style, done: Mapping[str, tuple[int, int]]) -> str:
    text = f"{view.joined}/{view.expected} joined"
    late = [node.name for node in view.nodes.values() if node.joined_at is None]
    if view.phases["agents"].mark is Mark.ACTIVE and late and view.joined:
        text += f"  waiting for {counted(late)}"
    return text


def _image(view: RunView, style: Style, done: Mapping[str, tuple[int, int]]) -> str:
    text = clean_text(view.image.reference)
    if view.image.id:
        text += f" {short_image(view.image.id)}"
    if view.image.size:
        text += f"  {size(view.image.size)}"
    if view.image.case:
        text += f"  for {clean_text(view.image.case)}"
    # Before it is known where it comes from, what is done is of an image that a person asked for.
    if view.phases["image"].mark is Mark.ACTIVE and view.image.source:
        have, total = (sum(pair[i] for pair in done.values()) for i in (0, 1))
        if total:
            text += f"  {100 * have // total} % of {size(total)}"
    if view.expected:
        ready = (
            view.expected
            if view.phases["image"].mark is Mark.DONE
            else len(view.image.ready | view.image.had)
        )
        text += f"  {ready}/{view.expected}"
    return text


def case_lines(view: RunView, now: float, style: Style) -> list[str]:
    """The cases that run at once, a line for each as far as there is room."""
    running = view.running()
    room = AREA_OF_CASES if len(running) <= AREA_OF_CASES else AREA_OF_CASES - 1
    lines = []
    for case in running[:room]:
        took = style.paint(duration(max(0.0, now - (case.began or now))), "2")
        lines.append(f"      {clean_text(case.name)}  {rank_counts(view, case)}{_on_gpus(case)}   {took}")
    more = len(running) - room
    return [*lines, f"      and {more} more"] if more > 0 else lines


def _on_gpus(case: CaseView) -> str:
    return f", GPU {fold_numbers(case.gpus)}" if case.gpus else ""


def case_counts(view: RunView) -> str:
    """How the cases of a run stand, of which several run at once: ``2 cases running, 1/6 over``."""
    over = [case for case in view.cases.values() if case.status]
    bad = sum(1 for case in over if case.status not in ("SUCCESS", "SKIPPED"))
    text = f"{plural(len(view.running()), 'case')} running, {number(len(over))}/{len(view.case_names)} over"
    return text + (f", {number(bad)} not well" if bad else "")


def _run(view: RunView, style: Style, done: Mapping[str, tuple[int, int]]) -> str:
    case = view.current()
    if case is None:
        return ""
    if view.parallel > 1:
        return case_counts(view)
    parts = []
    if len(view.case_names) > 1:
        place = list(view.cases).index(case.name) + 1
        parts.append(f"case {place}/{len(view.case_names)} {clean_text(case.name)}")
    parts.append(rank_counts(view, case))
    metric = next(reversed(view.metrics.items()), None)
    if metric is not None:
        name, (rank, value, unit) = metric
        parts.append(f"{clean_text(name)} {value:g} {clean_text(unit)}".rstrip() + f" (rank {rank})")
    return f" {style.dot} ".join(part for part in parts if part)


def rank_counts(view: RunView, case: CaseView) -> str:
    """How the ranks of the current step stand: ``8 ranks running``, ``6/8 ranks ok, 2 failed``."""
    ranks = view.of_step(case.name, case.step) if case.step else []
    if not ranks:
        return f"{plural(case.ranks, 'rank')} starting"
    per_node = all(rank.rank < 0 for rank in ranks)
    noun = "node" if per_node else "rank"
    total = max(len(ranks), len(case.nodes) if per_node else case.ranks)
    step = "" if case.step == "main" else f"{clean_text(case.step)}: "
    over = [rank for rank in ranks if rank.cause is not None]
    if not over:
        return f"{step}{plural(len(ranks), noun)} running"
    stopped = sum(1 for rank in over if rank.cause is Cause.STOPPED)
    failed = sum(1 for rank in over if rank.failed) - stopped
    rest = {"failed": failed, "stopped": stopped, "running": len(ranks) - len(over)}
    text = f"{step}{number(len(over) - failed - stopped)}/{plural(total, noun)} ok"
    return text + "".join(f", {number(count)} {word}" for word, count in rest.items() if count)


def _results(view: RunView, style: Style, done: Mapping[str, tuple[int, int]]) -> str:
    parts = [f"{plural(view.files, 'file')}, {size(view.file_bytes)}"] if view.files else []
    if view.rows:
        parts.append(plural(view.rows, "row"))
    elif view.phases["results"].mark is Mark.ACTIVE and not parts:
        parts.append("collecting")
    return f" {style.dot} ".join(parts)


_PHASE_WORDS = {
    "allocation": _allocation,
    "agents": _agents,
    "image": _image,
    "run": _run,
    "results": _results,
}

_TROUBLE = {
    "silent": "not heard from",
    "lost": "lost",
    "draining": "being taken away",
    "missing": "did not join",
}


def trouble_lines(view: RunView, style: Style) -> list[str]:
    """Nodes that are not well, those alike together."""
    groups: dict[str, list[NodeView]] = {}
    for node in view.nodes.values():
        if node.state in _TROUBLE:
            groups.setdefault(node.state, []).append(node)
    lines = []
    for state, nodes in groups.items():
        detail = clean_text(nodes[0].detail) if len(nodes) == 1 else ""
        where = counted(clean_text(node.name) for node in nodes)
        line = f"  {style.mark('warn')} {_TROUBLE[state]:<12} {where}   {detail}"
        lines.append(line.rstrip())
    return lines


def outstanding(view: RunView) -> str:
    """What still runs, in words: for the answer to Ctrl-C."""
    running = [rank for rank in view.ranks.values() if rank.began is not None and rank.cause is None]
    if not running:
        return "nothing of the workload runs"
    nodes = dict.fromkeys(clean_text(rank.node) for rank in running)
    noun = "process" if len(running) == 1 else "processes"
    return f"{number(len(running))} {noun} on {fold(nodes)}"
