"""``phalanx completion``: the script that makes a shell complete verbs, options, tags and runs."""

from __future__ import annotations

import click
from phalanx.controller.exits import Exit

#: Read by click at the start of the command: with it in the environment, phalanx answers what could follow.
VARIABLE = "_PHALANX_COMPLETE"

EPILOG = """\b
Examples:
  eval "$(phalanx completion bash)"                                    # in ~/.bashrc
  eval "$(phalanx completion zsh)"                                     # in ~/.zshrc
  phalanx completion fish > ~/.config/fish/completions/phalanx.fish

Completed are verbs, options, --tags (names and tags of the project's models) and RUN.
Nothing of a project is run for it: of models that a program makes, dir/all is offered.
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion script of SHELL (bash 4.4 or newer, zsh, fish)."""
    from click.shell_completion import get_completion_class
    from phalanx.controller.cli.main import phalanx

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"cannot complete in {shell}: this version of click has no script for it")
    template = kind(phalanx, {}, "phalanx", VARIABLE)
    script = template.source_template % template.source_vars()
    # In fish, click's script would lose what follows the first comma of ``train,group_1``.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'))
    return Exit.OK
