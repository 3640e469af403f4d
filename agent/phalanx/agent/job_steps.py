"""Ending the steps that a script of this node has left in its job.

``srun`` ends its step when it is told to end; one that was killed cannot. For Slurm the step then goes on,
and keeps what it holds from the next ``srun`` of the job; its tasks live on where srun's helper was killed as
well (both seen on Slurm 22.05). Agents find most tasks by the mark in their environment, but not those that
were started without it (``srun --export=NONE``), nor those on a node without an agent. A step is left behind
when its ``srun`` was on this node and is gone. Steps of phalanx are never touched: agents live on without
their ``srun``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from subprocess import DEVNULL, PIPE

from phalanx.agent.batch_script import batch_environment
from phalanx.agent.runtimes import processes

#: How long Slurm may take to answer, in seconds: the end of a case must not hang on a scheduler.
ASK_S = 15.0
#: The names of agents' steps begin so (the controller names them).
OURS = "phalanx-"
_NUMBER = re.compile(r"\bStepId=(\d+\.\d+)\b")
_NAME = re.compile(r"\bName=(\S+)")
_STARTER = re.compile(r"\bSrunHost:Pid=([^\s:]+):(\d+)")


def left_behind(text: str, host: str, runs: Callable[[int], bool]) -> list[str]:
    """The steps, ``12.3``, of ``scontrol --oneliner show step`` whose srun on this host does not run."""
    found = []
    for line in text.splitlines():
        number, name, starter = (pattern.search(line) for pattern in (_NUMBER, _NAME, _STARTER))
        if not number or not starter or (name and name[1].startswith(OURS)):
            continue
        if starter[1] == host and not runs(int(starter[2])):
            found.append(number[1])
    return found


async def end_left_behind(environ: Mapping[str, str] = os.environ) -> list[str]:
    """KILL what the job's gone sruns of this node have left; the steps. Nothing without a job."""
    job_id = environ.get("SLURM_JOB_ID", "")
    if not job_id:
        return []
    own = {"PATH": environ.get("PATH", os.defpath), **batch_environment(environ)}
    text = await _said(("scontrol", "--oneliner", "show", "step", job_id), own)
    steps = left_behind(text, socket.gethostname().split(".")[0], _is_srun)
    if steps:
        await _said(("scancel", "--signal=KILL", *steps), own)
    return steps


def _is_srun(pid: int) -> bool:
    """Whether that pid is an srun still; the number may have gone to another program."""
    process = processes.read(pid)
    return process is not None and process.state not in "ZX" and process.name.startswith("srun")


async def _said(command: tuple[str, ...], environ: dict[str, str]) -> str:
    """What a command prints, "" when it cannot be run or does not end."""
    try:
        asked = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=environ
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(ASK_S):
            out, _ = await asked.communicate()
    except TimeoutError:
        return ""
    finally:
        if asked.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                asked.kill()
            await asked.wait()
    return out.decode("utf-8", "replace")
