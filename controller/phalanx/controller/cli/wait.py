"""``phalanx wait``: until a run is over, then its exit code."""

from __future__ import annotations

import click
from phalanx.controller.cli.selecting import chosen, run_argument


@click.command()
@run_argument
@click.option(
    "--reconnect-timeout", type=click.FloatRange(0), default=10.0, show_default=True, metavar="SECONDS"
)
def command(run: str, reconnect_timeout: float) -> int:
    """Wait until RUN is over and return its exit code; 75 when contact is lost. Ctrl-C only leaves."""
    from phalanx.controller.cli.attending import Showing, attend
    from phalanx.controller.runs.attend import Manners
    from phalanx.controller.runs.model import RunView

    found = chosen(run)
    manners = Manners(owns=False, patience_s=reconnect_timeout)
    return attend(found, Showing(progress="quiet"), manners, None, RunView(run_id=found.run_id))
