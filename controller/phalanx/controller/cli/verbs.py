"""A verb with verbs of its own: ``phalanx image sync``, ``phalanx report compare``."""

from __future__ import annotations

import click
from phalanx.controller.cli.main import nearest


class Verbs(click.Group):
    """Names the nearest spelling of an unknown verb."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            words = f"cannot find {ctx.info_name} verb {args[0]!r}{nearest(args[0], self.commands)}"
            raise click.UsageError(words, ctx)
        return super().resolve_command(ctx, args)
