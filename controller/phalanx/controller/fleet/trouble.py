"""Why a run cannot go on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the run cannot go on, and the exit code that says so."""

    reason: str
    exit_code: int
