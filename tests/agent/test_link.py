"""Finding the controller: real TLS servers, right and wrong, fast and silent, one or many."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from phalanx.agent import link as link_module
from phalanx.agent.bootstrap import Identity
from phalanx.agent.link import LinkError
from phalanx.agent.links import Links
from phalanx.controller.fleet.certificate import make_identity

from .controller import NODE, Controller
from .wire import Wire

pytestmark = pytest.mark.local


def links_of(controller: Controller, *addresses: tuple[str, int], **other: object) -> Links:
    bootstrap = controller.bootstrap(*addresses, **other)
    return Links(bootstrap, Identity(NODE, 0), "cafe" * 8, lambda message: None, lambda message: None)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "CONNECT_WITHIN_S", 0.5)


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, int]]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()


@asynccontextmanager
async def impostor(heard: list[bytes]) -> AsyncIterator[tuple[str, int]]:
    """A TLS server with a certificate of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.read())
        except ConnectionError:
            heard.append(b"")
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=make_identity("other").context)
    async with server:
        yield server.sockets[0].getsockname()


def free_address() -> tuple[str, int]:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        host, port = sock.getsockname()
    return host, port


async def test_the_one_address_that_answers_is_found_among_dead_silent_and_false_ones() -> None:
    heard: list[bytes] = []
    async with Controller() as controller, silent_server() as silent, impostor(heard) as false:
        links = links_of(controller, silent, free_address(), false, controller.addresses[0])
        began = time.monotonic()
        await links.join(5.0)
        assert links.open is not None
        assert time.monotonic() - began < 3.0, "a silent address must not be waited for"
        links.close("over")


async def test_an_impostor_is_told_nothing() -> None:
    heard: list[bytes] = []
    async with Controller() as controller, impostor(heard) as false:
        with pytest.raises(LinkError, match="another certificate than our controller's"):
            await links_of(controller, false).join(0.0)
    # the server is closed: whatever it was sent has been read
    assert b"".join(heard) == b""


async def test_a_silent_server_is_given_up_in_time(hasty: None) -> None:
    async with Controller() as controller, silent_server() as silent:
        with pytest.raises(LinkError, match=rf"{silent[0]}:{silent[1]}: .*"):
            await links_of(controller, silent).join(0.0)


async def test_of_several_addresses_only_one_is_told_who_we_are() -> None:
    async with Controller(addresses=("127.0.0.1", "127.0.0.2", "127.0.0.3")) as controller:
        hellos: list[str] = []
        judged = controller.hub.hello
        controller.hub.hello = lambda session: (hellos.append(session.source), judged(session))  # type: ignore
        for number in range(1, 11):
            links = links_of(controller, *controller.addresses * 3)
            await links.join(5.0)
            assert links.open is not None
            links.close("over")
            while controller.hub.peers[NODE].control is not None:
                await asyncio.sleep(0.01)
            assert len(hellos) == number


async def test_a_second_address_takes_over_when_the_first_to_speak_breaks() -> None:
    budget = iter([1700, 1700])  # within the handshake of TLS and just behind it
    async with Controller() as controller, Wire(controller.addresses[0], budget) as wire:
        links = links_of(controller, wire.address, controller.addresses[0])
        await links.join(5.0)
        assert links.open is not None
        links.close("over")


async def test_refused_everywhere_is_known_as_such_and_names_every_address() -> None:
    async with Controller() as controller:
        first, second = free_address(), free_address()
        links = links_of(controller, first, second)
        with pytest.raises(LinkError) as caught:
            await links.join(0.0)
        assert links.refused == {first, second}
        assert not links.controller_is_gone, "it was never reached, so it cannot be known to be gone"
        assert all(f"{host}:{port}" in str(caught.value) for host, port in (first, second))


async def test_a_name_that_is_none_is_a_trouble_of_that_address_only() -> None:
    async with Controller() as controller:
        links = links_of(controller, ("x" * 80 + ".example", 1), controller.addresses[0])
        await links.join(5.0)
        assert links.open is not None
        links.close("over")


async def test_who_does_not_know_the_secret_is_not_let_in(hasty: None) -> None:
    async with Controller() as controller:
        links = links_of(controller, secret=b"wrong" * 8)
        with pytest.raises(LinkError):
            await links.join(0.0)
        assert not controller.hub.peers


async def test_a_link_leaves_no_socket_behind() -> None:
    def sockets() -> int:
        return sum(
            "socket:" in str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()
        )

    async with Controller() as controller, silent_server() as silent:
        before = sockets()
        for _ in range(3):
            links = links_of(controller, silent, free_address(), controller.addresses[0])
            await links.join(5.0)
            links.close("over")
            while any(peer.control for peer in controller.hub.peers.values()):
                await asyncio.sleep(0.01)
        for _ in range(100):
            if sockets() <= before:
                break
            await asyncio.sleep(0.02)
        assert sockets() <= before


def test_only_tls_1_3_is_spoken() -> None:
    assert link_module.client_context().minimum_version is ssl.TLSVersion.TLSv1_3
