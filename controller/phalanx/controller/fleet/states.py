"""The states of a run and of a case, one table each. Nothing else decides what may follow what."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)


class Phase(Enum):
    """Where a run is."""

    #: the plan is there, nothing has been touched
    PLANNED = "planned"
    #: nodes are being asked for
    ALLOCATING = "allocating"
    #: agents are on their way
    JOINING = "joining"
    #: facts, runtimes and the image are being made ready on every node
    PREPARING = "preparing"
    #: cases run, one after another or several at a time, each once its image is on every node
    RUNNING = "running"
    #: kept alive for ``phalanx exec`` until cancelled
    IDLE = "idle"
    #: containers and agents are being ended
    ENDING = "ending"
    #: the allocation is being given back
    RELEASING = "releasing"
    #: nothing is held any more; cases that never ran get their rows
    RELEASED = "released"
    #: the last event is written
    FINISHED = "finished"


PHASES: dict[Phase, dict[str, Phase]] = {
    Phase.PLANNED: {"start": Phase.ALLOCATING},
    Phase.ALLOCATING: {"granted": Phase.JOINING, "end": Phase.RELEASING},
    Phase.JOINING: {"joined": Phase.PREPARING, "end": Phase.ENDING},
    Phase.PREPARING: {"prepared": Phase.RUNNING, "end": Phase.ENDING},
    Phase.RUNNING: {"idle": Phase.IDLE, "end": Phase.ENDING},
    Phase.IDLE: {"end": Phase.ENDING},
    Phase.ENDING: {"gone": Phase.RELEASING},
    Phase.RELEASING: {"released": Phase.RELEASED},
    Phase.RELEASED: {"finished": Phase.FINISHED},
    Phase.FINISHED: {},
}


#: Phases in which nothing more is started.
OVER = frozenset({Phase.ENDING, Phase.RELEASING, Phase.RELEASED, Phase.FINISHED})


class CasePhase(Enum):
    """Where a case is."""

    #: its workspace goes to the nodes
    SHIPPING = "shipping"
    #: its containers are being started
    OPENING = "opening"
    #: its steps run
    STEPPING = "stepping"
    #: a step failed: the node that failed first says what it sees
    DIAGNOSING = "diagnosing"
    #: files come back
    COLLECTING = "collecting"
    #: its containers are being ended
    CLOSING = "closing"
    #: its rows are being written
    JUDGING = "judging"
    #: its verdict is in the event log
    FINISHED = "finished"


CASE_PHASES: dict[CasePhase, dict[str, CasePhase]] = {
    CasePhase.SHIPPING: {"shipped": CasePhase.OPENING, "abort": CasePhase.CLOSING},
    CasePhase.OPENING: {"opened": CasePhase.STEPPING, "abort": CasePhase.CLOSING},
    CasePhase.STEPPING: {
        "failed": CasePhase.DIAGNOSING,
        "stepped": CasePhase.COLLECTING,
        "abort": CasePhase.CLOSING,
    },
    CasePhase.DIAGNOSING: {"diagnosed": CasePhase.COLLECTING, "abort": CasePhase.CLOSING},
    CasePhase.COLLECTING: {
        "collected": CasePhase.CLOSING,
        "abort": CasePhase.CLOSING,
        "kept": CasePhase.JUDGING,
    },
    CasePhase.CLOSING: {"closed": CasePhase.JUDGING},
    CasePhase.JUDGING: {"judged": CasePhase.FINISHED},
    CasePhase.FINISHED: {},
}


def advance(table: dict[S, dict[str, S]], state: S, trigger: str) -> S:
    """The next state. Raises ValueError, naming both, for what the table does not allow."""
    try:
        return table[state][trigger]
    except KeyError:
        raise ValueError(f"{trigger} is not allowed in state {state.value}") from None
