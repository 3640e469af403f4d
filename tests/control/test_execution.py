"""A command on nodes of a run: when it is over on each, at a cost that does not grow with their square."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from phalanx.controller.control.execution import Execution, _Running
from phalanx.controller.logs.paths import StreamName
from phalanx.protocol.messages import Cause, StepExited

NODES = tuple(f"n{number}" for number in range(6))


class Run:
    """The conductor as far as a command needs it. ``waiting``: streams that are not whole."""

    def __init__(self, *waiting: StreamName) -> None:
        self.looks = 0
        self.waiting = waiting
        self.engine = SimpleNamespace(roster=SimpleNamespace(present=NODES[:5]))
        self.store = SimpleNamespace(incomplete=self.incomplete)
        self.intake = SimpleNamespace()

    def incomplete(self, case: str, nodes: tuple[str, ...]) -> list[StreamName]:
        self.looks += 1
        return [name for name in self.waiting if name.case == case and name.node in nodes]


def test_it_is_over_where_it_has_ended_with_all_its_output_here_or_where_no_node_is_left() -> None:
    run = Run(
        StreamName("n1", "case", "exec-1", -1, "out"),
        StreamName("n2", "case", "exec-2", -1, "out"),
        StreamName("n3", "case", "main", 0, "out"),
    )
    exited = StepExited("case", "exec-1", -1, 0, Cause.EXITED, 1.0, "")
    running = _Running("case", NODES, exits=dict.fromkeys(NODES[:4], exited))
    over = Execution(cast(Any, run))._over("exec-1", running, list(NODES))
    assert over == ["n0", "n2", "n3", "n5"]  # n1 has more to say, n4 runs, n5 is gone
    assert run.looks == 1
