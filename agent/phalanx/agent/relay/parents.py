"""From whom a stripe reads: parents in their order, each as long as it gives, none that sent rubbish."""

from __future__ import annotations

from dataclasses import dataclass, field

from phalanx.protocol.messages import Parent, Ticket


def same_place(one: Parent, other: Parent) -> bool:
    """Whether a connection to the one is a connection to the other; tickets do not matter once it stands."""
    return (one.node, one.host, one.port, one.pin) == (other.node, other.host, other.port, other.pin)


@dataclass(slots=True)
class Known:
    """What a pull knows of parents: who sent rubbish, which tickets are spent."""

    banned: set[str] = field(default_factory=set)
    spent: set[tuple[str, int, int]] = field(default_factory=set)

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

    def gave(self) -> None:
        """A chunk came."""
        self.fruitful, self.starved = True, False
        if self.reading is not None:
            self._told.discard(self.reading.node)

    def leave(self, parent: Parent, corrupt: bool, reason: str) -> bool:
        """On to the next one. Whether that is news: not for one that failed before and gave nothing since."""
        self.place += 1
        self.last_reason = f"{parent.node or 'the controller'}: {reason}"
        if corrupt:
            self.known.banned.add(parent.node)
        news = corrupt or parent.node not in self._told
        self._told.add(parent.node)
        return news

    def begin_again(self) -> bool:
        """From the first parent on. Whether to tell that none of them gives anything."""
        news = not self.starved and (not self.fruitful or self.hopeless())
        self.starved = self.starved or news
        self.place, self.fruitful = 0, False
        return news
