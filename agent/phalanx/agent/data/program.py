"""The program of a data step: take the first provider that can be used here, and have the data in its folder.

``python ... data REQUEST``, started by the agent on the controller's word. It ends with 0 and a record beside
the case's results, or with 1 and a line on why; see ``request`` for what it is told.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from phalanx.agent.data.agreement import agree
from phalanx.agent.data.holding import held
from phalanx.agent.data.progress import du_size
from phalanx.agent.data.record import Record, add_record
from phalanx.agent.data.request import DataError, Request, Source, read_request

#: sysexits.h: EX_USAGE.
_USAGE = 64
#: 128 + SIGTERM.
_TERMINATED = 143


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider that can be used. ``fetch`` brings the data and gives its bytes, -1 when nobody counted."""

    provider: str
    where: str
    fetch: Callable[[], int]


def say(words: str) -> None:
    """A line of the step's log."""
    sys.stdout.write(_plain(words) + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """The whole program; the exit status."""
    os.umask(0o022)  # whoever runs in a container has to read what comes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        request = read_request(argv, os.environ)
    except DataError as error:
        return _failed(str(error), _USAGE)
    try:
        provide(request)
    except SystemExit:
        return _TERMINATED
    except DataError as error:
        return _failed(str(error), 1)
    except OSError as error:
        return _failed(f"{request.cannot}: {error}", 1)
    except Exception as error:  # noqa: BLE001 - the door: people read a line, not a traceback
        words = f"internal error: {type(error).__name__}: {error}"
        return _failed(f"{request.cannot}: {words}", 1)
    return 0


def _failed(words: str, status: int) -> int:
    words = _plain(words)
    sys.stderr.write(words + "\n")
    if path := os.environ.get("PHALANX_DATA_WHY"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(words.encode("utf-8", "replace")[:4096])
    return status


def _plain(words: str) -> str:
    """One line: names of files and answers of servers are other people's text."""
    return "".join(character if character.isprintable() else "?" for character in words)


def provide(request: Request) -> None:
    """Choose, agree with the other nodes, fetch, record. Raises DataError, OSError."""
    choice, reasons = choose(request)
    for provider, why in reasons.items():
        say(f"{provider} cannot be used here: {why}")
    say(f"data set {request.name} is taken from {choice.provider}: {choice.where}")
    agree(request, choice.provider, reasons)
    began = time.monotonic()
    try:
        count = choice.fetch()
    except DataError as error:
        raise DataError(f"{request.cannot}: {error}") from error
    seconds = time.monotonic() - began
    counted = count >= 0
    add_record(
        request.results,
        Record(
            request.name,
            choice.provider,
            du_size(count) if counted else "",
            f"{seconds:.2f}" if counted and choice.provider != "custom" else "",
        ),
    )


def choose(request: Request) -> tuple[Choice, dict[str, str]]:
    """The first provider that can be used, and why those before it cannot. Raises DataError."""
    reasons: dict[str, str] = {}
    for source in request.sources:
        found = _tried(request, source)
        if isinstance(found, Choice):
            return found, reasons
        reasons[source.provider] = found
    words = "; ".join(f"{provider}: {why}" for provider, why in reasons.items())
    raise DataError(f"{request.cannot}: {words}")


def _tried(request: Request, source: Source) -> Choice | str:
    """The choice that a source is, or why it is none."""
    if source.refused:
        return source.refused
    if source.provider == "local":
        if request.kind == "source":
            return Choice("local", source.path, lambda: -1)
        return f"{source.path} is not on this node"
    if source.provider == "custom":
        return Choice("custom", source.path, lambda: _measured(request.folder))
    if request.kind == "source":
        return "the case was opened with the local folder"
    if request.mirror and request.kind != "mirror":
        return f"it is to be kept in {request.mirror}, which is not a folder of this node"
    return _remote(request, source)


def _remote(request: Request, source: Source) -> Choice | str:
    if source.provider == "nas":
        from phalanx.agent.data.nas import reached

        return reached(request, source, say)
    from phalanx.agent.data.s3 import open_bucket

    try:
        bucket = open_bucket(source, request.library, say)
    except DataError as error:
        return str(error)
    if why := bucket.why_not():
        return why

    def fetch() -> int:
        with held(request.folder, f"{source.provider} {bucket.where}", say) as holding:
            return bucket.fetch(holding, alone=request.kind == "cache")

    return Choice(source.provider, bucket.where, fetch)


def _measured(folder: Path) -> int:
    """Bytes of all files of a folder, links not followed."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(root, name).lstat().st_size
            except OSError:
                continue  # gone again
    return total


def missing_programs(*names: str) -> str:
    """Words for the programs of these that this node has not, "" when it has all."""
    lacking = [name for name in names if shutil.which(name) is None]
    return f"{' and '.join(lacking)} is not on this node; install it" if lacking else ""
