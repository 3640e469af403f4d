"""One job as slurmctld sees it: asked about, and given back for sure.

What we own must never stay behind: giving back means to cancel, to look whether it is gone, and to say so
when not.
"""

from __future__ import annotations

import asyncio
import getpass

from . import slurm_argv as argv
from .base import AllocationHealth, AllocationReport
from .slurm_commands import CommandError, SlurmCommands
from .slurm_text import QueueLine, is_over, parse_accounting, parse_job_state, parse_pairs, says_gone

#: How long a cancelled job may stay in the queue before that is an error, in seconds. It shows as COMPLETING
#: while its tasks have their KillWait (30 s by default), but then it can no longer go on.
RELEASE_DEADLINE_S = 15.0
#: Pauses between looks at a cancelled job, in seconds.
LOOK_S, LOOK_MAX_S = 0.1, 2.0


async def queue_line(commands: SlurmCommands, job_id: str) -> QueueLine | None:
    """What squeue says of a job, None when slurmctld knows no such job. Raises CommandError."""
    try:
        return parse_job_state((await commands.ask(argv.job_state(job_id))).out)
    except CommandError as error:
        if says_gone(error.words):
            return None
        raise


async def report(commands: SlurmCommands, job_id: str) -> AllocationReport:
    """One answer about an allocation. Trouble with the scheduler is UNKNOWN, with its words."""
    try:
        line = await queue_line(commands, job_id)
        if line is not None:
            return line.report()
        return await _forgotten(commands, job_id)
    except CommandError as error:
        return AllocationReport(AllocationHealth.UNKNOWN, "", error.words)


async def give_back(commands: SlurmCommands, job_id: str) -> str:
    """Cancel a job and see it go; "" when it is gone, else why that is not sure and what to type."""
    words = ""
    try:
        await commands.ask(argv.cancel_job(job_id))
    except CommandError as error:
        # Whether it went is for the queue to say: a cancel may have worked although its answer was lost.
        words = "" if says_gone(error.words) else error.words
    loop = asyncio.get_running_loop()
    limit, pause = loop.time() + RELEASE_DEADLINE_S, LOOK_S
    while True:
        try:
            line = await queue_line(commands, job_id)
        except CommandError as error:
            return _not_given_back(job_id, words or error.words)
        if line is None or is_over(line.state):
            return ""
        if loop.time() + pause > limit:
            return (
                ""
                if line.state == "COMPLETING"
                else _not_given_back(job_id, words or f"it is {line.words()}")
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LOOK_MAX_S)


async def jobs_of_run(commands: SlurmCommands, run_id: str) -> list[str]:
    """Jobs of ours that carry the run's comment, however little was heard of them. Raises CommandError."""
    lines = parse_pairs((await commands.ask(argv.jobs_of_user(getpass.getuser()))).out)
    return [line[0] for line in lines if len(line) == 3 and line[2] == argv.comment(run_id)]


async def step_number(commands: SlurmCommands, job_id: str, name: str) -> str:
    """The number of a step by its name, such as "12.0"; "" when Slurm holds none. Raises CommandError."""
    lines = parse_pairs((await commands.ask(argv.steps_of_job(job_id))).out)
    return next((line[0] for line in lines if line[1:] == (name,)), "")


async def _forgotten(commands: SlurmCommands, job_id: str) -> AllocationReport:
    try:
        found = parse_accounting((await commands.ask(argv.accounting(job_id))).out)
    except CommandError:
        found = None  # many clusters have no accounting; that the job is gone is known without it
    if found is None or found.health is not AllocationHealth.ENDED:
        return AllocationReport(AllocationHealth.ENDED, "GONE", f"Slurm knows no job {job_id} any more")
    return found


def _not_given_back(job_id: str, why: str) -> str:
    return f"cannot give job {job_id} back: {why}; end it with: scancel {job_id}"
