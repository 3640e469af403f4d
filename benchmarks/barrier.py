"""How fast a fleet joins and how fast a barrier lets it go, beside a polling barrier and a bare socket star.

The controller is real and whole, in one process; its agents are light ones (``light_agents``) over real TLS
on loopback. ``joined_ms``: from the word to join until the controller has it in its synced event log that
all are there. ``tls_only_ms``: as many TLS handshakes with the same accept loop, and nothing else.
``released_ms``: all arrive at once; from the last arrival's write to the last agent's read of the release.
``released_one_late_ms``: the same when all but one wait already.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.crew import BenchmarkError, Crew, Worker
from benchmarks.report import document, show

#: Rank 0 of the polling barrier comes this much later than its workers, in seconds.
LATE_S = 3.0


def ms(seconds: float) -> float:
    """Milliseconds, as they are reported."""
    return round(seconds * 1000, 1)


def last(answers: list[dict[str, Any]]) -> float:
    """The latest time among the answers."""
    return max(float(answer["last"]) for answer in answers)


async def barrier(crew: Crew, generation: int) -> float:
    """All arrive at once: seconds from the last arrival to the last release."""
    arrived = last(await crew.ask({"do": "enter", "generation": generation}))
    return last(await crew.ask({"do": "released", "generation": generation})) - arrived


async def barrier_one_late(crew: Crew, generation: int) -> float:
    """All but rank 0 wait; seconds from its arrival to the last release."""
    await crew.ask({"do": "enter", "generation": generation, "late": 0})
    await asyncio.sleep(0.5)  # the arrivals are read
    arrived = await crew.workers[0].ask({"do": "arrive", "generation": generation, "late": 0})
    return last(await crew.ask({"do": "released", "generation": generation})) - float(arrived["last"])


async def tls_floor(controller: Worker, crew: Crew, agents: int) -> dict[str, float]:
    """TLS handshakes alone: wall and the server's CPU."""
    server = await controller.ask({"do": "tls_server"})
    requests = [{"do": "tls_only", **server, "ranks": ranks} for ranks in crew.deal(agents)]
    cpu, began = controller.cpu_s(), time.monotonic()
    through = last(await crew.ask_each(requests))
    return {
        "tls_only_ms": ms(through - began),
        "tls_only_cpu_ms_per_agent": round(1000 * (controller.cpu_s() - cpu) / agents, 3),
    }


async def phalanx(controller: Worker, crew: Crew, agents: int) -> dict[str, Any]:
    """One whole run: join, facts, case, two barriers, end."""
    told = await controller.ask({"do": "start", "agents": agents})
    await crew.ask_each([{"do": "prepare", "told": told, "ranks": ranks} for ranks in crew.deal(agents)])
    cpu, rss, began = controller.cpu_s(), controller.rss_kb(), time.monotonic()
    joining = asyncio.create_task(crew.ask({"do": "join"}))
    known = float((await controller.ask({"do": "joined"}))["at"])
    answers = await joining
    used, grown = controller.cpu_s() - cpu, controller.rss_kb() - rss
    await crew.ask({"do": "begin"})
    released = await barrier(crew, 0)
    one_late = await barrier_one_late(crew, 1)
    ended = time.monotonic()
    await crew.ask({"do": "finish"})
    over = await controller.ask({"do": "over"})
    if over["exit_code"] != 0:
        raise BenchmarkError(f"the run ended with exit code {over['exit_code']}")
    return {
        "joined_ms": ms(max(known, last(answers)) - began),
        "welcomed_ms": ms(last(answers) - began),
        "released_ms": ms(released),
        "released_one_late_ms": ms(one_late),
        "ended_ms": ms(float(over["at"]) - ended),
        "rejoins": sum(int(answer["retries"]) for answer in answers),
        "handshake_cpu_ms_per_agent": round(1000 * used / agents, 3),
        "controller_rss_kb_per_agent": round(grown / agents, 1),
        "controller_rss_mb": round(controller.rss_kb() / 1024, 1),
    }


async def bare_tcp(agents: int, processes: int) -> dict[str, float]:
    """The same over plain sockets."""
    module = "benchmarks.bare_tcp"
    async with await Crew.start(module, 1) as server, await Crew.start(module, processes) as crew:
        (said,) = await server.ask({"do": "server", "agents": agents})
        requests = [{"do": "join", **said, "ranks": ranks} for ranks in crew.deal(agents)]
        began = time.monotonic()
        joined = last(await crew.ask_each(requests)) - began
        released = await barrier(crew, 0)
        one_late = await barrier_one_late(crew, 1)
    return {"joined_ms": ms(joined), "released_ms": ms(released), "released_one_late_ms": ms(one_late)}


def free_ports() -> int:
    """The first of sixteen ports in a row that nobody uses."""
    for base in range(43000, 44000, 16):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", base)) != 0:
                return base
    raise BenchmarkError("no free ports from 43000 on")


async def polling_barrier(agents: int, processes: int, late_s: float) -> dict[str, float]:
    """READY and GO; rank 0 is there first, or ``late_s`` after the others."""
    module = "benchmarks.polling_barrier"
    async with await Crew.start(module, 1) as first, await Crew.start(module, processes) as crew:
        base = free_ports()
        requests = [{"do": "prepare", "base": base, "ranks": ranks} for ranks in crew.deal(agents - 1)]
        await crew.ask_each(requests)
        serve = {"do": "serve", "base": base, "workers": agents - 1}
        if late_s:
            await crew.ask({"do": "begin"})
            await asyncio.sleep(late_s)
            serving = asyncio.create_task(first.workers[0].ask(serve))
            began = time.monotonic()
        else:
            serving = asyncio.create_task(first.workers[0].ask(serve))
            await asyncio.sleep(0.2)  # it listens
            began = time.monotonic()
            await crew.ask({"do": "begin"})
        served = await serving
        released = last(await crew.ask({"do": "released"}))
    return {"joined_ms": ms(served["joined"] - began), "released_ms": ms(released - served["joined"])}


async def measure(agents: int, processes: int) -> dict[str, Any]:
    """One run of everything."""
    async with (
        await Crew.start("benchmarks.controller_process", 1) as controllers,
        await Crew.start("benchmarks.light_agents", processes) as crew,
    ):
        ours = await phalanx(controllers.workers[0], crew, agents)
    async with (
        await Crew.start("benchmarks.controller_process", 1) as controllers,
        await Crew.start("benchmarks.light_agents", processes) as crew,
    ):
        floor = await tls_floor(controllers.workers[0], crew, agents)
    first = await polling_barrier(agents, processes, 0.0)
    late = await polling_barrier(agents, processes, LATE_S)
    polling = {**first, "late_joined_ms": late["joined_ms"], "late_released_ms": late["released_ms"]}
    beyond = round(ours["joined_ms"] - floor["tls_only_ms"], 1)
    peers = {"polling_barrier": polling, "bare_tcp": await bare_tcp(agents, processes)}
    return {"agents": agents, **ours, **floor, "joined_beyond_tls_ms": beyond, "peers": peers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2, help="processes that play the agents")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    samples = [asyncio.run(measure(options.agents, options.processes)) for _ in range(options.runs)]
    show(document(samples), options.json)


if __name__ == "__main__":
    main()
