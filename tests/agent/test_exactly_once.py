"""A dialogue over a connection that breaks again and again: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest
from phalanx.agent import links
from phalanx.protocol import messages as m

from .agent import Agent
from .controller import Controller
from .wire import Wire

pytestmark = pytest.mark.local

CUTS = 50
REQUESTS = 600
WRITTEN = 24 << 20


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent comes back without the pause that spares a controller in trouble."""
    monkeypatch.setattr(links, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(links, "RETRY_MOST_S", 0.01)


async def test_control_messages_and_logs_survive_fifty_cuts_at_random_bytes(tmp_path: Path) -> None:
    chance = random.Random(20260101)
    # past the handshake mostly, within it now and then
    budget = iter(
        [chance.choice((chance.randrange(1, 4000), chance.randrange(4000, 600_000))) for _ in range(CUTS)]
    )
    async with Controller() as controller, Wire(controller.addresses[0], budget) as wire:
        controller.keep = False
        async with Agent(tmp_path, controller.bootstrap(wire.address)) as agent:
            path = tmp_path / "out"
            stream = agent.session.logs.follow(lambda number: m.LogOpen(number, "", "x", -1, "out"), path)
            digest = hashlib.sha256()
            sent = written = 0
            with path.open("wb") as file:
                while sent < REQUESTS or written < WRITTEN or wire.connections <= CUTS:
                    if sent < REQUESTS:
                        controller.tell(m.Diagnose(sent, "none"))
                        sent += 1
                    if written < WRITTEN or wire.connections <= CUTS:
                        data = chance.randbytes(8192) * 8 + b"\n"
                        digest.update(data)
                        written += file.write(data)
                        file.flush()
                    await asyncio.sleep(0.001)
            agent.session.logs.finish(stream)
            await asyncio.wait_for(controller.log("x").whole.wait(), 30)
            answers = [(await controller.heard(m.Diagnosed)).request for _ in range(REQUESTS)]
            assert answers == list(range(REQUESTS))
            assert controller.log("x").digest.digest() == digest.digest()
            assert controller.log("x").gaps == []
            assert wire.connections > CUTS
