"""``phalanx build --build-on-compute``: the build as a run of one node, and what it leaves as a manifest."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from phalanx.controller.builds.compute import (
    compute_plan,
    ids_kept,
    outcomes,
    secrets_of,
    step_order,
    tools_image,
)
from phalanx.controller.builds.model import BuildPlan, ImageBuild
from phalanx.controller.builds.staging import stage
from phalanx.controller.builds.stopping import ENDING
from phalanx.controller.cli.attending import Showing, attend, log_tail, user
from phalanx.controller.cli.planning import slurm_options
from phalanx.controller.cli.run import started
from phalanx.controller.cli.selecting import refuse
from phalanx.controller.exits import Exit
from phalanx.controller.logs.sources import aside, find, parse
from phalanx.controller.plan.inputs import RunInputs
from phalanx.controller.runs.attend import Manners
from phalanx.controller.runs.directory import RunDirectory, new_run_id
from phalanx.controller.runs.model import RunView
from phalanx.controller.runs.records import read_all
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.models import SelectedModel

if TYPE_CHECKING:
    from phalanx.controller.builds.manifest import Built
    from phalanx.controller.cli.building import PlannedBuild
    from phalanx.controller.plan.model import Plan

#: How long a controller that does not answer is tried again, in seconds.
RECONNECT_S = 10.0
#: What of a run's exit code says that the build itself was not the reason.
_NOT_THE_BUILD = (Exit.OK, Exit.RUN)


def run_plan(
    build: PlannedBuild, given: Mapping[str, Any], folder: str = "?"
) -> tuple[Plan, dict[str, ImageBuild]]:
    """The run that carries the build out. Ends the command for input that cannot be used."""
    try:
        login = build.credentials.login(build.plan.registry) if build.plan.registry else None
        return compute_plan(_inputs(build, given), build.plan, build.secrets, login, folder)
    except InputError as error:
        refuse(str(error), Exit.USAGE)


def built_there(build: PlannedBuild, given: Mapping[str, Any]) -> tuple[list[Built], int]:
    """Build on the node: what became of every image, and the run's code when it was no build that failed."""
    with _folder() as folder:
        plan, first = run_plan(build, given, str(folder))
        login = build.credentials.login(build.plan.registry) if build.plan.registry else None
        try:
            stage(build.plan, folder, tools_image(plan.run_id))
        except InputError as error:
            refuse(str(error), Exit.USAGE)
        run = started(plan, secrets_of(build.secrets, login))
        code = _attended(run, given)
    records = list(read_all(run.events))
    ids = {case: found for case, kept in ids_kept(records).items() if (found := _id_in(run.path / kept))}
    made = outcomes(build.plan, first, records, ids)
    _keep_logs(build.plan, run, first, made)
    return made, 0 if code in _NOT_THE_BUILD else code


def _inputs(build: PlannedBuild, given: Mapping[str, Any]) -> RunInputs:
    """One node, of the allocation that the options, the context or the first card ask for."""
    inputs = build.inputs
    return RunInputs(
        run_id=new_run_id("build"),
        cwd=str(Path.cwd()),
        argv=("phalanx", *sys.argv[1:]),
        environ=dict(os.environ),
        models=tuple(SelectedModel(card, "", ()) for card in inputs.cards),
        context=inputs.context,
        name="build",
        target=given["target"] or "slurm",
        nodes=1,
        slurm=slurm_options(given),
        join_timeout=given["join_timeout"],
        advertise=given["advertise"],
        agent_python=given["agent_python"],
    )


def _attended(run: RunDirectory, given: Mapping[str, Any]) -> int:
    """Stay with the run; what the builder says is shown with ``--live-output`` only."""
    view = RunView(run_id=run.run_id)
    progress = "quiet" if given["quiet"] else given["progress"]
    showing = Showing(progress=progress, color=given["color"], prefix="none")
    logs = log_tail(run, view, showing) if given["live_output"] else None
    return attend(run, showing, Manners(True, RECONNECT_S, user()), logs, view)


@contextmanager
def _folder() -> Iterator[Path]:
    """A private folder that goes with us, also when the terminal is closed or the job is cancelled."""
    folder = Path(tempfile.mkdtemp(prefix="phalanx-build-"))
    before = {number: signal.signal(number, _end) for number in ENDING}
    try:
        yield folder
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        shutil.rmtree(folder, ignore_errors=True)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _id_in(path: Path) -> str:
    """The id that a builder has left, "" for what is none."""
    with suppress(OSError, UnicodeDecodeError):
        found = path.read_text()[:200].strip()
        return found if found.startswith("sha256:") else ""
    return ""


def _keep_logs(
    plan: BuildPlan, run: RunDirectory, first: Mapping[str, ImageBuild], made: list[Built]
) -> None:
    """The builders' words under the names that the manifest gives."""
    case_of = {image.image: case for case, image in first.items()}
    try:
        for builds in plan.jobs():
            case = case_of[builds[0].image]
            log = Path(plan.logs, builds[0].log)
            command = next(one.command for one in made if one.build is builds[0])
            for build in builds:
                Path(plan.logs, build.log).unlink(missing_ok=True)  # it may be another's as well
            with log.open("wb") as file:
                file.write(f"$ {command}\n".encode())
                for path in _logs_of(run, case, only=len(first) == 1):
                    file.write(path.read_bytes())
            for build in builds[1:]:
                shutil.copyfile(log, Path(plan.logs, build.log))
    except OSError as error:
        words = f"cannot keep the build's logs in {plan.logs}: {error.strerror or error}"
        click.echo(f"phalanx: {words}; they are in {run.shown()}", err=True)


def _logs_of(run: RunDirectory, case: str, *, only: bool) -> list[Path]:
    """What the steps of a case have written, in their order; ``only``: the run has no other case."""
    name = case if only else ""
    sources = [source for path in find(run.path, name) if (source := parse(path, name)) is not None]
    steps = [source for source in sources if source.case == case and not aside(source.step)]
    return [run.path / source.path for source in sorted(steps, key=lambda one: step_order(one.step))]
