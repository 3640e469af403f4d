"""A relay opens for those whom the controller sent, once for each ticket."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from phalanx.protocol.errors import RemoteError
from phalanx.protocol.messages import RelayHello
from phalanx.protocol.ticket import Gate, ticket_mac, tickets

KEY = bytes(range(32))


def hello_of(run_id: str = "run", node: str = "n2", place: int = 0) -> RelayHello:
    ticket = tickets(KEY, "run", "n2", itertools.count(7), 3)[place]
    return RelayHello(run_id, node, ticket.serial, ticket.mac)


def test_a_ticket_opens_once() -> None:
    gate = Gate(KEY, "run")
    assert gate.admit(hello_of()) == "n2"
    with pytest.raises(RemoteError, match="used before"):
        gate.admit(hello_of())
    assert gate.admit(hello_of(place=1)) == "n2"


@pytest.mark.parametrize(
    "forged",
    [
        hello_of(node="n3"),
        hello_of(run_id="other"),
        replace(hello_of(), serial=8),
        replace(hello_of(), mac=bytes(32)),
        RelayHello("run", "n2", 7, ticket_mac(bytes(32), "run", "n2", 7)),
    ],
)
def test_what_is_not_a_ticket_of_this_reader_in_this_run_opens_nothing_and_spends_nothing(
    forged: RelayHello,
) -> None:
    gate = Gate(KEY, "run")
    with pytest.raises(RemoteError, match="no ticket"):
        gate.admit(forged)
    assert not gate.spent


def test_serials_of_one_relay_never_come_twice() -> None:
    serials = itertools.count(1)
    given = [ticket.serial for node in ("n2", "n3") for ticket in tickets(KEY, "run", node, serials, 4)]
    assert given == list(range(1, 9))
