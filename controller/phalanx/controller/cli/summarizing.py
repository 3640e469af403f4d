"""``--summary-output`` of ``phalanx run``: what became of it, written when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.selecting import refuse
from phalanx.controller.exits import Exit

if TYPE_CHECKING:
    from phalanx.controller.plan.model import Plan
    from phalanx.controller.runs.directory import RunDirectory


@dataclass(slots=True)
class Summary:
    """Where it goes, "" for nowhere. ``build``: what became of the build before it, None for no build."""

    path: str = ""
    first_row: int | None = None
    build: Mapping[str, Any] | None = None

    def written(self, run: RunDirectory, plan: Plan, code: int) -> int:
        """Write it from the run's event log; the exit code, a failure when it could not be written.

        ``code``: how attending the run ended. A run that goes on without us has no summary yet.
        """
        if not self.path:
            return code
        from phalanx.controller.results.summary_output import finished, run_phase, whole
        from phalanx.controller.runs.records import read_all

        events = [recorded.event for recorded in read_all(run.events)]
        if not finished(events) and code != Exit.FAILURE:
            click.echo(f"phalanx: cannot write {self.path}: the run is not over", err=True)
            return code
        document = run_phase(plan, events, self.first_row)
        if self.build is not None:
            document = whole(self.build, document, code == Exit.OK)
        return code if self._put(document) or code else Exit.FAILURE

    def write_unbuilt(self, build: Mapping[str, Any]) -> None:
        """Write that images could not be had and nothing was run."""
        if self.path:
            from phalanx.controller.results.summary_output import nothing_run, whole

            self._put(whole(build, nothing_run(), succeeded=False))

    def _put(self, document: Mapping[str, Any]) -> bool:
        from phalanx.controller.builds.manifest import write_json
        from phalanx.controller.workflow.errors import InputError

        try:
            write_json(Path(self.path), document, self.path)
        except InputError as error:
            click.echo(f"phalanx: {error}", err=True)
            return False
        return True


def summary_of(given: Mapping[str, Any], plan: Plan) -> Summary:
    """The summary of a run that is about to begin. Ends the command for one that could not be written."""
    path = given["summary_output"]
    if not path:
        return Summary()
    if given["detach"]:
        refuse(
            "cannot write a summary of a run that is left: leave out -d, or ask phalanx status --json later",
            Exit.USAGE,
        )
    from phalanx.controller.cli.outputs import refuse_unwritable
    from phalanx.controller.results.summary_output import rows_in

    refuse_unwritable(path)
    return Summary(path, rows_in(plan.output_csv))
