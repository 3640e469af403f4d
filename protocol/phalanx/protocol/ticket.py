"""Tickets: a relay serves a reader that the controller has sent, once for each ticket, and nobody else.

The controller and the relay share a key that came over the relay's authenticated control channel; a ticket
names its reader and carries a serial number, so the relay needs no word from the controller to check one, and
remembers only which serials are spent.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import RemoteError
from .messages import RelayHello, Ticket

_LABEL = b"phalanx relay ticket 1"


def ticket_mac(key: bytes, run_id: str, reader: str, serial: int) -> bytes:
    """HMAC-SHA256 over who may read and the serial; every part has its length before it."""
    parts = (_LABEL, run_id.encode(), reader.encode(), serial.to_bytes(8, "big"))
    data = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.new(key, data, hashlib.sha256).digest()


def tickets(key: bytes, run_id: str, reader: str, serials: Iterator[int], count: int) -> tuple[Ticket, ...]:
    """``count`` tickets for a reader, with the next serials of the relay."""
    taken = [next(serials) for _ in range(count)]
    return tuple(Ticket(serial, ticket_mac(key, run_id, reader, serial)) for serial in taken)


@dataclass(slots=True)
class Gate:
    """What a relay knows of its readers."""

    key: bytes
    run_id: str
    spent: set[int] = field(default_factory=set)

    def admit(self, hello: RelayHello) -> str:
        """The reader's node, its ticket spent. Raises RemoteError for a ticket that is none, or was used."""
        wanted = ticket_mac(self.key, self.run_id, hello.node, hello.serial)
        if hello.run_id != self.run_id or not hmac.compare_digest(wanted, hello.mac):
            raise RemoteError("no ticket of this run")
        if hello.serial in self.spent:
            raise RemoteError("a ticket that was used before")
        self.spent.add(hello.serial)
        return hello.node
