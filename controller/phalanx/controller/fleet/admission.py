"""Who may stand at the door: how many connections may wait unproven, and which goes when there are too many.

Strangers must not be able to starve the run's own agents by holding the door: when the room is full, the
source with the most unproven connections loses its oldest one. A source that behaves is never evicted for
one that floods.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

#: Unproven connections at one time. A TLS handshake takes about 1 ms of CPU, so 1000 agents pass quickly.
MOST_WAITING = 256
#: Seconds in which TLS and the hello must be through.
PROVE_WITHIN_S = 8.0

K = TypeVar("K")


@dataclass(slots=True)
class Door(Generic[K]):
    """Unproven connections by source address, oldest first."""

    most: int = MOST_WAITING
    _by_source: dict[str, OrderedDict[K, None]] = field(default_factory=dict)
    _count: int = 0

    def arrive(self, source: str, connection: K) -> tuple[str, K] | None:
        """A connection arrives; the one that must go to make room, if any."""
        self._by_source.setdefault(source, OrderedDict())[connection] = None
        self._count += 1
        if self._count <= self.most:
            return None
        worst = max(self._by_source, key=lambda name: len(self._by_source[name]))
        victim = next(iter(self._by_source[worst]))
        self.leave(worst, victim)
        return worst, victim

    def leave(self, source: str, connection: K) -> None:
        """A connection proved itself or is gone."""
        waiting = self._by_source.get(source)
        if waiting is not None and connection in waiting:
            del waiting[connection]
            self._count -= 1
            if not waiting:
                del self._by_source[source]

    def waiting(self) -> list[K]:
        """All unproven connections."""
        return [connection for waiting in self._by_source.values() for connection in waiting]

    def __len__(self) -> int:
        return self._count
