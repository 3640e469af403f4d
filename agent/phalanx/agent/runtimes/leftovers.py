"""Parts of images that killed agents have left in an engine: nobody goes on with them, and they have tags.

Who loads an image shares a lock on its file (``parts``), which a dead process does not. Several users may
bring one image to an engine, and see no locks of each other: what was put in lately stays unless a person
wants it away, and what no file of ours tells of stays in any case while it is young.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from phalanx.agent.relay.descriptor import open_own
from phalanx.agent.runtimes import images, verify
from phalanx.agent.runtimes.engine import EngineClient, EngineError
from phalanx.protocol.image import PARTIAL

#: For so many seconds parts stay that nobody goes on with: another user of the engine may be bringing them.
KEEP_S = 86400.0


def can_go(held: bool | None, age_s: float, at_once: bool) -> bool:
    """Whether parts of an image can be removed.

    ``held``: whether a process of the user goes on with them, None when there is no file of ours about them.
    ``age_s``: seconds since the last of them was put in. ``at_once``: a person wants them away.
    """
    if held:
        return False
    old = age_s > KEEP_S
    return old and at_once if held is None else old or at_once


def by_mark(listed: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The tags of parts that GET /images/json shows, by what the parts of one image have in common."""
    found: dict[str, list[str]] = {}
    for tag in [tag for entry in listed for tag in entry.get("RepoTags") or ()]:
        repository, _, name = tag.rpartition("/")[2].partition(":")
        mark, dash, _ = name.rpartition("-")
        if repository == PARTIAL and dash:
            found.setdefault(mark, []).append(tag)
    return found


async def remove_leftovers(engine: EngineClient, folder: Path, *, at_once: bool = False) -> list[str]:
    """Remove what can go, by the locks in ``folder``; what that was, in words.

    Raises ImageError, EngineError.
    """
    words = []
    listed = await engine.call("list images", engine.api.images.list())
    for mark, tags in by_mark(listed).items():
        paths = await asyncio.to_thread(_files, folder, mark)
        async with _locked(paths) as (held, made):
            age_s = 0.0 if held else time.time() - max([made, *[await _tagged(engine, tag) for tag in tags]])
            if can_go(held, age_s, at_once):
                await verify.remove_parts(engine, mark)
                for path in paths:
                    path.unlink(missing_ok=True)
                words.append(f"parts of image {mark} in the engine ({len(tags)}): nobody goes on with them")
    return words


def _files(folder: Path, mark: str) -> list[Path]:
    return sorted(folder.glob(f"{mark}*.parts"))


@asynccontextmanager
async def _locked(paths: list[Path]) -> AsyncIterator[tuple[bool | None, float]]:
    """``held`` of ``can_go``, and when who went on with them last began, as unix time. Nobody begins to
    meanwhile."""
    try:
        files = [(path, open_own(path, os.O_RDONLY)) for path in paths]
        made = max((os.fstat(file.number).st_mtime for _, file in files), default=0.0)
    except OSError:  # it went just now, or is none of ours
        yield True, 0.0
        return
    held = not all(file.lock(fcntl.LOCK_EX) and file.is_at(path) for path, file in files)
    try:
        yield held if files else None, made
    finally:
        for _, file in files:
            file.unlock()


async def _tagged(engine: EngineClient, tag: str) -> float:
    """When a tag was made, as unix time; 0 when the engine does not say."""
    try:
        shown = await images.inspect(engine, tag)
        told = str(((shown or {}).get("Metadata") or {}).get("LastTagTime") or "")
        return max(0.0, datetime.fromisoformat(told).timestamp()) if told else 0.0
    except (EngineError, ValueError):
        return 0.0
