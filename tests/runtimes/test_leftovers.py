"""Parts of images that killed agents have left in an engine go, and those that somebody goes on with stay."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.runtimes.docker import DockerRuntime
from phalanx.agent.runtimes.engine import EngineClient
from phalanx.agent.runtimes.leftovers import KEEP_S, by_mark, can_go, remove_leftovers
from phalanx.agent.runtimes.parts import Parts, share
from phalanx.protocol.image import PARTIAL, PARTIAL_LABEL

DIGEST = bytes(range(32))
MARK = DIGEST.hex()[:12]
LONG_AGO = KEEP_S + 60


@pytest.mark.parametrize(
    ("held", "age_s", "at_once", "goes"),
    [
        (True, LONG_AGO, True, False),
        (False, LONG_AGO, False, True),
        (False, 60.0, False, False),
        (False, 60.0, True, True),
        (None, LONG_AGO, False, False),  # no file of ours says that they are ours
        (None, LONG_AGO, True, True),
        (None, 60.0, True, False),
    ],
)
def test_parts_go_when_nobody_goes_on_with_them(
    held: bool | None, age_s: float, at_once: bool, goes: bool
) -> None:
    assert can_go(held, age_s, at_once) is goes


def test_parts_are_known_by_their_tags() -> None:
    listed = [
        {"RepoTags": [f"{PARTIAL}:0123456789ab-1", "mine:1"]},
        {"RepoTags": [f"localhost/{PARTIAL}:0123456789ab-2"]},
        {"RepoTags": [f"{PARTIAL}:ba9876543210-7", f"{PARTIAL}:odd", f"my-{PARTIAL}:0123456789ab-3"]},
        {"RepoTags": None},
    ]
    assert by_mark(listed) == {
        "0123456789ab": [f"{PARTIAL}:0123456789ab-1", f"localhost/{PARTIAL}:0123456789ab-2"],
        "ba9876543210": [f"{PARTIAL}:ba9876543210-7"],
    }


class Engine:
    """An engine that has images by name, each since some seconds; its client, as far as it is used."""

    def __init__(self, ages: dict[str, float | None]) -> None:
        self.ages = ages
        self.images = self.api = self
        self.asked: list[dict[str, list[str]]] = []

    async def call(self, what: str, asking: Awaitable[Any]) -> Any:
        return await asking

    async def list(self, filters: dict[str, list[str]] | None = None) -> list[dict[str, Any]]:
        self.asked += [filters] if filters else []
        return [] if filters else [{"Id": name, "RepoTags": [name]} for name in self.ages]

    async def inspect(self, name: str) -> dict[str, Any]:
        age = self.ages[name]
        if age is None:
            return {"Id": name}
        made = datetime.fromtimestamp(time.time() - age, UTC).isoformat().replace("+00:00", "123Z")
        return {"Id": name, "Metadata": {"LastTagTime": made}}

    async def delete(self, name: str, noprune: bool) -> None:
        del self.ages[name]


def engine(age_s: float | None = LONG_AGO) -> Engine:
    return Engine({f"{PARTIAL}:{MARK}-1": LONG_AGO, f"{PARTIAL}:{MARK}-2": age_s, "mine:1": LONG_AGO})


async def removed(one: Engine, folder: Path, *, at_once: bool = False) -> list[str]:
    return await remove_leftovers(cast(EngineClient, one), folder, at_once=at_once)


async def killed(folder: Path, age_s: float) -> Path:
    """The file of an agent that shared the parts and died without a word."""
    path = (await share(folder, DIGEST)).path
    os.utime(path, (time.time() - age_s,) * 2)
    return path


async def test_old_parts_of_a_killed_agent_go_and_so_does_its_file(tmp_path: Path) -> None:
    path, one = await killed(tmp_path, LONG_AGO), engine()
    (words,) = await removed(one, tmp_path)
    assert MARK in words
    assert list(one.ages) == ["mine:1"]
    assert one.asked == [{"dangling": ["true"], "label": [f"{PARTIAL_LABEL}={MARK}"]}]
    assert not path.exists()


@pytest.mark.parametrize(("began", "tagged"), [(60.0, LONG_AGO), (LONG_AGO, 60.0), (60.0, None)])
async def test_what_was_put_in_lately_goes_only_when_a_person_wants_it(
    tmp_path: Path, began: float, tagged: float | None
) -> None:
    path, one = await killed(tmp_path, began), engine(tagged)
    assert await removed(one, tmp_path) == []
    assert len(one.ages) == 3
    assert path.exists()
    assert len(await removed(one, tmp_path, at_once=True)) == 1
    assert list(one.ages) == ["mine:1"]


async def test_parts_that_somebody_goes_on_with_stay(tmp_path: Path) -> None:
    await killed(tmp_path, LONG_AGO)
    going: Parts = await share(tmp_path, DIGEST)
    os.utime(going.path, (0, 0))
    one = engine()
    assert await removed(one, tmp_path, at_once=True) == []
    assert len(one.ages) == 3
    assert going.path.exists()
    going.release()


async def test_parts_of_which_no_file_of_ours_tells_are_left_to_a_person(tmp_path: Path) -> None:
    one = engine()
    assert await removed(one, tmp_path / "none") == []
    young = engine(60.0)
    assert await removed(young, tmp_path, at_once=True) == []
    assert len(await removed(one, tmp_path, at_once=True)) == 1


async def test_a_run_that_opens_the_engine_removes_them_by_the_locks_in_the_nodes_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_containers(**given: str) -> list[object]:
        return []

    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path))
    cache, one, runtime = BlobCache(tmp_path, 1 << 30), engine(), DockerRuntime(tmp_path / "runs")
    await killed(cache.folder.parent, LONG_AGO)
    client = SimpleNamespace(call=one.call, api=SimpleNamespace(images=one))
    client.api.containers = SimpleNamespace(list=no_containers)
    monkeypatch.setattr(runtime, "_client", client)
    (words,) = await runtime.sweep()
    assert MARK in words
    assert list(one.ages) == ["mine:1"]
