"""``phalanx exec``: one more command on the nodes of a live run, streamed or gathered."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click
from phalanx.controller.cli.selecting import (
    chosen,
    color_option,
    controller_of,
    refuse,
    refuse_strange_case,
    run_nodes,
)
from phalanx.controller.exits import Exit

EPILOG = """\b
Examples:
  phalanx exec -- uname -r
  phalanx exec -b -w node[001-016] -- rocm-smi --showuse
  phalanx exec --case llama70b -- nvidia-smi
  phalanx exec --run @latest --host -- df -h /tmp

Exit: the highest code of all nodes. Ctrl-C ends the command, not the run.
"""


@click.command(epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@click.option("-r", "--run", default="@latest", metavar="RUN", help="Which run; the latest when not said.")
@click.option("-w", "--nodes", "nodeset", default="", metavar="NODESET", help="These nodes only.")
@click.option("-x", "--exclude", default="", metavar="NODESET", help="Not these nodes.")
@click.option("-b", "--gather", is_flag=True, help="Wait, then show nodes that said the same together.")
@click.option("--case", default="", metavar="NAME", help="In this case, where several run at once.")
@click.option("--host", is_flag=True, help="On the node itself and not in the container of the case.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("--timeout", default="", metavar="TIME", help="End the command after this long.")
@color_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def command(**given: Any) -> int:
    """Run COMMAND on the nodes of a live run."""
    import asyncio

    from phalanx.controller.control.client import ContactLost, ControlRefused, ExecRequest

    if given["host"] and given["case"]:
        refuse("cannot use --case with --host: it is beside all cases", Exit.USAGE)
    run = chosen(given["run"])
    path = controller_of(run, f"cannot run on the nodes of {run.run_id}")
    if given["case"]:
        from phalanx.controller.runs.records import read_all
        from phalanx.controller.runs.view import fold

        refuse_strange_case(run, fold(read_all(run.events)), given["case"], "cannot run in")
    request = ExecRequest(
        tuple(given["command"]),
        run_nodes(run, given["nodeset"], given["exclude"], "cannot run"),
        "host" if given["host"] else "case",
        dict(_variable(text) for text in given["env"]),
        _seconds(given["timeout"]),
        given["case"],
    )
    try:
        return asyncio.run(_stream(path, request, given))
    except ContactLost as error:
        why = f"{error}; see: phalanx status {run.run_id}"
        refuse(f"cannot run on the nodes of {run.run_id}: {why}", Exit.LOST_CONTACT)
    except ControlRefused as error:
        refuse(f"cannot run on the nodes of {run.run_id}: {error}")


async def _stream(path: Any, request: Any, given: dict[str, Any]) -> int:
    from contextlib import aclosing

    from phalanx.controller.cli.exec_output import Gathered, Streamed
    from phalanx.controller.cli.selecting import speaks_unicode, wants_color
    from phalanx.controller.control.client import ControlClient, ExecExited, ExecOutput, ExecStarted
    from phalanx.controller.exits import RankEnd, of_ranks
    from phalanx.controller.logs.show import Look
    from phalanx.controller.runs.view import cause_of

    look = Look(
        tty=sys.stdout.isatty(), color=wants_color(given["color"], sys.stdout), unicode=speaks_unicode()
    )
    output = Gathered() if given["gather"] else Streamed(look)
    ends: list[RankEnd] = []
    async with aclosing(ControlClient(path).exec(request)) as notices:
        async for notice in notices:
            if isinstance(notice, ExecStarted):
                output.started(notice.nodes)
            elif isinstance(notice, ExecOutput):
                output.take(notice.node, notice.output, notice.data)
            elif isinstance(notice, ExecExited):
                cause = cause_of(notice.cause)
                ends.append(RankEnd(notice.status, cause))
                output.exited(notice.node, notice.status, cause, notice.detail)
    output.finish(shutil.get_terminal_size().columns)
    return of_ranks(ends, "max")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        refuse(f"cannot use -e {text!r}: expected NAME=VALUE", Exit.USAGE)
    return name, value


def _seconds(text: str) -> float:
    from phalanx.controller.plan.quantities import duration
    from phalanx.controller.workflow.errors import InputError

    try:
        return duration(text, "--timeout") if text else 0.0
    except InputError as error:
        refuse(str(error), Exit.USAGE)
