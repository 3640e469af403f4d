"""Running Slurm's short commands: each with a deadline of its own, tried again when slurmctld is only busy.

Trouble with the scheduler is reported, never believed: a caller that cannot ask does not know, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .environment import slurm_environment
from .slurm_words import error_words, is_transient

#: Slurm's own message timeout is 10 s by default and each command tries a backup controller too.
COMMAND_DEADLINE_S = 30.0
#: Pauses before each further try, in seconds, spread by half either way so that many runs do not ask in step.
RETRY_PAUSES_S = (0.5, 1.5, 4.0)


class CommandError(Exception):
    """A Slurm command failed for good. ``words``: its own, ``transient``: it may still work later."""

    def __init__(self, argv: Sequence[str], words: str, *, transient: bool) -> None:
        super().__init__(f"{shlex.join(argv)}: {words}")
        self.words = words
        self.transient = transient


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed before it ended with ``status``."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class SlurmCommands:
    """The commands of one cluster, as the environment names it."""

    environ: Mapping[str, str]
    deadline_s: float = COMMAND_DEADLINE_S
    pauses_s: tuple[float, ...] = RETRY_PAUSES_S
    spread: Callable[[], float] = lambda: random.uniform(0.5, 1.5)  # noqa: S311 - a pause, not a secret

    @classmethod
    def here(cls) -> SlurmCommands:
        """With the environment of this process."""
        return cls(slurm_environment(os.environ))

    async def ask(self, argv: Sequence[str]) -> Answer:
        """Output of a command. Raises CommandError when it fails, also after further tries where these may
        help."""
        for pause in (*self.pauses_s, None):
            try:
                answer = await self._once(argv)
            except OSError as error:
                words = f"{error.strerror}; are Slurm's commands installed here and on PATH?"
                raise CommandError(argv, words, transient=False) from error
            if answer is not None and answer.status == 0:
                return answer
            words = error_words(answer.err) if answer else f"no answer within {self.deadline_s:g} s"
            transient = answer is None or is_transient(answer.err)
            if pause is None or not transient:
                raise CommandError(argv, words, transient=transient)
            await asyncio.sleep(pause * self.spread())
        raise AssertionError("unreachable")

    async def _once(self, argv: Sequence[str]) -> Answer | None:
        """One try; None when its deadline passed. Raises OSError when it cannot be started."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(self.environ),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self.deadline_s):
                out, err = await process.communicate()
        except TimeoutError:
            return None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return Answer(process.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
