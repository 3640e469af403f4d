"""A build in words: the plan of ``--dry-run``, what happens, how it ended. Values stand with their origin."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ..logs.clean import clean_text
from ..plan.secrets import MASK
from ..runs.words import Style, clip, duration, plural, short_image
from .argv import Builder, shown_command
from .manifest import Built
from .model import BuildPlan, ImageBuild
from .work import Told, failures

#: The client that a plan assumes: one that can do everything.
ASSUMED = Builder("?", buildkit=True, named_contexts=True)
#: Builds of the live area, at most; its lines, one more.
AREA = 10
LABEL = 11


def plan_lines(plan: BuildPlan) -> list[str]:
    """The plan for people."""
    jobs = plan.jobs()
    counted = f"{plural(len(plan.builds), 'image')} from {plural(len(jobs), 'build')}"
    lines = [f"plan  build · {counted} · nothing will be started", ""]
    here = f"this machine's engine, {plan.at_once} at a time"
    where = "one compute node, by its agent, one after another" if plan.on_compute else here
    lines.append(_line("builder", where + (", no cached layers" if plan.fresh else "")))
    if plan.registry:
        lines.append(_line("registry", f"{plan.registry}   --registry"))
    for builds in jobs:
        lines += ["", *_build(plan, builds)]
    for given in plan.given:
        lines += ["", f"given  {given.image}", _line("model", given.model)]
    for one in plan.unbuilt:
        lines += ["", f"  ! {one.error}"]
    lines += ["", _line("writes", plan.manifest)]
    lines += [_line("", f"{plan.logs}/{build.log}") for build in plan.builds]
    lines += [f"  ! {warning}" for warning in plan.warnings]
    if plan.builds:
        lines += ["", "  ? the engine and its client are not asked: BuildKit and named contexts are assumed"]
    return [_safe(line) for line in lines]


def plan_document(plan: BuildPlan) -> dict[str, Any]:
    """The same as data."""
    return {"schema": 1, "kind": "build", **dataclasses.asdict(plan)}


def _build(plan: BuildPlan, builds: Sequence[ImageBuild]) -> Iterator[str]:
    first = builds[0]
    yield f"image  {first.image}"
    yield from (f"       {build.image}   the same build" for build in builds[1:])
    yield _line("models", ", ".join(dict.fromkeys(build.model for build in builds)))
    yield _line("dockerfile", f"{first.dockerfile}   in {first.folder}")
    if first.bases:
        yield _line("from", ", ".join(first.bases))
    for arg in first.args:
        yield _line("arg", f"{arg.name}={MASK if arg.secret else arg.value}   {arg.origin}")
    for name in first.mounts:
        yield _line("secret", f"{name}={MASK}   mounted")
    if first.gpu_vendor or first.gpu_architecture:
        yield _line("gpus", f"{first.gpu_vendor} {first.gpu_architecture}".strip())
    yield from (_line("pushed", build.pushed) for build in builds if build.pushed)
    yield _line("command", shown_command(ASSUMED, builds, fresh=plan.fresh, pull=True, tools=plan.has_tools))


def _line(label: str, value: str) -> str:
    return f"  {label:<{LABEL}} {value}".rstrip()


def _safe(line: str) -> str:
    # The indentation is ours; control characters are not.
    return line[: len(line) - len(line.lstrip())] + clean_text(line.replace("\n", "⏎"))


class Progress:
    """What is going on in a build, folded from what is told."""

    def __init__(self, plan: BuildPlan) -> None:
        self.total = len(plan.builds)
        self.done = self.failed = 0
        self.running: dict[str, str] = {}

    def take(self, told: Told) -> None:
        """One more thing that was told."""
        image = told.build.image
        if told.what == "done":
            self.running.pop(image, None)
            self.done += 1
            self.failed += bool(told.built and (told.built.error or told.built.push_error))
        elif told.what != "line" or told.words:
            self.running[image] = told.words or self.running.get(image, "")

    def lines(self, style: Style) -> list[str]:
        """The live area."""
        failed = f", {self.failed} failed" if self.failed else ""
        lines = [f"build {self.done}/{self.total} done{failed}"]
        for image, words in list(self.running.items())[:AREA]:
            lines.append(clip(f"  {style.mark('active')} {image}  {words}", style.width))
        return lines


def told_line(told: Told, style: Style) -> str:
    """A line for something that happened, "" for what is not worth one."""
    if told.what == "begun":
        return f"building {told.build.image} from {told.build.dockerfile}"
    if told.what == "pushing":
        return f"pushing {told.words}"
    return outcome_line(told.built, style) if told.built else ""


def outcome_line(one: Built, style: Style) -> str:
    """How one image became."""
    took = duration(one.duration_s)
    if one.error:
        return f"{style.mark('failed')} {one.build.image}  {_safe(one.error)}"
    if one.push_error:
        why = _safe(f"cannot push {one.build.pushed}: {one.push_error}")
        return f"{style.mark('failed')} {one.build.image}  built in {took}; {why}"
    pushed = f"  pushed as {one.build.pushed}" if one.build.pushed else ""
    return f"{style.mark('done')} {one.build.image}  {took}  {short_image(one.image_id)}{pushed}"


def ending(plan: BuildPlan, outcomes: Sequence[Built], total_s: float, style: Style) -> list[str]:
    """The last lines: what failed, and what there is now."""
    bad = failures(outcomes)
    lines = [outcome_line(one, style) for one in bad]
    lines += [f"{style.mark('failed')} {_safe(one.model)}  {_safe(one.error)}" for one in plan.unbuilt]
    failed = len(bad) + len(plan.unbuilt)
    good = len(outcomes) - len(bad) + len(plan.given)
    counted = f"{plural(good, 'image')} ready" + (f", {failed} failed" if failed else "")
    lines.append(f"{counted} {style.dot} {duration(total_s)} {style.dot} {plan.manifest}")
    return lines
