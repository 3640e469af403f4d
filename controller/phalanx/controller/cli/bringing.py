"""``phalanx image sync --run``: an image for the nodes of a run that is going on."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from phalanx.controller.cli.planning import check_archive
from phalanx.controller.cli.selecting import chosen, controller_of, put, refuse, run_nodes, style_for
from phalanx.controller.exits import Exit
from phalanx.controller.plan.image import checked_reference
from phalanx.controller.workflow.errors import InputError

#: What can be said along with a run; everything else its own run has decided.
_TAKEN = (
    "image",
    "run",
    "nodelist",
    "exclude",
    "image_archive",
    "quiet",
    "verbose",
    "progress",
    "as_json",
    "color",
)


def brought(image: str, run: str, given: dict[str, Any]) -> int:
    """Bring it; the exit code."""
    from phalanx.controller.control.client import ContactLost, ControlRefused, ImageRequest

    _refuse_others(click.get_current_context())
    found = chosen(run)
    cannot = f"cannot bring {image} to the nodes of {found.run_id}"
    path = controller_of(found, cannot)
    try:
        checked_reference(image, "IMAGE")
        check_archive(given["image_archive"])
    except InputError as error:
        refuse(str(error), Exit.USAGE)
    archive = str(Path(given["image_archive"]).absolute()) if given["image_archive"] else ""
    nodes = run_nodes(found, given["nodelist"], given["exclude"], cannot)
    try:
        return asyncio.run(_shown(path, found.run_id, ImageRequest(image, archive, nodes), given))
    except ContactLost as error:
        why = f"{error}; see: phalanx status {found.run_id}"
        refuse(f"{cannot}: {why}", Exit.LOST_CONTACT)
    except ControlRefused as error:
        refuse(f"{cannot}: {error}")
    except KeyboardInterrupt:
        click.echo("phalanx: called off; nodes that have the image keep it", err=True)
        return Exit.INTERRUPTED


async def _shown(path: Path, run_id: str, wanted: Any, given: dict[str, Any]) -> int:
    from phalanx.controller.control.client import ControlClient
    from phalanx.controller.runs.bringing import bring, document, last_lines
    from phalanx.controller.runs.live import Writer, choose
    from phalanx.controller.runs.model import ImageView, RunView

    style = style_for(given["color"], sys.stderr)
    quiet = given["quiet"] or given["as_json"]
    screen = choose("quiet" if quiet else given["progress"], Writer(), style, time.time)
    screen.verbose = given["verbose"]
    view = RunView(run_id, image=ImageView(wanted.reference))
    ready = await bring(ControlClient(path), wanted, screen, view)
    if given["as_json"]:
        put(json.dumps(document(view, ready), ensure_ascii=False))
    if ready is None or not quiet:
        await screen.end(view, last_lines(view, ready, style))
    return Exit.OK if ready is not None else view.exit_code or Exit.FAILURE


def _refuse_others(ctx: click.Context) -> None:
    """Options that would have to be those of the run."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in _TAKEN and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = max(parameter.opts, key=len)
            refuse(
                f"cannot use {option} with --run: the image goes to nodes that the run has, as it was told; "
                "leave one of them out",
                Exit.USAGE,
            )
