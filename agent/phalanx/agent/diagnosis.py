"""What this node sees of a case that goes wrong, written down once and sent like a log.

The first to ask decides what is seen: a deadline asks before it ends anything, since of a script that hangs
the processes and their connections say more than its output, and afterwards they are gone.
"""

from __future__ import annotations

import asyncio

from phalanx.agent.logs import LogPump
from phalanx.agent.runtimes.base import CasePlaces, Place
from phalanx.protocol.messages import NODE_LEVEL, LogOpen

STEP = "diagnostics"
#: How long a deadline may be put off to look at what hangs, in seconds. A look takes some milliseconds, a
#: node that is short of everything much longer.
LOOK_S = 5.0


async def write_down(case: str, places: CasePlaces, place: Place, logs: LogPump) -> None:
    """Look, once per case. Raises RuntimeUnavailable or OSError."""
    # not in the spool: a container can write there, and could lead us elsewhere by a link
    path = places.base / "diagnostics.txt"
    if path.exists():
        return
    path.touch(mode=0o600)
    text = await place.diagnose()
    await asyncio.to_thread(path.write_text, text, "utf-8", "backslashreplace")
    logs.finish(logs.follow(lambda number: LogOpen(number, case, STEP, NODE_LEVEL, "out"), path))
