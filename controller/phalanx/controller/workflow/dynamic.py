"""Models that a program makes: ``scripts/<dir>/get_models_json.py``, run in a process of its own.

It is somebody else's code: it gets a deadline, a limit on what it answers, no input, and its own session, of
which everything ends with the answer. What it prints is shown only when it fails. It runs once to list
models and, where tags have chosen some of them, once more with the ``update_model()`` of those: that may be
slow, and the others have no use for it. The other side, and the form of the answer, is in ``model_program``.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..logs.clean import clean, clean_text
from .errors import InputError
from .place import FILE_LIMIT

MODELS_PROGRAM = "get_models_json.py"
#: Seconds that a program may take: enough to ask a network, not enough to be taken for a hang of ours.
DEADLINE_S = 60.0
#: Seconds between two looks whether a process has ended that another one keeps the pipes of.
LOOK_S = 0.05
#: Of what the program printed: bytes kept, and lines shown.
TAIL_BYTES, TAIL_LINES = 8192, 12
CHUNK = 65536


class Ended(NamedTuple):
    """How the process ended. ``why``: for what we ended it; ``status``: negative for a signal."""

    answer: bytes
    printed: bytes
    status: int
    why: str = ""


def listed(project: Path, shown: str, deadline_s: float = DEADLINE_S) -> list[dict[str, Any]]:
    """The models of the program ``shown`` (its path in the project), as entries. Raises InputError."""
    return _models(project, shown, None, deadline_s)


def updated(
    project: Path, shown: str, names: Sequence[tuple[int, str]], deadline_s: float = DEADLINE_S
) -> list[dict[str, Any]]:
    """The entries at these places after their ``update_model()``; ``names`` has (place, plain name).

    Raises InputError, also when the program lists other models than before.
    """
    entries = _models(project, shown, [index for index, _ in names], deadline_s)
    for (index, name), entry in zip(names, entries, strict=True):
        if entry.get("name") != name:
            raise InputError(
                f"cannot read {shown}: [{index}] is {entry.get('name')!r} now and was {name!r} a moment ago; "
                "list_models() must give the same each time"
            )
    return entries


def _models(project: Path, shown: str, indexes: list[int] | None, deadline_s: float) -> list[dict[str, Any]]:
    root = project.absolute()
    scope = Path(shown).parent.name
    ended = _run(root, [str(root / shown), scope], json.dumps(indexes), deadline_s, shown)
    document: dict[str, Any] = {"refused": ended.why} if ended.why else _document(ended)
    if "refused" not in document:
        models: list[dict[str, Any]] = document["models"]
        return models
    why = str(document["refused"])
    listing = str(Path(shown).with_name("models.json"))
    raise InputError(
        f"cannot read {shown}: {clean_text(why)}; mend it, or write its models to {listing} in its place"
        + _last_words(ended.printed)
    )


def _document(ended: Ended) -> dict[str, Any]:
    try:
        document = json.loads(ended.answer)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and document.keys() & {"models", "refused"}:
        return document
    how = f"by signal {-ended.status}" if ended.status < 0 else f"with status {ended.status}"
    return {"refused": f"it ended {how} and gave no answer"}


def _last_words(printed: bytes) -> str:
    text = clean(printed).decode("utf-8", "replace").strip("\n")
    if not text:
        return ""
    lines = text.splitlines()[-TAIL_LINES:]
    return "\nwhat it printed last:" + "".join(f"\n  | {line}" for line in lines)


def _run(root: Path, words: list[str], indexes: str, deadline_s: float, shown: str) -> Ended:
    """Run the program in a session of its own and take its answer; nothing of that session is left."""
    answers, out = os.pipe()
    host = str(Path(__file__).with_name("model_program.py"))
    try:
        process = subprocess.Popen(
            # -P: the project's files must not stand in for modules. -B: nothing is written into the project.
            [sys.executable, "-P", "-B", host, *words, str(out), indexes],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(out,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(answers)
        raise InputError(f"cannot run {shown}: {error.strerror}") from error
    finally:
        os.close(out)
    assert process.stdout is not None  # noqa: S101 - it was asked for
    heard: dict[int, bytearray] = {answers: bytearray(), process.stdout.fileno(): bytearray()}
    try:
        why = _listen(process, heard, answers, time.monotonic() + deadline_s)
    finally:
        # The process is not reaped yet, so the number of its group cannot be somebody else's by now.
        os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        os.close(answers)
        process.stdout.close()
    if why == "deadline":
        why = f"it did not end within {deadline_s:g} s"
    answer, printed = heard.values()
    return Ended(bytes(answer), bytes(printed), status, why)


def _listen(process: subprocess.Popen[bytes], heard: dict[int, bytearray], answers: int, end: float) -> str:
    """Take what comes until the process has ended; "", or why it has to be ended."""
    with selectors.DefaultSelector() as ready:
        for source in heard:
            os.set_blocking(source, False)
            ready.register(source, selectors.EVENT_READ)
        while True:
            over = _over(process)
            left = end - time.monotonic()
            if left <= 0 and not over:
                return "deadline"
            # With both ends closed the process is about to end, and there is nothing to be woken by.
            pause = LOOK_S if ready.get_map() else LOOK_S / 25
            for key, _ in ready.select(0 if over else min(left, pause)):
                if not _take(key.fd, heard[key.fd], TAIL_BYTES if key.fd != answers else 0):
                    ready.unregister(key.fd)
            if len(heard[answers]) > FILE_LIMIT:
                return f"its answer is larger than {FILE_LIMIT // (1024 * 1024)} MiB"
            if over:
                return ""


def _take(source: int, into: bytearray, keep: int) -> bool:
    """Read what is there; only the last ``keep`` bytes stay if that is not 0. False at the end."""
    for _ in range(FILE_LIMIT // CHUNK + 1):  # a program that never stops talking must not hold this up
        try:
            block = os.read(source, CHUNK)
        except BlockingIOError:
            return True
        if not block:
            return False
        into += block
        if keep and len(into) > keep:
            del into[:-keep]
    return True


def _over(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, without reaping it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
