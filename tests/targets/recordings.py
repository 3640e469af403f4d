"""Recorded output of Slurm's commands, by version and name."""

from __future__ import annotations

from pathlib import Path


def recorded(name: str, version: str = "22.05") -> str:
    """The text of a recording."""
    return (Path(__file__).parent / "recordings" / version / f"{name}.txt").read_text()
