"""``phalanx image``: images on the nodes. ``sync`` is a run without cases: what it leaves, how it is shown,
its exit codes and its Ctrl-C are those of a run.
"""

from __future__ import annotations

from typing import Any

import click
from phalanx.controller.cli.main import nearest
from phalanx.controller.cli.run import attended, show_plan, started
from phalanx.controller.cli.run_options import sync_options
from phalanx.controller.cli.selecting import color_option, json_option, put
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

EPILOG = """\b
Examples:
  phalanx image sync rocm/vllm:6.2 -N 40 -p gpu
  phalanx image sync bench:1 --image-archive bench.tar -w gpu[01-08]
  phalanx image sync bench:1 --image-archive bench.tar -N 64 --dry-run

Layers travel from node to node, each once, and only those that a node lacks. Exit: 0 every node
has the image, 4 bad arguments, 8 nodes missing, 9 a node could not get it, 10 scheduler, 130 Ctrl-C.
"""


class Verbs(click.Group):
    """Names the nearest spelling of an unknown verb."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(
                f"cannot find image verb {args[0]!r}{nearest(args[0], self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def command() -> None:
    """Images on the nodes."""


@command.command(
    "sync",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("image")
@sync_options
@json_option
@color_option
def sync(image: str, **given: Any) -> int:
    """Bring IMAGE to every node, layers only once, and verify it there."""
    from phalanx.controller.cli.planning import planned_sync

    plan = planned_sync(image, given)
    for warning in plan.warnings:
        click.echo(f"phalanx: {clean_text(warning)}", err=True)
    if given["dry_run"]:
        return show_plan(plan, as_json=given["as_json"])
    run = started(plan, {})
    if given["detach"]:
        put(run.run_id)
        return Exit.OK
    return attended(run, {**given, "prefix": "auto"})
