"""The worker's end of ``crew``: reads requests from stdin, calls what they name, prints the answers."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def say(answer: dict[str, Any]) -> None:
    """One line to whoever started us."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _serve(handlers: dict[str, Handler]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say({"ready": True})
    while line := await reader.readline():
        request = json.loads(line)
        try:
            answer = await handlers[request["do"]](request)
        except Exception as error:  # noqa: BLE001 - whoever asked must hear of it, else the benchmark hangs
            answer = {"error": f"{request['do']}: {type(error).__name__}: {error}"}
        say(answer)


def serve(handlers: dict[str, Handler]) -> None:
    """Answer until stdin ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(handlers))
