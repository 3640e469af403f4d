"""The controller of a run in a process of its own, all of it real but the target: nodes are light agents.

The conductor with its engine, event log, hub and listener conducts a whole run: it waits for the agents,
starts a case, keeps its barriers, and ends. The target gives names for nodes and starts nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

from phalanx.controller.fleet.certificate import make_identity
from phalanx.controller.fleet.conductor import Conductor
from phalanx.controller.fleet.listener import accept_forever, listen
from phalanx.controller.plan.model import (
    PLAN_SCHEMA,
    CasePlan,
    Plan,
    ResultRule,
    StepPlan,
    TargetPlan,
    Timing,
)
from phalanx.controller.targets.base import (
    Allocation,
    AllocationHealth,
    AllocationReport,
    Bootstrap,
    Spawned,
    Words,
)
from phalanx.protocol.messages import ContainerSpec, Runtime

from benchmarks import worker

#: Agents share two cores with the controller: none shall be called dead for that.
TIMING = Timing(dead_after_s=600.0, lease_s=600.0)


class _Nobody:
    """What was spawned: nothing. It is over when the run wants it to be."""

    def __init__(self) -> None:
        self.argv: tuple[str, ...] = ("light", "agents")
        self._over = asyncio.Event()

    async def wait(self) -> tuple[int, str]:
        await self._over.wait()
        return 0, ""

    def reason(self, node: str) -> str:
        return "the benchmark has not let it join"

    async def end(self, grace_s: float) -> None:
        self._over.set()


class LightTarget:
    """Nodes by name only; ``bootstrap`` is there once the run wants its agents."""

    def __init__(self, nodes: tuple[str, ...]) -> None:
        self._nodes = nodes
        self._nobody = _Nobody()
        self.bootstrap: asyncio.Future[Bootstrap] = asyncio.get_running_loop().create_future()

    def listen_addresses(self) -> tuple[str, ...]:
        return ("127.0.0.1",)

    def allocation_argv(self) -> tuple[str, ...]:
        return ()

    def give_back_argv(self, allocation: Allocation) -> tuple[str, ...]:
        return ()

    async def allocate(self) -> Allocation:
        return Allocation("1", self._nodes, False)

    async def spawn(
        self, allocation: Allocation, bootstrap: Bootstrap, agent: Path, launch_dir: Path, words: Words
    ) -> Spawned:
        self.bootstrap.set_result(bootstrap)
        return self._nobody

    async def report(self, allocation: Allocation) -> AllocationReport:
        return AllocationReport(AllocationHealth.RUNNING, "RUNNING", "")

    async def release(self, allocation: Allocation) -> str:
        return ""

    async def all_left(self) -> None:
        """The agents are gone."""
        await self._nobody.end(0.0)


def make_plan(run_id: str, nodes: int) -> Plan:
    """One case with one rank a node."""
    case = CasePlan(
        "bench",
        (StepPlan("main", ("true",)),),
        ContainerSpec(Runtime.PROCESS),
        result=ResultRule(require_performance=False),
    )
    return Plan(
        PLAN_SCHEMA,
        run_id,
        "bench",
        ("bench",),
        "/",
        TargetPlan("slurm", nodes),
        (),
        (case,),
        timing=TIMING,
    )


class Run:
    """One run of the conductor, watched through the lines of its event log."""

    def __init__(self, nodes: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="phalanx-bench-"))
        self.nodes = tuple(f"n{number}" for number in range(nodes))
        self.target = LightTarget(self.nodes)
        self.seen: dict[str, float] = {}
        self.exit_code = -1
        self._waiting: dict[str, asyncio.Event] = {}
        plan = make_plan("20000101-000000-bench-0000", nodes)
        self._conductor = Conductor(
            self._folder, plan, lambda name: "", self.target, self._publish, lambda *told: None
        )
        self.task = asyncio.create_task(self._conductor.conduct(), name="the run")

    def _publish(self, seq: int, line: bytes) -> None:
        # Most lines are of joins and exits: only the few that are waited for are looked at closer.
        for kind in (b"fleet.joined", b"barrier.released", b"run.finished"):
            if kind in line:
                name = kind.decode()
                self.seen[name] = time.monotonic()
                self._event(name).set()
                if name == "run.finished":
                    self.exit_code = json.loads(line)["data"]["exit_code"]

    def _event(self, name: str) -> asyncio.Event:
        return self._waiting.setdefault(name, asyncio.Event())

    async def until(self, name: str) -> float:
        """When the event came, once it has."""
        await self.unless_over(self._event(name).wait())
        return self.seen[name]

    async def unless_over(self, work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> Any:
        """What ``work`` gives; the error of the run when that ends before it."""
        wanted = asyncio.ensure_future(work)
        await asyncio.wait((wanted, self.task), return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            self.task.result()
            raise RuntimeError("the run was over too soon")
        return wanted.result()

    async def remove(self) -> None:
        """Leave nothing on the disk, even where a file of the run is being replaced right now."""
        while self._folder.exists():
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            await asyncio.sleep(0.01)


_runs: list[Run] = []


async def start(request: dict[str, Any]) -> dict[str, Any]:
    """Begin a run; what its agents must know."""
    run = Run(request["agents"])
    _runs[:] = [run]
    bootstrap: Bootstrap = await run.unless_over(run.target.bootstrap)
    await asyncio.sleep(0.2)  # the event log settles, so that its work is not taken for that of joining
    gc.collect()
    return {**json.loads(bootstrap.line()), "nodes": run.nodes}


async def joined(_request: dict[str, Any]) -> dict[str, Any]:
    """When the run knew, in its synced event log, that all agents had joined."""
    (run,) = _runs
    return {"at": await run.until("fleet.joined")}


async def over(_request: dict[str, Any]) -> dict[str, Any]:
    """The end of the run."""
    (run,) = _runs
    await run.target.all_left()
    await run.task
    await run.remove()
    return {"at": run.seen["run.finished"], "exit_code": run.exit_code}


class _Greeter(asyncio.Protocol):
    """The other end of a bare TLS handshake: one byte says that it is through."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"!")


_tls: list[asyncio.Task[None]] = []


async def tls_server(_request: dict[str, Any]) -> dict[str, Any]:
    """A server of the same certificate and the same accept loop that does TLS only."""
    identity = make_identity("bench")
    listener = listen(("127.0.0.1",))
    accept = accept_forever(listener.sockets[0], identity.context, _Greeter)
    _tls.append(asyncio.create_task(accept, name="TLS only"))
    return {"port": listener.addresses[0][1], "pin": identity.fingerprint.hex()}


if __name__ == "__main__":
    worker.serve({"start": start, "joined": joined, "over": over, "tls_server": tls_server})
