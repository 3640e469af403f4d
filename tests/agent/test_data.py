"""Data sets of a case on a real agent: its places, the agent's own program, words on failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.agent.data.places import data_places
from phalanx.protocol import messages as m

from .agent import Agent
from .controller import Controller

TOLD = {"PHALANX_DATA_RANK": "0", "PHALANX_DATA_NODES": "1"}


def asked(name: str, *sources: dict[str, Any]) -> tuple[str, ...]:
    request = {"name": name, "number": 0, "mirror": "", "sources": sources}
    return (*m.OWN_PROGRAM, json.dumps(request))


def local(path: Path | str) -> dict[str, Any]:
    return {"provider": "local", "path": str(path)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "data-cache"))
    return tmp_path / "data-cache"


@pytest.mark.local
async def test_steps_are_told_where_the_data_is_and_results_from_whom(tmp_path: Path, cache: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    data = (
        m.DataMount("here", "/data", str(shelf)),
        m.DataMount("far", "/data_dlm_1", "/not/here", cache="k" * 40),
        m.DataMount("own", "/data_dlm_2"),
    )
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()) as agent:
        assert (await controller.open_case(data=data, data_variable="MAD_DATAHOME")).error == ""
        controller.start("data-here", *asked("here", local(shelf)), where="host", env=TOLD)
        assert (await controller.heard(m.StepExited)).status == 0
        controller.shell(
            "main", 'echo "$MAD_DATAHOME"; cat "$PHALANX_RESULTS/.phalanx/data.json"', ranks=(0,)
        )
        assert (await controller.heard(m.StepExited)).status == 0
        homes, record = (await controller.whole("main", rank=0)).decode().splitlines()
        own = agent.base / "cases" / "demo" / "work" / ".phalanx-data" / "2"
        assert homes == f"{shelf},{cache}/data/{'k' * 40}/content,{own}"
        assert json.loads(record)["data_provider_type"] == "local"
        assert b"is taken from local" in await controller.whole("data-here")


@pytest.mark.local
async def test_a_data_step_that_fails_says_why_in_its_verdict(tmp_path: Path) -> None:
    data = (m.DataMount("far", "/data_dlm_0", "/not/here"),)
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        assert (await controller.open_case(data=data)).error == ""
        controller.start("data-far", *asked("far", local("/not/here")), where="host", env=TOLD)
        exited = await controller.heard(m.StepExited)
        assert exited.status == 1
        assert exited.detail == "cannot provide data set far on n1: local: /not/here is not on this node"


@pytest.mark.local
async def test_the_own_program_without_a_case_says_so(tmp_path: Path) -> None:
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        controller.start("data-x", *asked("x", local("/x")), case="", where="host", env=TOLD)
        assert (await controller.heard(m.StepExited)).status == 64
        assert b"no request of a controller" in await controller.whole("data-x", "err")


@pytest.mark.local
async def test_modules_that_did_not_come_before_the_case_are_its_error(tmp_path: Path) -> None:
    spec = m.ContainerSpec(m.Runtime.PROCESS, data=(m.DataMount("d", "/d"),))
    async with Controller() as controller, Agent(tmp_path, controller.bootstrap()):
        controller.tell(m.CaseOpen(1, "demo", spec, (0,), 1, None, library=b"d" * 32))
        assert "modules for data steps did not come" in (await controller.heard(m.CaseOpened)).error


def test_a_folder_is_the_first_that_is_on_the_node(tmp_path: Path) -> None:
    shelf, mirror, work, cache = (tmp_path / name for name in ("shelf", "mirror", "work", "cache"))
    for folder in (shelf, mirror, work):
        folder.mkdir()
    wanted = [
        m.DataMount("a", "/a", str(shelf), str(mirror), "key"),
        m.DataMount("b", "/b", str(shelf), read_only=False),
        m.DataMount("c", "/c", "/not/here", str(mirror), "key"),
        m.DataMount("d", "/d", "/not/here", "", "key"),
        m.DataMount("e", "/e", "/not/here", "/no/mirror", "key"),
    ]
    found = data_places(wanted, work, lambda: cache)
    assert [(one.kind, one.folder, one.read_only) for one in found] == [
        ("source", shelf, True),
        ("source", shelf, False),
        ("mirror", mirror / "c", False),
        ("cache", cache / "data" / "key" / "content", True),
        ("own", work / ".phalanx-data" / "4", False),
    ]
    assert (cache / "data" / "key").stat().st_mode & 0o777 == 0o700
    assert (cache / "data" / "key" / "content").stat().st_mode & 0o777 == 0o755
    assert [one.mount().target for one in found] == ["/a", "/b", "/c", "/d", "/e"]
