"""``phalanx cancel``: ask a run's controller to end it."""

from __future__ import annotations

import click
from phalanx.controller.cli.selecting import chosen, refuse, run_argument
from phalanx.controller.exits import Exit


@click.command()
@run_argument
@click.option("--force", is_flag=True, help="Kill at once instead of ending in good order.")
def command(run: str, force: bool) -> int:
    """End RUN: its ranks get TERM and a grace, results are collected, nodes are given back."""
    import asyncio

    from phalanx.controller.cli.attending import user
    from phalanx.controller.control.client import ContactLost, ControlRefused
    from phalanx.controller.runs.attend import CANCEL_S, cancel
    from phalanx.controller.runs.records import last_state

    found = chosen(run)
    state = last_state(found.events)
    if state:
        click.echo(f"run {found.run_id} is over already: {state}", err=True)
        return Exit.OK

    async def ask() -> None:
        async with asyncio.timeout(CANCEL_S):
            await cancel(found, 2 if force else 1, f"{user()} (phalanx cancel)")

    try:
        asyncio.run(ask())
    except (ContactLost, TimeoutError) as error:
        if last_state(found.events):
            return Exit.OK
        why = str(error) or "no answer"
        refuse(
            f"cannot cancel {found.run_id}: its controller does not answer ({why}); "
            f"see: phalanx status {found.run_id}",
            Exit.LOST_CONTACT,
        )
    except ControlRefused as error:
        refuse(f"cannot cancel {found.run_id}: {error}")
    click.echo(
        f"{'killing' if force else 'ending'} {found.run_id}; see: phalanx wait {found.run_id}", err=True
    )
    return Exit.OK
