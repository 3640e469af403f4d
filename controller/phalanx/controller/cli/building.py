"""From the words of ``phalanx build`` to a plan, and the plan carried out on this terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.controller.cli.selecting import put, refuse, style_for
from phalanx.controller.exits import Exit
from phalanx.controller.runs.words import Style

if TYPE_CHECKING:
    from phalanx.controller.builds.credentials import CredentialBook
    from phalanx.controller.builds.inputs import BuildInputs
    from phalanx.controller.builds.manifest import Built
    from phalanx.controller.builds.model import BuildPlan
    from phalanx.controller.builds.work import Told
    from phalanx.controller.plan.secrets import Secrets
    from phalanx.controller.workflow.manifest import Manifest

#: Seconds between two pictures of the live area.
PACE_S = 0.1


@dataclass(frozen=True, slots=True)
class PlannedBuild:
    """The plan of a build, what it was made from, and what no plan holds."""

    inputs: BuildInputs
    plan: BuildPlan
    secrets: Secrets

    @property
    def credentials(self) -> CredentialBook:
        """Those of the project and the environment."""
        return self.inputs.credentials


def planned_build(given: Mapping[str, Any]) -> PlannedBuild:
    """The plan of ``build``.

    Ends the command for input that cannot be used: exit 1 when nothing is chosen, else 4.
    """
    from phalanx.controller.builds.make import make_build_plan
    from phalanx.controller.cli.outputs import refuse_stream, refuse_unwritable
    from phalanx.controller.cli.run import time_hint
    from phalanx.controller.workflow.errors import DiscoveryError, InputError

    try:
        inputs = _gathered(given, os.environ)
        plan, secrets = make_build_plan(inputs)
    except DiscoveryError as error:
        refuse(str(error) + ("" if given["tags"] else time_hint(given)), Exit.FAILURE)
    except InputError as error:
        refuse(str(error), Exit.USAGE)
    refuse_stream(plan.manifest, "and runs begin from a manifest; name a file with -m")
    refuse_unwritable(
        plan.manifest, given["summary_output"], *(f"{plan.logs}/{one.log}" for one in plan.builds[:1])
    )
    return PlannedBuild(inputs, plan, secrets)


def _gathered(given: Mapping[str, Any], environ: Mapping[str, str]) -> BuildInputs:
    """The options and what the project's files say, as inputs of a plan. Raises InputError."""
    from phalanx.controller.builds.inputs import architectures, gathered_build, read_batch
    from phalanx.controller.plan.text import check_folder
    from phalanx.controller.workflow.context import load_context
    from phalanx.controller.workflow.errors import InputError
    from phalanx.controller.workflow.models import Chosen, chosen, project_folder

    check_folder(str(Path.cwd()))
    project = project_folder(environ)
    batch = read_batch(given["batch_manifest"]) if given["batch_manifest"] else ()
    if batch and given["tags"]:
        raise InputError(
            "cannot use --batch-manifest with --tags: the batch says which models; leave one out"
        )
    wanted = [line.model for line in batch if line.build_new] if batch else list(given["tags"])
    kept = [line.model for line in batch if not line.build_new]
    models = chosen(project, wanted) if wanted or not batch else Chosen(())
    return gathered_build(
        models.cards,
        load_context(
            given["additional_context"],
            given["additional_context_file"],
            environ=environ,
            unknown_keys=given["unknown_keys"],
        ),
        environ,
        others=chosen(project, kept).cards if kept else (),
        notes=models.notes,
        archs=architectures(given["target_archs"]),
        registry=given["registry"],
        batch=batch,
        use_image=given["use_image"],
        on_compute=given["on_compute"],
        fresh=given["fresh"],
        at_once=given["at_once"],
        manifest=given["manifest"],
    )


def built(build: PlannedBuild, given: Mapping[str, Any]) -> int:
    """Carry the plan out, write the manifest, say how it went; the exit code."""
    return made(build, given)[0]


def made(build: PlannedBuild, given: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The same, with the manifest's document."""
    from phalanx.controller.builds.manifest import manifest_document, summary, write_json
    from phalanx.controller.builds.words import ending
    from phalanx.controller.builds.work import failures
    from phalanx.controller.workflow.errors import InputError

    plan, style = build.plan, style_for(given["color"], sys.stderr)
    begun, ended = time.monotonic(), 0
    if plan.on_compute and plan.builds:
        from phalanx.controller.cli.compute_build import built_there

        outcomes, ended = built_there(build, given)
    else:
        outcomes = _built_here(build, given, style)
    took = time.monotonic() - begun
    document = manifest_document(plan, outcomes, took)
    try:
        write_json(Path(plan.manifest), document, plan.manifest)
        if given["summary_output"]:
            write_json(Path(given["summary_output"]), summary(plan, outcomes, took), given["summary_output"])
    except InputError as error:
        refuse(str(error), Exit.FAILURE)
    failed = bool(failures(outcomes) or plan.unbuilt)
    if failed or not given["quiet"]:
        for line in ending(plan, outcomes, took, style):
            sys.stderr.write(line + "\n")
    if given["as_json"]:
        put(json.dumps(summary(plan, outcomes, took), indent=2))
    return (ended or (Exit.BUILD if failed else Exit.OK)), document


def _built_here(build: PlannedBuild, given: Mapping[str, Any], style: Style) -> list[Built]:
    """Build with this machine's engine. Ends the command when that cannot begin."""
    from phalanx.controller.builds.client import BuildError
    from phalanx.controller.builds.stopping import Ended, ended_by_signals
    from phalanx.controller.builds.work import carry_out
    from phalanx.controller.workflow.errors import InputError

    async def until_told() -> list[Built]:
        with ended_by_signals():
            return await carry_out(build.plan, build.secrets, build.credentials, os.environ, tell)

    try:
        with _shown(build.plan, given, style) as tell:
            return asyncio.run(until_told())
    except Ended as ended:
        raise SystemExit(128 + ended.number) from None
    except BuildError as error:
        refuse(str(error), Exit.BUILD)
    except InputError as error:
        refuse(str(error), Exit.USAGE)


def built_for_run(
    build: PlannedBuild, given: Mapping[str, Any], unbuilt: Callable[[Mapping[str, Any]], object]
) -> tuple[Manifest, Mapping[str, Any]]:
    """Build what a run needs; the manifest and the build's summary.

    Ends the command when an image cannot be had, after ``unbuilt`` was told the summary: nothing is run.
    """
    from phalanx.controller.workflow.manifest import NAME, parse_manifest

    progress = "plain" if given["progress"] == "json" else given["progress"]
    quiet = {"summary_output": "", "live_output": given["verbose"], "as_json": False, "progress": progress}
    code, document = made(build, {**given, **quiet})
    if code:
        unbuilt(document["summary"])
        refuse(
            f"cannot run: not every image was built and pushed; run those that were with: phalanx run -m "
            f"{shlex.quote(build.plan.manifest)}",
            Exit.BUILD,
        )
    return parse_manifest(document, NAME), document["summary"]


@contextlib.contextmanager
def _shown(plan: BuildPlan, given: Mapping[str, Any], style: Style) -> Iterator[Any]:
    """What is told, on this terminal: a live area, plain lines, or nothing."""
    from phalanx.controller.builds.words import Progress, told_line
    from phalanx.controller.runs.live import resolved

    how = given["progress"]
    if given["quiet"] or how == "quiet":
        yield lambda told: None
        return
    area = _Area(Progress(plan), style, live=resolved(how) == "tty", whole=given["live_output"])

    def tell(told: Told) -> None:
        line = told_line(told, style)
        if told.what == "line" and given["live_output"]:
            line = f"{told.build.image}: {told.words}"
        area.take(told, line)

    try:
        yield tell
    finally:
        area.away()


class _Area:
    """Lines above, the picture of what goes on below them, redrawn ten times a second at most."""

    def __init__(self, progress: Any, style: Style, *, live: bool, whole: bool) -> None:
        self._progress, self._style, self._live, self._whole = progress, style, live, whole
        self._drawn, self._at = 0, 0.0

    def take(self, told: Told, line: str) -> None:
        self._progress.take(told)
        quiet = self._live and told.what in ("begun", "pushing") and not self._whole
        if line and not quiet:
            self._write(line)
        elif self._live and time.monotonic() - self._at > PACE_S:
            self._write("")

    def _write(self, line: str) -> None:
        self.away()
        if line:
            sys.stderr.write(line + "\n")
        if self._live:
            lines = self._progress.lines(self._style)
            sys.stderr.write("".join(one + "\n" for one in lines))
            self._drawn, self._at = len(lines), time.monotonic()
        sys.stderr.flush()

    def away(self) -> None:
        """The picture is taken off the screen (ECMA-48 CPL, ED)."""
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0
