"""``phalanx image``: images on the nodes. Each verb is a run without cases: what it leaves, how it is shown,
its exit codes and its Ctrl-C are those of a run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.run import attended, left, show_plan, started
from phalanx.controller.cli.run_options import inventory_options, sync_options
from phalanx.controller.cli.selecting import color_option, json_option, put
from phalanx.controller.cli.tables import table
from phalanx.controller.cli.verbs import Verbs
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

if TYPE_CHECKING:
    from phalanx.controller.fleet.events import ImagesOnNode

#: How help is asked for and laid out, the same for every verb.

EPILOG = """\b
Examples:
  phalanx image sync rocm/vllm:6.2 -N 40 -p gpu
  phalanx image sync bench:1 --image-archive bench.tar -w gpu[01-08]
  phalanx image sync bench:1 --image-archive bench.tar -N 64 --dry-run
  phalanx image sync bench:2 --run @latest -x gpu03

Layers travel from node to node, each once, and only those that a node lacks. With --run they go to
the nodes of a run that is going on, beside its work, so that the next image is there before the
next run begins; at the pace of the --bulk-rate that the run was given.

Exit: 0 every node has the image, 4 bad arguments, 8 nodes missing, 9 a node could not get it,
10 scheduler, 130 Ctrl-C.
"""


@click.group(cls=Verbs)
def command() -> None:
    """Images on the nodes."""


@command.command(
    "sync",
    epilog=EPILOG,
)
@click.argument("image")
@click.option("-r", "--run", default="", metavar="RUN", help="To the nodes of this run, while it goes on.")
@sync_options
@json_option
@color_option
def sync(image: str, run: str, **given: Any) -> int:
    """Bring IMAGE to every node, layers only once, and verify it there."""
    if run:
        from phalanx.controller.cli.bringing import brought

        return brought(image, run, given)
    from phalanx.controller.cli.planning import planned_sync

    plan = planned_sync(image, given)
    for warning in plan.warnings:
        click.echo(f"phalanx: {clean_text(warning)}", err=True)
    if given["dry_run"]:
        return show_plan(plan, as_json=given["as_json"])
    begun = started(plan, {})
    if given["detach"]:
        put(left(begun, given["as_json"]))
        return Exit.OK
    return attended(begun, {**given, "prefix": "auto"})


LS_EPILOG = """\b
Examples:
  phalanx image ls -N 40 -p gpu
  phalanx image ls rocm/vllm:6.2 -w gpu[01-08]
  phalanx image ls --json -w gpu[01-08]

Nodes with the same id of an image stand on one line; the note says which lack it, or have another.
Exit: 0 every node has answered, 4 bad arguments, 8 nodes missing, 9 a node could not, 10 scheduler,
125 no engine on a node.
"""

PRUNE_EPILOG = """\b
Examples:
  phalanx image prune -N 40 -p gpu
  phalanx image prune rocm/vllm:6.2 -w gpu[01-08]
  phalanx image prune rocm/vllm:6.2 -w gpu[01-08] --dry-run

Layers with which a run works stay, and so does an image that a container uses. Parts of images that killed
runs have left in an engine go as well.
Exit: 0 done on every node, 4 bad arguments, 8 nodes missing, 9 a node could not, 10 scheduler, 125 no engine.
"""


@command.command(
    "ls",
    epilog=LS_EPILOG,
)
@click.argument("image", required=False, default="")
@inventory_options
@json_option
@color_option
def ls(image: str, **given: Any) -> int:
    """Which nodes have which images (or IMAGE), and what their caches of layers hold."""
    return _inventory(image, given, prune=False)


@command.command(
    "prune",
    epilog=PRUNE_EPILOG,
)
@click.argument("image", required=False, default="")
@inventory_options
@json_option
@color_option
def prune(image: str, **given: Any) -> int:
    """Empty the nodes' caches of layers, and remove IMAGE from their engines."""
    return _inventory(image, given, prune=True)


def _inventory(image: str, given: dict[str, Any], prune: bool) -> int:
    from phalanx.controller.cli.planning import planned_inventory
    from phalanx.controller.runs.inventory import answers, document
    from phalanx.controller.runs.records import read_all

    plan = planned_inventory(image, given, prune)
    if given["dry_run"]:
        return show_plan(plan, as_json=given["as_json"])
    run = started(plan, {})
    # The document of a run is not what is wanted here, so only its failures are shown.
    shown = {**given, "prefix": "auto", "as_json": False, "quiet": given["quiet"] or given["as_json"]}
    code = attended(run, shown)
    found = answers(read_all(run.events))
    if all(one.error for one in found) and not given["as_json"]:
        return code  # there is nothing to list
    put(json.dumps(document(found), ensure_ascii=False) if given["as_json"] else _shown(found, prune))
    return code


def _shown(found: list[ImagesOnNode], prune: bool) -> str:
    from phalanx.controller.runs.inventory import cache_cells, image_cells, image_rows

    rows = [image_cells(row) for row in image_rows(found)]
    lines = table(("IMAGE", "ID", "SIZE", "COUNT", "NODES", "NOTE"), rows)
    if any(one.more for one in found):
        lines.append(f"and {max(one.more for one in found)} more on a node: name the one that you look for")
    caches = [cells if prune else (*cells[:2], *cells[3:]) for cells in cache_cells(found)]
    head = ("LAYERS", "CACHED", "FREED", "COUNT", "NODES")
    return "\n".join([*lines, "", *table(head if prune else (*head[:2], *head[3:]), caches)])
