"""What somebody asks for by name, and a run has not: a filter that nothing can answer to is a slip.

A run that is still starting may get what it has not: then nothing is strange yet, and who follows it waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from phalanx.controller.logs.sources import EXEC_STEP, OF_NODES, find, parse
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.model import RunView


def strange_nodes(view: RunView, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that are no nodes of the run and can no longer become any."""
    if not view.finished and len(view.nodes) < max(1, view.expected):
        return ()
    return tuple(name for name in names if name not in view.nodes)


def strange_case(view: RunView, name: str) -> bool:
    """Whether the run has no case of this name and will not have one."""
    settled = view.finished or bool(view.case_names)
    return settled and name not in view.case_names and name not in view.cases


def steps_of(run: RunDirectory, view: RunView) -> tuple[str, ...]:
    """The steps of a run, those of its plan first, then those that only wrote something or ended."""
    written = (source.step for path in find(run.path) if (source := parse(path)) is not None)
    return tuple(dict.fromkeys([*_planned(run), *(rank.step for rank in view.ranks.values()), *written]))


def strange_step(run: RunDirectory, view: RunView, name: str) -> bool:
    """Whether no step of the run has this name, nor can one get it."""
    if name in OF_NODES or name in steps_of(run, view):
        return False
    return view.finished or (not name.startswith(EXEC_STEP) and bool(_planned(run)))


def _planned(run: RunDirectory) -> list[str]:
    """Names of the steps in plan.json; [] when it cannot be read."""
    try:
        cases = json.loads(run.plan.read_bytes())["cases"]
        return [str(step["name"]) for case in cases for step in case["steps"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
