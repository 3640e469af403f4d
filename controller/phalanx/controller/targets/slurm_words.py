"""What salloc and srun print on stderr, read: job numbers, which node a line is about, and why an agent is
missing.

Pure functions of text, seen on Slurm 22.05 and documented for newer ones. Slurm's own words are always kept;
what is added is the sentence that a person needs beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .slurm_text import expand

_JOB = re.compile(
    r"^salloc: (?:Granted job allocation|Pending job allocation|job|Nodes .* ready for job) (\d+)\b"
)
_GRANTED = re.compile(r"^salloc: Granted job allocation (\d+)")
_LABEL = re.compile(r"^ *(\d+): (.*)$", re.DOTALL)
_NODE_TASK = re.compile(
    r"^srun: (?:error: |launch/slurm: .*?: )?([A-Za-z0-9_.\[\],-]+): tasks? [\d\[\],-]+: (.*)$"
)
_NODE_NAMED = re.compile(r"\b(?:on node|[Nn]ode failure on|for node|to node|on host) ([A-Za-z0-9_.\[\],-]+)")
_TASK_ENDED = re.compile(
    r"^srun: (?:error: )?[A-Za-z0-9_.\[\],-]+: tasks? [\d\[\],-]+: "
    r"(?:Exited with exit code \d+|Killed|Terminated|Aborted|Segmentation fault|Out Of Memory)"
)
_EXIT = re.compile(r"Exited with exit code (\d+)")
_OWN_WORDS = re.compile(
    r"^(?:srun|salloc|scancel|scontrol|squeue|sacct|slurmstepd(?:-\S+)?|slurm_\w+)(?: error)?: "
)
#: The end of a step is announced by the daemon of its first node, which has no more to do with it than the
#: others.
_STEP_NEWS = re.compile(r"\*\*\* (?:STEP|JOB) ")

_COMMAND = re.compile(
    r"^(?:(?:srun|salloc|scancel|scontrol|squeue|sacct|sinfo): |slurm_load_\w+ )(?:(?:error|fatal): )?"
)
_PROGRESS = re.compile(
    r"^salloc: (?:Requested partition configuration not available now|Pending job allocation"
    r"|job \d+ (?:queued|has been)|Granted job allocation|Waiting for resource|Nodes .* are ready)"
)
_LAUNCH_FAILED = re.compile(
    r"Task launch for \S+ failed on node ([A-Za-z0-9_.\[\],-]+)|REQUEST_FILE_BCAST\(([A-Za-z0-9_.\[\],-]+)\)"
)

#: Lines that say nothing to anyone: printed by every srun of some clusters.
NOISE = ("srun: cluster configuration lacks support for cpu binding",)

_TRANSIENT = re.compile(
    r"Socket timed out|Unable to contact slurm controller|Connection refused|Connection reset"
    r"|Communication connection failure|Zero Bytes were transmitted|try again"
    r"|temporarily (?:unable|unavailable|disabled)|Resource temporarily unavailable"
    r"|Slurm backup controller in standby|in standby mode|slurmctld .*not responding|Message receive failure"
    r"|Protocol authentication error|Munge .*connect",
    re.IGNORECASE,
)

#: What a shell's or Slurm's exit status means for an agent (sh(1): 126, 127).
EXIT_HINTS = {
    126: "the agent file could not be executed there: is /tmp mounted noexec?",
    127: "no Python 3 was found on the node; name one that is there with --agent-python",
    137: "the agent was killed",
    143: "the agent was told to end",
}

_BUSY = (
    "other steps of the job hold its CPUs or memory (start them with --overlap), or a node is not available"
)

#: Words of Slurm and the sentence that belongs beside them, first match first.
LINE_HINTS = (
    (
        "step creation temporarily disabled",
        _BUSY,
    ),
    ("Requested nodes are busy", _BUSY),
    ("Communication connection failure", "its slurmd does not answer"),
    ("Socket timed out", "its slurmd does not answer"),
    ("Node failure", "Slurm has lost the node"),
    ("Permission denied", "the agent file could not be executed there: is /tmp mounted noexec?"),
    ("No space left on device", "the disk of the node is full"),
    ("xpired", "the allocation is over"),
    ("Invalid job id", "the allocation is over"),
    ("Out Of Memory", "the node's memory limit ended the agent"),
    ("oom", "the node's memory limit ended the agent"),
)

#: Why a job waits, where Slurm's word needs one (squeue(1), JOB REASON CODES).
REASON_HINTS = {
    "AssocGrpNodeLimit": "the account's node limit is reached",
    "BadConstraints": "no node can ever satisfy this request",
    "Dependency": "it waits for another job",
    "InvalidAccount": "the account is not valid; choose one with --account",
    "InvalidQOS": "the QOS is not valid; choose one with --qos",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "it is held; scontrol release lets it go",
    "NodeDown": "a node that it needs is down",
    "PartitionConfig": "the partition does not allow such a job: ask for fewer nodes or less time",
    "PartitionDown": "the partition is down; choose another with --partition",
    "PartitionInactive": "the partition is inactive; choose another with --partition",
    "PartitionNodeLimit": "the partition has not so many nodes; ask for fewer",
    "PartitionTimeLimit": "the partition does not allow so much time; ask for less with --time",
    "Priority": "other jobs go first",
    "QOSMaxNodePerUserLimit": "your node limit is reached",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "Reservation": "it waits for its reservation",
    "Resources": "it waits for nodes to become free",
}


def reason_hint(reason: str) -> str:
    """The sentence for a pending reason, "" when Slurm's word says enough or is not known here."""
    return REASON_HINTS.get(re.split(r"[,:( ]", reason, maxsplit=1)[0], "")


def job_number(line: str) -> str:
    """The job that a line of salloc speaks of, pending or granted; "" for none."""
    found = _JOB.match(line)
    return found[1] if found else ""


def granted_number(line: str) -> str:
    """The job that this line of salloc grants; "" for none."""
    found = _GRANTED.match(line)
    return found[1] if found else ""


def is_transient(text: str) -> bool:
    """Whether an error of a Slurm command may pass when it is tried again (slurmctld busy, restarting)."""
    return bool(_TRANSIENT.search(text))


def error_words(text: str) -> str:
    """What a Slurm command that failed has to say: its last words, without news of progress and its own
    name."""
    lines = [line.strip() for line in text.splitlines()]
    words = [_COMMAND.sub("", line) for line in lines if line and not _PROGRESS.match(line)]
    return "; ".join(list(dict.fromkeys(words))[-3:]) or (lines[-1] if lines else "") or "it said nothing"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A line of srun's output and the nodes it is about; () when it is about none in particular."""

    nodes: tuple[str, ...]
    text: str


def attribute(line: str, nodes: Sequence[str]) -> Spoken:
    """Whose line it is. ``nodes``: the step's nodes by task number, one task each."""
    failed = failed_nodes(line)
    if failed:
        return Spoken(tuple(node for node in failed if node in nodes), line)
    label = _LABEL.match(line)
    if label and int(label[1]) < len(nodes):
        text = label[2]
        return Spoken(() if _STEP_NEWS.search(text) else (nodes[int(label[1])],), text)
    if _STEP_NEWS.search(line):
        return Spoken((), line)
    named = _NODE_TASK.match(line) or _NODE_NAMED.search(line)
    known = tuple(one for one in expand(named[1].rstrip(".,")) if one in nodes) if named else ()
    return Spoken(known, line)


def agent_ended(line: str) -> bool:
    """Whether srun says by this line that a task of its step, an agent, has ended badly."""
    return _TASK_ENDED.match(line) is not None


def failed_nodes(line: str) -> tuple[str, ...]:
    """Nodes on which srun could not start anything, by this line. It then ends what it started on all
    others."""
    found = _LAUNCH_FAILED.search(line)
    return expand(found[1] or found[2]) if found else ()


def explain(said: Sequence[str], general: Sequence[str] = (), failed: Sequence[str] = ()) -> str:
    """Why a node's agent is not there: Slurm's last words, and the agent's own or what those mean, or "".

    ``general``: srun's lines about no node, taken when nothing was said of this one. ``failed``: other nodes,
    for whose sake srun ended the agents of all.
    """
    slurm = [line for line in said if _OWN_WORDS.match(line)]
    own = [line for line in said if not _OWN_WORDS.match(line)]
    if failed and (not slurm or slurm[-1].endswith(": Killed")):
        return f"srun ended the agents of all nodes because it could not start one on {', '.join(failed)}"
    if not said:
        slurm = [
            line for line in _since_step(general) if re.search(r": (?:error|fatal): |retrying|xpired", line)
        ]
    words = slurm[-1:]
    hint = hint_for(words[0]) if words else ""
    # What the agent's own file printed is nearer the cause than the meaning of an exit status.
    return " → ".join([*words, *(own[-1:] or ([hint] if hint else []))])


def _since_step(general: Sequence[str]) -> Sequence[str]:
    """Without the complaints of a wait for the step that has ended well."""
    made = [i for i, line in enumerate(general) if line.startswith("srun: Step created for")]
    return general[made[-1] + 1 :] if made else general


def hint_for(line: str) -> str:
    """The sentence that belongs beside a line of Slurm, "" for none."""
    code = _EXIT.search(line)
    if code and int(code[1]) in EXIT_HINTS:
        return EXIT_HINTS[int(code[1])]
    return next((hint for part, hint in LINE_HINTS if part in line), "")
