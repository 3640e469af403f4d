"""How long the planner's plans for images take for 8 to 10,000 nodes, simulated, beside one registry.

Nothing is measured here and no clock is read: the plans that the controller makes are played chunk by chunk
(``image_simulation``), and the same options give the same table. ``predicted_s`` is what the plan says of
itself, ``simulated_s`` when the last node had the last byte. ``registry_s``: all pull from one link (N S /
B).

``slow``: one node at a tenth of the speed, for several nodes one after another, the worst of them. When the
others are done: ``unnoticed_s``, ``noticed_s`` (it is found after ``--notice`` seconds, and a new plan
makes it a leaf), ``known_s`` (from the start); ``itself_s``: itself, once noticed. ``dying``: one node dies
at half of the time; its readers find out after ``--detect`` seconds, go to the next parent of their list
and on from the last verified chunk. ``lists_s``: when the others are done by their lists alone;
``replanned_s``: with a new plan soon after.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from phalanx.controller.images.planner import CONTROLLER, Candidate, Links, SyncPlan, make_plan

from benchmarks.image_simulation import Fleet

SLOW = 0.1
#: Figures with one bad node that the table has.
BAD_NODES = (
    *(("slow", "unnoticed_s"), ("slow", "noticed_s"), ("slow", "known_s")),
    *(("dying", "lists_s"), ("dying", "replanned_s")),
)
#: Seconds from the readers' moving on until a new plan has reached everyone.
REPLAN_S = 0.5


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    size: int = 30_000_000_000
    links: Links = field(default_factory=lambda: Links(3.125e9, 3.125e9))
    notice_s: float = 1.5
    detect_s: float = 3.0
    samples: int = 3
    seed: int = 1


@dataclass(frozen=True)
class Case:
    """One number of nodes in a setting."""

    setting: Setting
    nodes: int

    @property
    def names(self) -> list[str]:
        return [f"n{index:05}" for index in range(self.nodes)]

    def plan(self, slow: str = "", dead: str = "", previous: SyncPlan | None = None) -> SyncPlan:
        candidates = [Candidate(name, 0, slow=name == slow) for name in self.names if name != dead]
        return make_plan([self.setting.size], candidates, CONTROLLER, self.setting.links, previous)

    @cached_property
    def first(self) -> SyncPlan:
        """Of which nobody knows anything."""
        return self.plan()

    def fleet(self, plan: SyncPlan, slow: str = "") -> Fleet:
        return Fleet(self.setting.size, self.setting.links, plan, {slow: SLOW} if slow else {})

    def victims(self) -> list[str]:
        """The first of the order, on whom most depend in a chain, and some more."""
        order = self.first.order
        chosen = random.Random(self.setting.seed).sample(order[1:], min(self.setting.samples, self.nodes) - 1)
        return [order[0], *chosen]

    def others(self, victim: str) -> list[str]:
        return [name for name in self.names if name != victim]


def healthy(case: Case) -> float:
    """All nodes well."""
    fleet = case.fleet(case.first)
    fleet.run()
    return max(fleet.finished(case.names))


def slow(case: Case, victim: str) -> dict[str, float]:
    """When the others are done although ``victim`` is slow."""
    first = case.first
    unnoticed = case.fleet(first, victim)
    unnoticed.run()
    noticed = case.fleet(first, victim)
    noticed.run(case.setting.notice_s)
    noticed.follow(case.plan(slow=victim, previous=first))
    noticed.run()
    known = case.fleet(case.plan(slow=victim), victim)
    known.run()
    others = case.others(victim)
    return {
        "unnoticed_s": max(unnoticed.finished(others)),
        "noticed_s": max(noticed.finished(others)),
        "known_s": max(known.finished(others)),
        "itself_s": max(noticed.finished([victim])),
    }


def dying(case: Case, victim: str) -> dict[str, float]:
    """When the others are done although ``victim`` dies half way."""
    first = case.first
    at = first.predicted_s / 2
    found = {}
    for name, replans in (("lists_s", False), ("replanned_s", True)):
        fleet = case.fleet(first)
        fleet.run(at)
        fleet.die(victim)
        fleet.run(at + case.setting.detect_s)
        fleet.move_on()
        if replans:
            fleet.run(at + case.setting.detect_s + REPLAN_S)
            fleet.follow(case.plan(dead=victim, previous=first))
        fleet.run()
        found[name] = max(fleet.finished(case.others(victim)))
    return found


def worst(found: list[dict[str, float]]) -> dict[str, float]:
    """The largest of each figure."""
    return {name: round(max(one[name] for one in found), 2) for name in found[0]}


def row(case: Case) -> dict[str, Any]:
    """All figures for one number of nodes."""
    plan, links = case.first, case.setting.links
    figures: dict[str, Any] = {
        "nodes": case.nodes,
        "shape": plan.shape,
        "floor_s": round(case.setting.size / links.rate, 2),
        "predicted_s": round(plan.predicted_s, 2),
        "simulated_s": round(healthy(case), 2),
        "registry_s": round(case.nodes * case.setting.size / links.uplink, 1),
        "source_bytes": plan.source_bytes,
        "most_readers": max(route.children for route in plan.routes.values()),
    }
    if case.nodes > 1:
        victims = case.victims()
        figures["slow"] = worst([slow(case, victim) for victim in victims])
        figures["dying"] = worst([dying(case, victim) for victim in victims])
    return figures


def table(nodes: list[int], setting: Setting) -> dict[str, Any]:
    """One document."""
    return {
        "image_bytes": setting.size,
        "links": asdict(setting.links),
        "notice_s": setting.notice_s,
        "detect_s": setting.detect_s,
        "seed": setting.seed,
        "rows": [row(Case(setting, count)) for count in nodes],
    }


def show(found: dict[str, Any]) -> None:
    """A table."""
    links = found["links"]
    print(
        f"{found['image_bytes'] / 1e9:g} GB, uplink {links['uplink'] / 1e9:g} GB/s, "
        f"ingest {links['ingest'] / 1e9:g} GB/s; seconds"
    )
    heads = ["nodes", "shape", "floor", "predicted", "simulated", "registry"]
    heads += ["slow unnoticed", "noticed", "known", "dying lists", "replanned"]
    lines = [heads]
    for one in found["rows"]:
        figures = [one[name] for name in ("nodes", "shape", "floor_s", "predicted_s", "simulated_s")]
        figures.append(one["registry_s"])
        figures += [one[kind][name] for kind, name in BAD_NODES if kind in one]
        lines.append([str(figure) for figure in figures])
    for line in lines:
        print("  ".join(f"{cell:>{len(head)}}" for cell, head in zip(line, heads, strict=False)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 64, 512, 4096, 10000])
    parser.add_argument("--size", type=float, default=30.0, help="GB of the image")
    parser.add_argument("--gbit", type=float, default=25.0, help="of each link")
    parser.add_argument(
        "--ingest", type=float, nargs="+", default=[3.125, 0.9], help="GB/s; a table for each"
    )
    parser.add_argument("--notice", type=float, default=1.5, help="seconds until a slow node is known")
    parser.add_argument("--detect", type=float, default=3.0, help="seconds until a dead parent is left")
    parser.add_argument("--samples", type=int, default=3, help="nodes that are slow, or die, one at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    found = []
    for ingest in options.ingest:
        links = Links(options.gbit * 1e9 / 8, ingest * 1e9)
        size = round(options.size * 1e9)
        setting = Setting(size, links, options.notice, options.detect, options.samples, options.seed)
        found.append(table(options.nodes, setting))
    if options.json:
        print(json.dumps({"tables": found}))
        return
    for one in found:
        show(one)


if __name__ == "__main__":
    main()
