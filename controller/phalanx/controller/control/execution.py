"""``phalanx exec``: one command on nodes of a live run, beside or inside its case.

Its output is a log like any other: it is told from the files, as far as they are on disk. So a reader that is
slow holds nothing in memory, and what was shown is what ``phalanx logs`` shows later.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.protocol.errors import LocalError
from phalanx.protocol.frames import encode
from phalanx.protocol.membership import Member
from phalanx.protocol.messages import StepExited, StepStart, StepStop

from ..fleet.conductor import Conductor
from ..fleet.states import OVER, CasePhase, Phase
from ..logs.store import StoredStream
from .http import bad, conflict, names, words

#: Seconds between TERM and KILL when the one who asked goes away.
GRACE_S = 2.0
#: Longest time without a look at which nodes are still there, in seconds: a lost node is no growth of a log.
LOOK_S = 0.5
#: Bytes of output in one line.
PIECE = 48 * 1024


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What was asked for. ``case``: in which of those that run, "" for the only one."""

    argv: tuple[str, ...]
    nodes: tuple[str, ...] | None
    where: str
    env: dict[str, str]
    deadline_s: float
    case: str = ""

    @staticmethod
    def parse(body: dict[str, Any]) -> ExecRequest:
        """A request of a JSON body. Raises Refusal naming what is wrong."""
        argv, nodes, where = body.get("argv"), body.get("nodes"), body.get("where", "case")
        case = body.get("case") or ""
        env, deadline_s = body.get("env") or {}, body.get("deadline_s") or 0
        if not argv or not words(argv):
            raise bad("argv: expected a list of words, at least one")
        picked = names(nodes, "nodes")
        if not isinstance(env, dict) or not words([*env, *env.values()]):
            raise bad("env: expected an object of words")
        if where not in ("case", "host"):
            raise bad("where: expected case or host")
        if not isinstance(case, str) or (case and where == "host"):
            raise bad("case: expected a name, and no where: host")
        if (
            isinstance(deadline_s, bool)
            or not isinstance(deadline_s, int | float)
            or not 0 <= deadline_s < 1e9
        ):
            raise bad("deadline_s: expected seconds, 0 for none")
        return ExecRequest(tuple(argv), picked, where, env, float(deadline_s), case)


@dataclass(slots=True)
class _Running:
    case: str
    nodes: tuple[str, ...]
    exits: dict[str, StepExited] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Execution:
    """Commands that run now, by step name."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._numbers = itertools.count(1)
        self._running: dict[str, _Running] = {}
        conductor.intake.on_exec_exit = self._on_exit

    def begin(self, request: ExecRequest) -> str:
        """Start a command; the name of its step. Raises Refusal."""
        case = self._case_for(request)
        nodes = self._nodes_for(request, case)
        step = f"exec-{next(self._numbers)}"
        start = StepStart(
            case,
            step,
            request.argv,
            request.env,
            {},
            (),
            request.deadline_s,
            GRACE_S,
            "case" if case else "host",
        )
        try:
            encode(start)
        except LocalError as error:
            raise bad(str(error)) from None
        running = self._running[step] = _Running(case, nodes)
        self._conductor.store.on_growth[step] = running.news.set
        self._conductor.hub.tell(nodes, start)
        return step

    def _case_for(self, request: ExecRequest) -> str:
        """The case to run in, "" for beside it. A run that is kept has none, or those that still stand."""
        engine = self._conductor.engine
        if engine.phase in OVER:
            raise conflict("the run is ending")
        if request.where == "host":
            return ""
        if engine.phase is Phase.IDLE and not engine.cases.kept and not request.case:
            return ""
        flows = engine.cases.flows.items()
        running = [*engine.cases.kept, *(name for name, flow in flows if flow.phase is CasePhase.STEPPING)]
        if request.case and request.case not in running:
            these = f"; these are: {', '.join(running)}" if running else ""
            raise conflict(f"case {request.case} is not running now{these}")
        if not running:
            raise conflict(
                "no case is running now; try again in a moment, or run it on the nodes with --host"
            )
        if not request.case and len(running) > 1:
            raise conflict(f"several cases are running: say --case with one of {', '.join(running)}")
        return request.case or running[0]

    def _nodes_for(self, request: ExecRequest, case: str) -> tuple[str, ...]:
        present = self._conductor.engine.roster.of(Member.JOINED)
        flow = self._conductor.engine.cases.flows.get(case)
        here = tuple(node for node in flow.here if node in present) if flow is not None else present
        nodes = here if request.nodes is None else request.nodes
        strangers = [node for node in nodes if node not in here]
        if strangers:
            raise conflict(f"no agent is on {', '.join(strangers)}; see: phalanx nodes")
        if not nodes:
            raise conflict("no agent is there")
        return nodes

    def _on_exit(self, node: str, message: StepExited) -> None:
        running = self._running.get(message.step)
        if running is not None:
            running.exits[node] = message
            running.news.set()

    # --- what happens

    async def lines(self, step: str) -> AsyncGenerator[dict[str, Any], None]:
        """What happens, until the command is over on every node and its output is whole."""
        running = self._running[step]
        yield {"type": "exec.started", "data": {"step": step, "nodes": list(running.nodes)}}
        left = list(running.nodes)
        while left:
            # Who is over is looked at first: all that they wrote is on disk then, and told before their end.
            over = self._over(step, running, left)
            for stream in self._conductor.store.of_step(running.case, step):
                while piece := await asyncio.to_thread(self._next_piece, running, stream):
                    yield piece
            for node in over:
                left.remove(node)
                yield {"type": "exec.exited", "data": self._exit_of(node, running)}
            if left and not over:
                await _wait(running.news)
        yield {"type": "exec.done", "data": {}}

    def _next_piece(self, running: _Running, stream: StoredStream) -> dict[str, Any] | None:
        """The next bytes of a stream that are on disk and were not told. Blocks."""
        start = running.told.get(stream.path, 0)
        length = min(stream.receiver.durable - start, PIECE)
        data = _read(self._conductor.run_dir / stream.path, start, length) if length > 0 else b""
        if not data:
            return None
        running.told[stream.path] = start + len(data)
        text = base64.b64encode(data).decode()
        line = {"node": stream.name.node, "output": stream.name.output, "b64": text}
        return {"type": "exec.output", "data": line}

    def _over(self, step: str, running: _Running, nodes: list[str]) -> list[str]:
        """On which nodes the command is over and all of its output is stored; or which are gone."""
        here = frozenset(self._conductor.engine.roster.present)
        waits = self._conductor.store.incomplete(running.case, tuple(here & running.exits.keys()))
        pending = {name.node for name in waits if name.step == step}
        return [node for node in nodes if node not in here or (node in running.exits and node not in pending)]

    def _exit_of(self, node: str, running: _Running) -> dict[str, Any]:
        message = running.exits.get(node)
        if message is None:
            record = self._conductor.engine.roster.nodes.get(node)
            state = record.state if record is not None else Member.LOST
            words = "the run is over" if state is Member.LEFT else "the node was lost"
            return {"node": node, "status": 255, "cause": "lost", "detail": words}
        cause = message.cause.value
        return {"node": node, "status": message.status, "cause": cause, "detail": message.detail}

    def end(self, step: str) -> None:
        """The one who asked is gone or has everything: end what still runs."""
        running = self._running.pop(step)
        self._conductor.store.on_growth.pop(step, None)
        left = [node for node in running.nodes if node not in running.exits]
        self._conductor.hub.tell(left, StepStop(running.case, step, GRACE_S))


async def _wait(news: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_S):
            await news.wait()
    except TimeoutError:  # our own pause: an event is no socket
        return
    news.clear()


def _read(path: Path, start: int, length: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.pread(fd, length, start)
    finally:
        os.close(fd)
