"""Where phalanx keeps what outlives runs: the history, and baselines that no repository holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: What ``PHALANX_HISTORY`` says to record nothing.
OFF = "off"


def state_directory(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/phalanx``, else ``~/.local/state/phalanx``; not yet made.

    XDG base directory specification 0.8: a relative XDG_STATE_HOME is ignored.
    """
    chosen = environ.get("XDG_STATE_HOME", "")
    if chosen.startswith("/"):
        return Path(chosen) / "phalanx"
    return Path(environ.get("HOME") or Path.home()) / ".local" / "state" / "phalanx"


def history_path(environ: Mapping[str, str]) -> Path | None:
    """The database of the history: ``$PHALANX_HISTORY``, else ``history.db`` in the state directory.

    None when ``PHALANX_HISTORY`` is ``off``.
    """
    chosen = environ.get("PHALANX_HISTORY", "").strip()
    if chosen.lower() == OFF:
        return None
    return Path(chosen).expanduser().absolute() if chosen else state_directory(environ) / "history.db"


def baselines_directory(environ: Mapping[str, str]) -> Path:
    """Where baselines are that are known by a name; not yet made."""
    return state_directory(environ) / "baselines"
