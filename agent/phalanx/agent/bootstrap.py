"""What an agent is told before it joins: one JSON line on stdin, and who it is from argv or the scheduler.

The line holds the run's secret; it is read once, stdin is then closed for everything that comes after.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: How long the bootstrap line may take, in seconds: srun broadcasts it as soon as the step runs.
READ_WITHIN_S = 30.0
#: Longest bootstrap line, in bytes.
LONGEST_LINE = 256 * 1024
#: Bytes of a SHA-256 fingerprint.
PIN_BYTES = 32

_NOT_OURS = "the bootstrap line on stdin is not what a controller sends"
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,127}")


class BootstrapError(Exception):
    """The agent cannot start; the message says why, for the one who started it."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Where the controller is and how to prove that we belong to its run."""

    run_id: str
    addresses: tuple[tuple[str, int], ...]
    pin: bytes
    secret: bytes = field(repr=False)
    agent_build: str
    join_timeout_s: float
    #: the command that gives the allocation back once the controller is gone for good, () for none
    give_back: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Which node this agent speaks for."""

    node: str
    node_rank: int


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def parse(line: bytes) -> Bootstrap:
    """The bootstrap of a line. Raises BootstrapError, without repeating any of it."""
    try:
        document = json.loads(line)
        told = Bootstrap(
            run_id=_text(document["run_id"]),
            addresses=tuple((str(host), int(port)) for host, port in document["addresses"]),
            pin=bytes.fromhex(document["pin"]),
            secret=bytes.fromhex(document["secret"]),
            agent_build=_text(document["agent_build"]),
            join_timeout_s=float(document["join_timeout_s"]),
            give_back=tuple(str(word) for word in document.get("give_back", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise BootstrapError(_NOT_OURS) from None
    # the run's id becomes part of a path
    if not _RUN_ID.fullmatch(told.run_id) or len(told.pin) != PIN_BYTES or not told.secret:
        raise BootstrapError(_NOT_OURS)
    return told


def read(fd: int = 0, within_s: float = READ_WITHIN_S) -> Bootstrap:
    """Read the line from ``fd``, then point ``fd`` at /dev/null so that no child inherits it."""
    line = b""
    deadline = time.monotonic() + within_s
    while b"\n" not in line:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise BootstrapError(f"no bootstrap line on stdin within {within_s:g} s")
        data = os.read(fd, 65536)
        if not data:
            raise BootstrapError("stdin ended before the bootstrap line was whole")
        line += data
        if len(line) > LONGEST_LINE:
            raise BootstrapError(f"the bootstrap line on stdin is longer than {LONGEST_LINE} bytes")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, fd)
    os.close(null)
    return parse(line.split(b"\n", 1)[0])


def identify(options: Mapping[str, str], environ: Mapping[str, str]) -> Identity:
    """Who this agent is: ``--node`` and ``--node-rank``, else what Slurm says.

    Raises BootstrapError for what is not a number or not there.
    """
    node = options.get("node") or environ.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]
    rank = options.get("node-rank") or environ.get("SLURM_NODEID") or ""
    if not rank.isdecimal():
        raise BootstrapError(f"cannot tell this node's rank: {rank!r} (SLURM_NODEID or --node-rank)")
    return Identity(node, int(rank))
