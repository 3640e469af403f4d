"""The engine's client as a process: its output to a log without secrets, ended for sure when called off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..logs.clean import clean_text
from ..plan.secrets import Secrets
from .argv import HELP_ARGV, PROGRAM, VERSION_ARGV, Builder, builder_of, inspect_argv

#: How long the engine may take for a small question, and a client to end once told to, in seconds.
ANSWER_S, GRACE_S = 30.0, 5.0
#: Longest line of output that is looked at as one, and answer that is read, in bytes.
LINE_BYTES, ANSWER_BYTES = 64 * 1024, 4 << 20


class BuildError(Exception):
    """A build that could not begin, or could not end well; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a short command ended, and its words."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Client:
    """Runs the client in the project's folder. ``environ``: its environment, without secrets."""

    project: Path
    environ: Mapping[str, str]

    async def ask(
        self,
        argv: Sequence[str],
        *,
        given: str = "",
        extra: Mapping[str, str] | None = None,
        within_s: float = ANSWER_S,
    ) -> Said:
        """A short command. Raises BuildError when there is no client, or no answer in time."""
        process = await self._start(argv, extra or {}, asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(within_s):
                out, err = await process.communicate(given.encode())
        except TimeoutError:
            raise BuildError(f"cannot ask the engine: no answer to {argv[1]} in {within_s:g} s") from None
        finally:
            await _ended(process)
        return Said(process.returncode or 0, _text(out), _text(err))

    async def follow(
        self,
        argv: Sequence[str],
        log: BinaryIO,
        secrets: Secrets,
        *,
        given: str = "",
        extra: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> int:
        """A long command: its output to ``log`` as it comes, each line to ``tell``; its exit status."""
        process = await self._start(argv, extra or {}, asyncio.subprocess.STDOUT)
        try:
            feeding = asyncio.create_task(_feed(process, given), name=f"input of {argv[1]}")
            try:
                async for line in _lines(process):
                    words = secrets.mask(line)
                    log.write(words.encode("utf-8", "backslashreplace") + b"\n")
                    log.flush()
                    tell(clean_text(words))
            finally:
                feeding.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await feeding
            return await process.wait()
        finally:
            await _ended(process)

    async def builder(self) -> Builder:
        """What can be built with. Raises BuildError when no engine answers."""
        said = await self.ask(VERSION_ARGV)
        if said.status or not said.out.strip():
            raise BuildError(
                f"cannot build: no container engine answers: {_last(said.err) or 'it says nothing'}; "
                "start one, set DOCKER_HOST, build on a compute node with --build-on-compute, or run without "
                "containers with --runtime process"
            )
        if self.environ.get("DOCKER_BUILDKIT") == "0":
            return builder_of(said.out.strip(), "")
        offered = await self.ask(HELP_ARGV, extra={"DOCKER_BUILDKIT": "1"})
        return builder_of(said.out.strip(), offered.out if offered.status == 0 else "")

    async def image(self, reference: str) -> dict[str, Any]:
        """What the engine knows of an image, {} when it does not have it."""
        said = await self.ask(inspect_argv(reference))
        if said.status:
            return {}
        try:
            found = json.loads(said.out)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    async def _start(
        self, argv: Sequence[str], extra: Mapping[str, str], err: int
    ) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=err,
                cwd=self.project,
                env={**self.environ, **extra},
                start_new_session=True,
                limit=LINE_BYTES,
            )
        except FileNotFoundError as error:
            raise BuildError(
                f"cannot build: there is no program {PROGRAM!r} on this machine; install the engine's "
                "client, or build on a compute node with --build-on-compute"
            ) from error
        except OSError as error:
            raise BuildError(f"cannot run {argv[0]}: {error.strerror}") from error


async def _feed(process: asyncio.subprocess.Process, given: str) -> None:
    stdin = process.stdin
    if stdin is None:
        return
    with contextlib.suppress(OSError):  # it has ended, and its status says why
        stdin.write(given.encode())
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    """Lines without their ends; one that is too long comes in pieces."""
    stream, rest = process.stdout, b""
    while stream is not None and (data := await stream.read(LINE_BYTES)):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r").decode("utf-8", "replace")
        if len(rest) > LINE_BYTES:
            yield rest.decode("utf-8", "replace")
            rest = b""
    if rest:
        yield rest.decode("utf-8", "replace")


async def _ended(process: asyncio.subprocess.Process) -> None:
    """No process is left: TERM to its group, KILL after a moment; also when we are called off again."""
    if process.returncode is not None:
        return
    _kill(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(GRACE_S):
            await process.wait()
        return
    except TimeoutError:
        _kill(process.pid, signal.SIGKILL)
    except asyncio.CancelledError:
        _kill(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    await process.wait()


def _kill(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _text(data: bytes) -> str:
    return data[:ANSWER_BYTES].decode("utf-8", "replace")


def _last(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return clean_text(lines[-1]) if lines else ""
