"""What Slurm's commands print about jobs and nodes, read. Pure functions of text.

The formats are those of squeue(1), scontrol(1), sacct(1) and sinfo(1), seen on Slurm 22.05 and documented for
newer ones. A word that is not known here is kept and reported as unknown; it is never a verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .base import AllocationHealth, AllocationReport

#: The allocation is ours, whether or not processes make progress in it (squeue(1), JOB STATE CODES).
HOLDING = frozenset({"RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"})
#: The nodes are gone or on their way. A job that we had and that waits again has lost its nodes as well.
OVER = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "COMPLETING",
        "DEADLINE",
        "EXPEDITING",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PENDING",
        "POWER_UP_NODE",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "REVOKED",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "TIMEOUT",
    }
)
#: Values with which Slurm says that there is nothing to say.
NOTHING = frozenset({"", "None", "(null)", "N/A", "n/a", "Unknown", "NOT_SET", "INVALID"})

_GONE = re.compile(r"Invalid job id|Invalid job/step|Job/step already complet|not found", re.IGNORECASE)
_FIELD = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z0-9_/:]*)=")


def health_of(state: str) -> AllocationHealth:
    """What a job state word means for the nodes; anything not known here is UNKNOWN."""
    word = state.split("+", 1)[0].split(" ", 1)[0].strip().upper()
    if word in HOLDING:
        return AllocationHealth.RUNNING
    return AllocationHealth.ENDED if word in OVER else AllocationHealth.UNKNOWN


def is_over(state: str) -> bool:
    """Whether a job in this state can never have nodes again, and has none now."""
    going = state in ("COMPLETING", "PENDING", "STAGE_OUT") or state.startswith("REQUEUE")
    return health_of(state) is AllocationHealth.ENDED and not going


@dataclass(frozen=True, slots=True)
class QueueLine:
    """What squeue says of a job; ``left`` and ``start`` as Slurm writes them, "" for nothing."""

    state: str
    reason: str = ""
    left: str = ""
    start: str = ""

    def words(self) -> str:
        """For people: "PENDING (Resources), expected to start 2026-01-01T10:00:00"."""
        why = f" ({self.reason})" if self.reason else ""
        when = f", expected to start {self.start}" if self.start and self.state == "PENDING" else ""
        return f"{self.state}{why}{when}"

    def report(self) -> AllocationReport:
        """As an answer about an allocation; the time that is left stands in for a reason."""
        left = f"{self.left} left" if self.left and health_of(self.state) is AllocationHealth.RUNNING else ""
        return AllocationReport(health_of(self.state), self.state, self.reason or left)


def parse_job_state(text: str) -> QueueLine | None:
    """The answer to ``slurm_argv.job_state``; None when there is no such job in it."""
    line = next((one for one in text.splitlines() if one.strip()), "")
    if not line:
        return None
    state, reason, left, start = (*(_something(part) for part in line.split("|")), "", "", "", "")[:4]
    return QueueLine(state, reason, left, start)


def parse_pairs(text: str) -> list[tuple[str, ...]]:
    """Lines of values between bars, such as the answers to ``jobs_of_user`` and ``steps_of_job``."""
    return [tuple(_something(part) for part in line.split("|")) for line in text.splitlines() if line.strip()]


def says_gone(text: str) -> bool:
    """Whether an error of Slurm means that the job or step is not there (any more)."""
    return bool(_GONE.search(text))


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What matters of ``scontrol show job``."""

    job_id: str
    state: str
    reason: str
    node_list: str
    end: str
    exit_code: str


def parse_job(text: str) -> JobRecord | None:
    """The answer to ``slurm_argv.show_job``; None when it holds no job."""
    fields = _fields(text)
    if "JobId" not in fields:
        return None
    return JobRecord(
        job_id=fields["JobId"],
        state=fields.get("JobState", ""),
        reason=_something(fields.get("Reason", "")),
        node_list=_something(fields.get("NodeList", "")),
        end=_something(fields.get("EndTime", "")),
        exit_code=fields.get("ExitCode", ""),
    )


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What matters of ``scontrol show node``. ``states``: the base state and flags, such as DOWN, DRAIN."""

    name: str
    states: tuple[str, ...]
    unreachable: bool
    reason: str

    def trouble(self) -> str:
        """Why nothing can run there, "" when Slurm sees nothing wrong."""
        bad = [word for word in self.states if word in _BAD_NODE]
        if not bad and not self.unreachable:
            return ""
        why = f" ({self.reason})" if self.reason else ""
        silent = ["not responding"] if self.unreachable and "NOT_RESPONDING" not in bad else []
        return f"Slurm says the node is {', '.join(bad + silent)}{why}"


_BAD_NODE = frozenset(
    {
        "DOWN",
        "DRAIN",
        "DRAINED",
        "DRAINING",
        "FAIL",
        "FAILING",
        "FUTURE",
        "INVALID",
        "INVALID_REG",
        "MAINT",
        "NOT_RESPONDING",
        "POWERED_DOWN",
        "POWERING_DOWN",
        "POWERING_UP",
        "POWER_DOWN",
        "REBOOT_ISSUED",
        "REBOOT_REQUESTED",
        "UNKNOWN",
    }
)


def parse_nodes(text: str) -> dict[str, NodeRecord]:
    """The answer to ``slurm_argv.show_nodes``, by node name."""
    found = {}
    for line in text.splitlines():
        fields = _fields(line)
        if "NodeName" not in fields:
            continue
        word = fields.get("State", "").upper()
        states = tuple(part.rstrip("*~#%$@^!-") for part in word.split("+"))
        unreachable = "*" in word or "NOT_RESPONDING" in states
        found[fields["NodeName"]] = NodeRecord(
            fields["NodeName"], states, unreachable, _something(fields.get("Reason", ""))
        )
    return found


def parse_accounting(text: str) -> AllocationReport | None:
    """The answer to ``slurm_argv.accounting``: the last record of the job; None when there is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    state, exit_code, reason = (*(_something(part) for part in lines[-1].split("|")), "", "", "")[:3]
    return AllocationReport(
        health_of(state), state, reason or (f"exit code {exit_code}" if exit_code else "")
    )


@dataclass(frozen=True, slots=True)
class PartitionLine:
    """Nodes of one state in one partition. ``default``: jobs that name none go there."""

    partition: str
    default: bool
    available: bool
    time_limit: str
    count: int
    state: str
    nodes: str
    gres: str


def parse_partitions(text: str) -> list[PartitionLine]:
    """The answer to ``slurm_argv.partitions``; lines that are not understood are left out."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 7 or not parts[3].isdigit():
            continue
        name, up, limit, count, state, nodes, gres = parts
        found.append(
            PartitionLine(
                name.rstrip("*"),
                name.endswith("*"),
                up == "up",
                limit,
                int(count),
                state,
                nodes,
                _something(gres),
            )
        )
    return found


def expand(node_list: str) -> tuple[str, ...]:
    """The names in a node list, in its own order; text that is none stays one name."""
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

    names: list[str] = []
    for piece in re.split(r",(?![^\[]*\])", node_list.strip()):
        if not piece:
            continue
        try:
            names.extend(NodeSet(piece, resolver=RESOLVER_NOGROUP))
        except NodeSetException:
            names.append(piece)
    return tuple(names)


def _something(value: str) -> str:
    stripped = value.strip()
    return "" if stripped in NOTHING else stripped


def _fields(text: str) -> dict[str, str]:
    """KEY=VALUE pairs of scontrol; a value reaches to the next key, so that it may hold blanks."""
    marks = list(_FIELD.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:] if marks else []
    found: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=True):
        found.setdefault(mark[1], text[mark.end() : end].strip())
    return found
