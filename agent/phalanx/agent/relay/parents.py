"""From whom a stripe reads: parents in their order, each as long as it gives, none that sent rubbish.

Who sent rubbish is believed again, a few times, when the others give nothing either: a bit that was flipped
on the way once must not end a transfer, nor keep it waiting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from phalanx.protocol.messages import Parent, Ticket

#: How often in a pull one who sent rubbish is believed again.
MOST_PARDONS = 3


def same_place(one: Parent, other: Parent) -> bool:
    """Whether a connection to the one is a connection to the other; tickets do not matter once it stands."""
    return (one.node, one.host, one.port, one.pin) == (other.node, other.host, other.port, other.pin)


def name_of(node: str) -> str:
    """How a parent is called in words."""
    return node or "the controller"


@dataclass(slots=True)
class Known:
    """What a pull knows of parents: who sent rubbish, how often that was let pass, and spent tickets."""

    banned: dict[str, str] = field(default_factory=dict)
    pardons: dict[str, int] = field(default_factory=dict)
    spent: set[tuple[str, int, int]] = field(default_factory=set)

    def ban(self, node: str, reason: str) -> None:
        """It sent rubbish, which ``reason`` describes."""
        self.banned[node] = reason

    def pardon(self, nodes: Iterable[str]) -> None:
        """Believe those of them again that were not pardoned too often."""
        for node in nodes:
            if node in self.banned and self.pardons.get(node, 0) < MOST_PARDONS:
                self.pardons[node] = self.pardons.get(node, 0) + 1
                del self.banned[node]

    def ticket(self, parent: Parent) -> Ticket | None:
        """The next ticket that was not used, spent with this call; None when there is none."""
        for ticket in parent.tickets:
            key = parent.node, parent.port, ticket.serial
            if key not in self.spent:
                self.spent.add(key)
                return ticket
        return None


@dataclass(slots=True)
class Line:
    """The parents of one stripe. ``epoch`` grows when what was read from is to be left."""

    known: Known
    parents: tuple[Parent, ...] = ()
    epoch: int = 0
    place: int = 0
    #: whether anything came since the list was begun
    fruitful: bool = False
    #: whether it was told that nothing comes
    starved: bool = False
    reading: Parent | None = None
    last_reason: str = ""
    _told: set[str] = field(default_factory=set)

    def replace(self, parents: tuple[Parent, ...]) -> bool:
        """Read from these from now on. Whether the connection that stands is to be kept."""
        first = next(iter(parents), None)
        keep = first is not None and self.reading is not None and same_place(first, self.reading)
        self.parents, self.place = parents, 0
        self.fruitful = self.starved = False
        self._told.clear()
        if not keep:
            self.epoch += 1
        return keep

    def current(self) -> Parent | None:
        """Whom to try now; None at the end of the list."""
        while self.place < len(self.parents) and self.parents[self.place].node in self.known.banned:
            self.place += 1
        return self.parents[self.place] if self.place < len(self.parents) else None

    def hopeless(self) -> bool:
        """Whether there is nobody to try again."""
        return all(parent.node in self.known.banned for parent in self.parents)

    def verdict(self) -> str:
        """What all of them have sent, of whom nobody is believed again; "" while there is somebody, or nobody
        at all."""
        if not self.parents or not self.hopeless():
            return ""
        names = dict.fromkeys(parent.node for parent in self.parents)
        sent = "; ".join(f"{name_of(node)}: {self.known.banned[node]}" for node in names)
        return (
            f"all that is left to read from sent something else than was asked for, {MOST_PARDONS + 1} times "
            f"({sent}); leave it out, or have its memory, its disk and its network looked at"
        )

    def gave(self) -> None:
        """A chunk came."""
        self.fruitful, self.starved = True, False
        if self.reading is not None:
            self._told.discard(self.reading.node)

    def leave(self, parent: Parent, corrupt: bool, reason: str) -> bool:
        """On to the next one. Whether that is news: not for one that failed before and gave nothing since."""
        self.place += 1
        self.last_reason = f"{name_of(parent.node)}: {reason}"
        if corrupt:
            self.known.ban(parent.node, reason)
        news = corrupt or parent.node not in self._told
        self._told.add(parent.node)
        return news

    def begin_again(self) -> bool:
        """From the first parent on, with those who sent rubbish when nobody else gives anything. Whether to
        tell that none of them does."""
        vain = not self.fruitful or self.hopeless()
        news = vain and not self.starved
        self.starved = self.starved or news
        if vain:
            self.known.pardon(dict.fromkeys(parent.node for parent in self.parents))
        self.place, self.fruitful = 0, False
        return news
