"""A cap on bytes a second, as both sides keep to it: relays of nodes, and what the login node gives out."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds of the rate that may go out at once after a pause.
BURST_S = 0.25


@dataclass(slots=True)
class Bucket:
    """``rate`` bytes run in each second, up to ``BURST_S`` of them; below zero it is in debt. Pure."""

    rate: float
    now: float
    level: float = 0.0

    def take(self, amount: int, now: float) -> float:
        """Take ``amount`` bytes; how many seconds to wait before they may go."""
        self.level = min(self.rate * BURST_S, self.level + (now - self.now) * self.rate)
        self.now = now
        self.level -= amount
        return max(0.0, -self.level / self.rate)
