"""The nodes' relays as the controller knows them: keys, where they listen, and tickets for their readers."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from phalanx.protocol.messages import BulkSecurity, Parent, RelayOpen, Stripe
from phalanx.protocol.ticket import tickets

from ..fleet.certificate import make_key_pair
from .planner import CONTROLLER

#: Tickets that a reader gets for each parent: one for a first connection, the rest for links that break.
TICKETS = 4


@dataclass(slots=True)
class Relay:
    """One node's relay. ``port`` is 0 until it listens."""

    key: bytes
    pin: bytes
    told: RelayOpen
    port: int = 0
    serials: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass(slots=True)
class Relays:
    """All relays of a run. ``rate_bytes_s``: most that each gives, 0 for no limit. ``address_of``: where
    others reach a node."""

    run_id: str
    security: BulkSecurity
    rate_bytes_s: int
    address_of: Callable[[str], str]
    _relays: dict[str, Relay] = field(default_factory=dict)

    def open(self, node: str) -> RelayOpen:
        """What a node is told to open its relay, the same each time.

        A certificate is made for it, which takes half a millisecond.
        """
        if (known := self._relays.get(node)) is not None:
            return known.told
        pem, pin = b"", b""
        if self.security is BulkSecurity.TLS:
            pair = make_key_pair(f"phalanx {self.run_id} {node}")
            pem, pin = pair.pem, pair.fingerprint
        key = secrets.token_bytes(32)
        told = RelayOpen(1, self.security, pem, key, self.rate_bytes_s)
        self._relays[node] = Relay(key, pin, told)
        return told

    def port(self, node: str) -> int:
        """Where a node's relay listens, 0 when it does not."""
        relay = self._relays.get(node)
        return relay.port if relay is not None else 0

    def opened(self, node: str, port: int) -> None:
        """A relay listens."""
        if node in self._relays:
            self._relays[node].port = port

    def stripes(self, reader: str, lists: tuple[tuple[str, ...], ...]) -> tuple[Stripe, ...]:
        """The parents of a reader with what it needs to reach them; those that do not listen are left out."""
        return tuple(Stripe(tuple(self._parents(reader, names))) for names in lists)

    def _parents(self, reader: str, names: tuple[str, ...]) -> Iterator[Parent]:
        for name in names:
            relay = self._relays.get(name)
            if name == CONTROLLER:
                yield Parent(CONTROLLER)
            elif relay is not None and relay.port:
                given = tickets(relay.key, self.run_id, reader, relay.serials, TICKETS)
                yield Parent(name, self.address_of(name), relay.port, relay.pin, given)
