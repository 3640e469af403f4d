"""``phalanx exec``: one command on nodes of a live run, beside or inside its case."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from phalanx.protocol.membership import Member
from phalanx.protocol.messages import StepExited, StepStart, StepStop

from ..fleet.conductor import Conductor
from ..fleet.states import CasePhase
from ..logs.paths import StreamName

#: Seconds between TERM and KILL when the one who asked goes away.
GRACE_S = 2.0


class ExecRequestError(Exception):
    """The command cannot be run; the message says why."""


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What was asked for."""

    argv: tuple[str, ...]
    nodes: tuple[str, ...] | None
    where: str
    env: dict[str, str]
    deadline_s: float

    @staticmethod
    def parse(body: dict[str, Any]) -> ExecRequest:
        """A request of a JSON body. Raises ExecRequestError naming what is wrong."""
        argv, nodes = body.get("argv"), body.get("nodes")
        env = body.get("env") or {}
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            raise ExecRequestError("argv: expected a list of words")
        if nodes is not None and not (isinstance(nodes, list) and all(isinstance(n, str) for n in nodes)):
            raise ExecRequestError("nodes: expected a list of names or null")
        if not isinstance(env, dict):
            raise ExecRequestError("env: expected an object")
        where = body.get("where") or "case"
        if where not in ("case", "host"):
            raise ExecRequestError("where: expected case or host")
        clean = {str(name): str(value) for name, value in env.items()}
        picked = tuple(nodes) if nodes is not None else None
        return ExecRequest(tuple(argv), picked, where, clean, float(body.get("deadline_s") or 0))


@dataclass(slots=True)
class _Running:
    case: str
    nodes: set[str]
    lines: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    exits: dict[str, StepExited] = field(default_factory=dict)


class Execution:
    """Commands that run now, by step name."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._numbers = itertools.count(1)
        self._running: dict[str, _Running] = {}
        conductor.intake.on_exec_exit = self._on_exit

    def begin(self, request: ExecRequest) -> str:
        """Start a command; the name of its step. Raises ExecRequestError."""
        present = self._conductor.engine.roster.of(Member.JOINED)
        nodes = request.nodes if request.nodes is not None else present
        strangers = [node for node in nodes if node not in present]
        if strangers or not nodes:
            raise ExecRequestError(
                f"no agent on {', '.join(strangers)}" if strangers else "no agent is there"
            )
        flow = self._conductor.engine.flow
        in_case = flow is not None and flow.phase is CasePhase.STEPPING and request.where == "case"
        case = flow.plan.name if flow is not None and in_case else ""
        step = f"exec-{next(self._numbers)}"
        running = self._running[step] = _Running(case, set(nodes))
        self._conductor.store.taps[step] = lambda name, data: self._on_output(running, name, data)
        where = "case" if in_case else "host"
        start = StepStart(case, step, request.argv, request.env, {}, (), request.deadline_s, GRACE_S, where)
        running.lines.put_nowait({"type": "exec.started", "data": {"step": step, "nodes": list(nodes)}})
        self._conductor.hub.tell(nodes, start)
        return step

    def _on_output(self, running: _Running, name: StreamName, data: bytes) -> None:
        text = base64.b64encode(data).decode()
        line = {"node": name.node, "output": name.output, "b64": text}
        running.lines.put_nowait({"type": "exec.output", "data": line})

    def _on_exit(self, node: str, message: StepExited) -> None:
        running = self._running.get(message.step)
        if running is not None:
            running.exits[node] = message

    async def lines(self, step: str) -> AsyncIterator[dict[str, Any]]:
        """What happens, until the command is over on every node and its output is whole."""
        running = self._running[step]
        told: set[str] = set()
        while told != running.nodes:
            try:
                async with asyncio.timeout(0.05):
                    yield await running.lines.get()
                continue
            except TimeoutError:  # our own short deadline: nothing in there touches a socket
                pass
            for node in sorted(self._over(step, running) - told):
                while not running.lines.empty():
                    yield running.lines.get_nowait()
                told.add(node)
                yield {"type": "exec.exited", "data": self._exit_of(node, running)}
        yield {"type": "exec.done", "data": {}}

    def _over(self, step: str, running: _Running) -> set[str]:
        """Nodes on which the command is over and all of its output is stored, and nodes that are lost."""
        present = self._conductor.engine.roster.present
        pending = {
            name.node
            for name in self._conductor.store.incomplete(running.case, tuple(running.nodes))
            if name.step == step
        }
        done = {node for node in running.exits if node not in pending}
        return done | {node for node in running.nodes if node not in present}

    @staticmethod
    def _exit_of(node: str, running: _Running) -> dict[str, Any]:
        message = running.exits.get(node)
        if message is None:
            return {"node": node, "status": 255, "cause": "lost", "detail": "the node was lost"}
        cause = message.cause.value
        return {"node": node, "status": message.status, "cause": cause, "detail": message.detail}

    def end(self, step: str) -> None:
        """The one who asked is gone or has everything: end what still runs."""
        running = self._running.pop(step)
        self._conductor.store.taps.pop(step, None)
        left = running.nodes - running.exits.keys()
        self._conductor.hub.tell(left, StepStop(running.case, step, GRACE_S))
