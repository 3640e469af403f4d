"""Connections that have not proved themselves yet: few, for a short time, few from one address.

When there are too many, the one that has taken longest goes: a reader of ours needs a round trip or two, one
who only wants to be in the way needs longer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from phalanx.agent.relay.wire import Wire

#: Seconds for TLS and RelayHello together.
PROVE_WITHIN_S = 5.0
MOST = 64
MOST_OF_ONE_ADDRESS = 16
#: How often is looked for those who are late while there are any, in seconds.
_LOOK_S = 0.25


@dataclass(slots=True)
class Strangers:
    """The connections, oldest first. Not safe for threads: whoever owns it locks."""

    within_s: float = PROVE_WITHIN_S
    most: int = MOST
    most_of_one: int = MOST_OF_ONE_ADDRESS
    _since: dict[Wire, tuple[str, float]] = field(default_factory=dict)

    def add(self, wire: Wire, source: str, now: float) -> list[Wire]:
        """One more; those that have to go for it."""
        out = []
        of_source = [one for one, (where, _) in self._since.items() if where == source]
        if len(of_source) >= self.most_of_one:
            out.append(of_source[0])
        elif len(self._since) >= self.most:
            out.append(next(iter(self._since)))
        for one in out:
            del self._since[one]
        self._since[wire] = source, now
        return out

    def discard(self, wire: Wire) -> None:
        """It has proved itself, or is gone."""
        self._since.pop(wire, None)

    def late(self, now: float) -> list[Wire]:
        """Those whose time is over; they are strangers no more."""
        out = [one for one, (_, since) in self._since.items() if now - since > self.within_s]
        for one in out:
            del self._since[one]
        return out

    def all(self) -> list[Wire]:
        """All of them."""
        return list(self._since)

    @property
    def look_after_s(self) -> float | None:
        """Seconds until it is worth looking for late ones; None while there are none."""
        return min(_LOOK_S, self.within_s) if self._since else None
