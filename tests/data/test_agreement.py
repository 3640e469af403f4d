"""Nodes of a case take a data set from the same provider, over the real socket of a case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from phalanx.agent.data import agreement
from phalanx.agent.data.agreement import agree
from phalanx.agent.data.request import DataError, Request
from phalanx.agent.workload import WorkloadServer

from tests.workload.exchange import MemoryExchange


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[str]:
    server = WorkloadServer.start(tmp_path / "s", MemoryExchange(4), ranks=range(4), name="c")
    yield str(server.client_path)
    server.stop()


def node(rank: int, socket: str, nodes: int = 2) -> Request:
    here = Path("/nowhere")
    return Request("d", 0, (), "cache", here, "", f"n{rank}", rank, nodes, here, socket, here)


async def told(rank: int, socket: str, provider: str, **reasons: str) -> None:
    await asyncio.to_thread(agree, node(rank, socket), provider, reasons)


async def test_the_same_provider_on_all_nodes_is_agreed_whoever_comes_first(socket: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(told(1, socket, "minio"))
        group.create_task(told(0, socket, "minio"))


async def test_a_node_that_would_take_another_is_named_with_the_first_and_its_reason(socket: str) -> None:
    await told(0, socket, "local")
    with pytest.raises(DataError) as refused:
        await told(1, socket, "minio", local="/data/x is not on this node")
    assert str(refused.value) == (
        "cannot provide data set d on n1: n0 takes it from local, and here minio is the first that can be "
        "used (local: /data/x is not on this node); all nodes must take it from the same provider"
    )


async def test_a_first_node_that_says_nothing_is_not_waited_for_for_ever(
    socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "WAIT_S", 0.1)
    with pytest.raises(DataError, match=r"on n1: the first node did not say within 0.1 s"):
        await told(1, socket, "local")


async def test_a_socket_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the nodes cannot be asked what they use"):
        await told(1, str(tmp_path / "gone"), "local")


def test_one_node_agrees_with_itself() -> None:
    agree(node(0, "/nowhere", nodes=1), "local", {})
