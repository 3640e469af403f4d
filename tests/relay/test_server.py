"""A relay gives chunks to those whom the controller sent, and nothing to anybody else."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time

import pytest
from phalanx.agent.relay.rate import Pacer
from phalanx.agent.relay.server import RelayServer
from phalanx.agent.relay.sources import client_context
from phalanx.agent.relay.strangers import Strangers
from phalanx.agent.relay.wire import Wire
from phalanx.protocol.messages import (
    BulkSecurity,
    Chunk,
    ChunkGet,
    ChunkRefused,
    Kind,
    Message,
    Parent,
    RelayHello,
    RelayWait,
)
from phalanx.protocol.ticket import Gate, ticket_mac

from tests.relay.conftest import MakeNode
from tests.relay.nodes import CHUNK, RUN, Node, blob_of, cut, until


def dial(node: Node, *, silent_s: float = 5.0) -> Wire:
    """A connection to a node's relay on which nothing is said yet."""
    wire = Wire(socket.create_connection(("127.0.0.1", node.port)), Pacer(0), silent_s=silent_s)
    if node.security is BulkSecurity.TLS:
        wire.start_tls(client_context(), server_side=False)
    wire.allowed = frozenset({Kind.BULK})
    return wire


def hello_of(parent: Parent, reader: str = "reader", place: int = 0) -> RelayHello:
    ticket = parent.tickets[place]
    return RelayHello(RUN, reader, ticket.serial, ticket.mac)


def reading(node: Node, **options: float) -> Wire:
    """A connection that is let in."""
    wire = dial(node, **options)
    wire.send(hello_of(node.for_reader("reader", 1)))
    return wire


def answer(wire: Wire) -> tuple[Message, bytes]:
    message, payload = wire.receive(memoryview(bytearray(4 << 20)))
    return message, bytes(payload)


@pytest.mark.parametrize("security", BulkSecurity)
def test_chunks_come_in_the_order_in_which_they_were_asked_for(
    make_node: MakeNode, security: BulkSecurity
) -> None:
    content, manifest = blob_of(4.5)
    node = make_node("n1", security=security)
    node.holds(content, manifest)
    wire = reading(node)
    for index in (3, 0, 4):
        wire.send(ChunkGet(manifest.blob, index))
    for index in (3, 0, 4):
        assert answer(wire) == (Chunk(manifest.blob, index), cut(content)[index])
    wire.close()


@pytest.mark.parametrize("what", ["absent", "forged", "of another", "used"])
def test_without_a_ticket_of_ones_own_not_a_byte_of_a_chunk_comes(make_node: MakeNode, what: str) -> None:
    content, manifest = blob_of(2)
    node = make_node("n1", security=BulkSecurity.INTEGRITY)
    node.holds(content, manifest)
    parent = node.for_reader("reader")
    wire = dial(node)
    if what == "forged":
        wire.send(RelayHello(RUN, "reader", 1, ticket_mac(os.urandom(32), RUN, "reader", 1)))
    elif what == "of another":
        wire.send(hello_of(parent, reader="someone"))
    elif what == "used":
        first = dial(node)
        first.send(hello_of(parent))
        first.send(ChunkGet(manifest.blob, 0))
        assert answer(first)[1] == cut(content)[0]
        first.close()
        wire.send(hello_of(parent))
    with pytest.raises(OSError):
        wire.send(ChunkGet(manifest.blob, 0))
        answer(wire)
    assert wire.read == 0
    wire.close()


def test_a_chunk_that_is_not_there_yet_is_waited_for(make_node: MakeNode) -> None:
    content, manifest = blob_of(2)
    node = make_node("n1", wait_every_s=0.05)
    spool = node.cache.open(manifest)
    assert node.cache.claim(spool)
    wire = reading(node)
    wire.send(ChunkGet(manifest.blob, 1))  # nobody serves the blob yet
    assert answer(wire)[0] == RelayWait(manifest.blob, 1)
    node.relay.serve(spool)
    assert answer(wire)[0] == RelayWait(manifest.blob, 1)
    spool.keep(1, cut(content)[1])
    while (got := answer(wire))[0] == RelayWait(manifest.blob, 1):
        pass
    assert got == (Chunk(manifest.blob, 1), cut(content)[1])
    wire.close()


def test_what_is_not_held_is_refused_and_the_reader_may_ask_on(make_node: MakeNode) -> None:
    content, manifest = blob_of(2)
    node = make_node("n1", unknown_s=0.0)
    node.holds(content, manifest)
    wire = reading(node)
    for get in (ChunkGet(bytes(32), 0), ChunkGet(manifest.blob, 2)):
        wire.send(get)
        assert answer(wire)[0] == ChunkRefused(get.blob, get.index, "not held here")
    wire.send(ChunkGet(manifest.blob, 1))
    assert answer(wire)[1] == cut(content)[1]
    node.relay.withdraw(manifest.blob)
    wire.send(ChunkGet(manifest.blob, 1))
    assert isinstance(answer(wire)[0], ChunkRefused)
    wire.close()


@pytest.mark.parametrize("security", BulkSecurity)
def test_a_chunk_that_cannot_be_read_is_refused(make_node: MakeNode, security: BulkSecurity) -> None:
    content, manifest = blob_of(3)
    node = make_node("n1", security=security)
    node.holds(content, manifest)
    os.truncate(node.cache.folder / manifest.blob.hex(), CHUNK)
    wire = reading(node)
    wire.send(ChunkGet(manifest.blob, 2))
    message, _ = answer(wire)
    assert isinstance(message, ChunkRefused)
    assert "shorter" in message.reason
    wire.close()


def test_strangers_who_say_nothing_are_shown_out_and_delay_nobody(make_node: MakeNode) -> None:
    content, manifest = blob_of(2)
    node = make_node("n1", strangers=Strangers(within_s=0.3))
    node.holds(content, manifest)
    idle = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(100)]
    slow = socket.create_connection(("127.0.0.1", node.port))
    began = time.monotonic()
    wire = reading(node)
    wire.send(ChunkGet(manifest.blob, 1))
    assert answer(wire)[1] == cut(content)[1]
    assert time.monotonic() - began < 2
    slow.settimeout(5)
    with pytest.raises(OSError):
        for byte in itertools.repeat(b"\x16"):
            slow.sendall(byte)
            time.sleep(0.05)
    until(lambda: len(node.relay._served.threads) == 1)  # of the reader alone
    wire.send(ChunkGet(manifest.blob, 0))
    assert answer(wire)[1] == cut(content)[0]
    for one in (*idle, slow):
        one.close()
    wire.close()


def test_of_too_many_strangers_the_oldest_goes() -> None:
    strangers = Strangers(most=4, most_of_one=2)
    one, two, three, four, five, six = (Wire(socket.socket(), Pacer(0)) for _ in range(6))
    assert strangers.add(one, "a", 0.0) == []
    assert strangers.add(two, "a", 1.0) == []
    assert strangers.add(three, "a", 2.0) == [one]
    assert strangers.add(four, "b", 3.0) == []
    assert strangers.add(five, "c", 4.0) == []
    assert strangers.add(six, "d", 5.0) == [two]
    assert strangers.late(7.5) == [three]
    strangers.discard(four)
    assert strangers.all() == [five, six]
    for wire in (one, two, three, four, five, six):
        wire.close()


def test_a_reader_that_takes_nothing_is_dropped_and_the_others_read_on(make_node: MakeNode) -> None:
    content, manifest = blob_of(16, chunk=1 << 20)
    node = make_node("n1", security=BulkSecurity.INTEGRITY, unsent_s=0.2)
    node.holds(content, manifest)
    lazy, busy = reading(node), reading(node)
    for index in range(16):
        lazy.send(ChunkGet(manifest.blob, index))
    for index in range(16):
        busy.send(ChunkGet(manifest.blob, index))
        assert answer(busy)[1] == cut(content, 1 << 20)[index]
    until(lambda: len(node.relay._served.readers) == 1)
    lazy.close()
    busy.close()


def test_a_reader_that_breaks_the_rules_loses_its_connection_only(make_node: MakeNode) -> None:
    content, manifest = blob_of(1)
    node = make_node("n1", security=BulkSecurity.INTEGRITY)
    node.holds(content, manifest)
    bad, good = reading(node), reading(node)
    bad.send(RelayWait(manifest.blob, 0))
    with pytest.raises(OSError):
        answer(bad)
    good.send(ChunkGet(manifest.blob, 0))
    assert answer(good)[1] == content
    bad.close()
    good.close()


@pytest.mark.parametrize("security", BulkSecurity)
def test_all_readers_together_keep_to_the_rate(make_node: MakeNode, security: BulkSecurity) -> None:
    content, manifest = blob_of(8)
    rate = 20 * CHUNK
    node = make_node("n1", security=security, rate_bytes_s=rate)
    node.holds(content, manifest)
    wires = [reading(node), reading(node)]
    began = time.monotonic()
    for wire in wires:
        for index in range(8):
            wire.send(ChunkGet(manifest.blob, index))
    for wire in wires:
        for index in range(8):
            assert answer(wire)[1] == cut(content)[index]
        wire.close()
    # a quarter of a second of the rate may go at once
    assert 16 * CHUNK / rate - 0.3 < time.monotonic() - began < 16 * CHUNK / rate + 1


def test_a_relay_stops_at_once_whatever_its_readers_do(make_node: MakeNode) -> None:
    content, manifest = blob_of(16, chunk=1 << 20)
    node = make_node("n1")
    node.holds(content, manifest)
    waiting, lazy, idle = reading(node), reading(node), reading(node)
    stranger = socket.create_connection(("127.0.0.1", node.port))
    waiting.send(ChunkGet(bytes(32), 0))
    for index in range(16):
        lazy.send(ChunkGet(manifest.blob, index))
    stopping = threading.Thread(target=node.relay.stop)
    stopping.start()
    stopping.join(0.9)
    assert not stopping.is_alive()
    assert not node.relay._served.threads
    for wire in (waiting, lazy, idle):
        wire.close()
    stranger.close()


def test_the_key_never_lies_in_a_file(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(str(path)))
    from phalanx.agent.relay.server import server_context

    from tests.relay.nodes import certificate

    server_context(certificate()[0])
    assert opened == []


def test_a_relay_that_is_given_no_address_listens_on_all_of_the_node() -> None:
    relay = RelayServer(Gate(bytes(32), RUN), BulkSecurity.INTEGRITY, b"")
    port = relay.start()
    try:
        for host in ("127.0.0.1", "127.0.0.2"):
            socket.create_connection((host, port)).close()
    finally:
        relay.stop()
