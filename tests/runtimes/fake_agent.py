"""An agent reduced to what a fault test kills: it runs a command and renews the lease until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from phalanx.agent.lease import boottime
from phalanx.agent.runtimes.base import CasePlaces, Owner
from phalanx.agent.runtimes.selection import runtime
from phalanx.protocol import messages


async def main(kind: str, root: Path, image: str, lease_s: float, script: str) -> None:
    chosen = runtime(messages.Runtime(kind), root)
    await chosen.open(None)
    spec = messages.ContainerSpec(messages.Runtime(kind), image=image if kind == "docker" else "")
    base = root / "cases" / "case"
    places = CasePlaces(base, base / "work", base / "results", base / "spool", base / "sock")
    owner = Owner("20260101-run-dead", "n1", 0, "dead01", 0, lease_s)
    place = await chosen.open_case(messages.CaseOpen(1, "case", spec, (0,), 1, None), places, owner)
    step = messages.StepStart("case", "main", ("sh", "-c", script), {}, {}, (0,), 0.0)
    await place.start(step, 0, {}, places.spool / "main" / "rank0")
    sys.stdout.write("running\n")
    sys.stdout.flush()
    while True:
        place.lease.renew(boottime() + lease_s)
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    _, kind, root, image, lease_s, script = sys.argv
    asyncio.run(main(kind, Path(root), image, float(lease_s), script))
