"""Which log files a run has, and which of them someone asks for.

The place of a file says all about it: ``logs/<node>/[<case>/][<step>.]rank<R>.<out|err>``, and
``logs/<node>/[<case>/]<step>.<out|err>`` for a step that runs once per node. ``<step>.`` is left out for the
model script itself, ``<case>/`` in a run of one case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phalanx.controller.nodesets import natural_key
from phalanx.protocol.messages import MAIN_STEP, NODE_LEVEL

LOGS = "logs"
#: Steps that ``phalanx exec`` adds: it has shown their output itself, and they are nobody's verdict.
EXEC_STEP = "exec-"
#: What is written down about a node and its container: before a model, and after a failure.
OF_NODES = frozenset({"facts", "environment", "diagnostics"})
_FILE = re.compile(r"(?:(?P<step>.+)\.)?rank(?P<rank>\d+)\.(?P<output>out|err)")
_NODE_FILE = re.compile(r"(?P<step>.+)\.(?P<output>out|err)")


@dataclass(frozen=True, slots=True)
class Source:
    """One stream of one rank (``rank`` -1: of a node). ``path`` is relative to the run directory."""

    path: str
    node: str
    case: str
    step: str
    rank: int
    output: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sources to show; an empty part selects all, an empty step all that are the run's own."""

    nodes: frozenset[str] = frozenset()
    ranks: tuple[range, ...] = ()
    step: str = ""
    case: str = ""
    output: str = ""

    def takes(self, source: Source) -> bool:
        """Whether the source is among those asked for."""
        return (
            (not self.nodes or source.node in self.nodes)
            and (not self.ranks or any(source.rank in some for some in self.ranks))
            and (source.step == self.step if self.step else not aside(source.step))
            and (not self.case or source.case == self.case)
            and (not self.output or source.output == self.output)
        )


def aside(step: str) -> bool:
    """Whether a step's output is no part of what the run says: that of exec, and what is told of nodes."""
    return step.startswith(EXEC_STEP) or step in OF_NODES


#: Every source.
ALL = Selection()


def parse(path: str, only_case: str = "") -> Source | None:
    """What a path (relative to the run directory) says; None for a file that is no workload's output.

    ``only_case``: the name of the case in a run that has one.
    """
    parts = path.split("/")
    if len(parts) not in (3, 4) or parts[0] != LOGS:
        return None
    node, case = parts[1], parts[2] if len(parts) == 4 else only_case
    match = _FILE.fullmatch(parts[-1])
    if match is not None:
        return Source(path, node, case, match["step"] or MAIN_STEP, int(match["rank"]), match["output"])
    match = _NODE_FILE.fullmatch(parts[-1])
    if match is not None:
        return Source(path, node, case, match["step"], NODE_LEVEL, match["output"])
    return None


def find(run: Path, only_case: str = "") -> dict[str, int]:
    """Every workload's log file below a run directory with its size, by path, in natural reading order."""
    found = dict(_walk(run, LOGS, 0))
    return {path: size for path, size in found.items() if parse(path, only_case) is not None}


def _walk(run: Path, folder: str, depth: int) -> Iterator[tuple[str, int]]:
    try:
        entries = sorted(os.scandir(run / folder), key=lambda entry: natural_key(entry.name))
    except OSError:
        return
    for entry in entries:
        path = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if depth < 2:
                yield from _walk(run, path, depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield path, entry.stat(follow_symlinks=False).st_size
