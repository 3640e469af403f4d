"""Named barriers with generations: counted by identity, released all or nothing, failed by name.

* A generation of a name has a set of members. The same member arriving twice counts once.
* When all have arrived, all get the same release with the member list, in one step.
* A member that leaves before the release fails the generation for all, and every later arrival too.
* An arrival at a generation that is over gets its outcome again: retries after a reconnect are harmless.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import RemoteError

#: Outcomes remembered for late and repeated arrivals, per book.
REMEMBERED = 4096
#: Barriers that may be waiting at one time: names come from the workload.
MOST_OPEN = 1024
#: Members of one barrier: ranks of the largest case that is thought of.
MOST_MEMBERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Released:
    """All members are there."""

    name: str
    generation: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The generation can never be complete. ``waiting`` are those who had arrived and must be told; it is no
    ``news`` for the rest when it was said before, or is about one member alone."""

    name: str
    generation: int
    reason: str
    waiting: tuple[int, ...]
    news: bool = True


Outcome = Released | Failed


@dataclass(slots=True)
class _Open:
    expected: int
    everyone: bool
    arrived: set[int] = field(default_factory=set)


class BarrierBook:
    """All barriers among the members ``0 .. size-1``. ``name_of`` turns a member into words for people."""

    def __init__(self, members: Iterable[int]) -> None:
        self._members = set(members)
        self._gone: dict[int, str] = {}
        self._open: dict[tuple[str, int], _Open] = {}
        self._over: OrderedDict[tuple[str, int], Outcome] = OrderedDict()

    def enter(self, name: str, generation: int, member: int, expected: int = 0) -> Outcome | None:
        """A member arrives; the outcome when that decides it (or it was decided), None while others miss.

        ``expected``: members of this generation, 0 for all. Who is no member gets Failed for itself alone.
        """
        key = (name, generation)
        if member not in self._members:
            return Failed(name, generation, f"rank {member} is no member", (member,), news=False)
        if key in self._over:
            return self._again(self._over[key], member)
        barrier = self._open.get(key)
        if barrier is None:
            if len(self._open) >= MOST_OPEN:
                words = f"more than {MOST_OPEN} barriers are waiting"
                return Failed(name, generation, words, (member,), news=False)
            barrier = self._open[key] = _Open(expected or len(self._members), not expected)
        wrong = self._disagrees(barrier, expected)
        barrier.arrived.add(member)
        if wrong:
            return self._fail(key, f"rank {member} expects {wrong}")
        if self._gone and (member in self._gone or self._hopeless(barrier)):
            return self._fail(key, self._who_left())
        if len(barrier.arrived) >= barrier.expected:
            return self._release(key)
        return None

    def leave(self, member: int, reason: str) -> list[Failed]:
        """A member is gone for good: every barrier that needs it fails, now and later."""
        if member not in self._members or member in self._gone:
            return []
        self._gone[member] = reason
        needing = [key for key, one in self._open.items() if member in one.arrived or self._hopeless(one)]
        return [self._fail(key, self._who_left()) for key in needing]

    def missing(self, name: str, generation: int) -> tuple[int, ...]:
        """Members that have not arrived at a waiting generation."""
        barrier = self._open.get((name, generation))
        return tuple(sorted(self._members - barrier.arrived)) if barrier else ()

    def waiting(self) -> list[tuple[str, int]]:
        """Names and generations that are waiting."""
        return list(self._open)

    def _hopeless(self, barrier: _Open) -> bool:
        """Whether those who are left are too few. Of those who are gone none waits in an open barrier."""
        return barrier.everyone or len(self._members) - len(self._gone) < barrier.expected

    def _disagrees(self, barrier: _Open, expected: int) -> str:
        wanted = expected or len(self._members)
        if wanted > len(self._members):
            return f"{wanted} members where there are {len(self._members)}"
        return "" if wanted == barrier.expected else f"{wanted} members, others {barrier.expected}"

    def _who_left(self) -> str:
        first, *rest = self._gone.items()
        more = f" and {len(rest)} more" if rest else ""
        return f"rank {first[0]} left: {first[1]}{more}"

    def _release(self, key: tuple[str, int]) -> Released:
        released = Released(*key, tuple(sorted(self._open.pop(key).arrived)))
        self._remember(key, released)
        return released

    def _fail(self, key: tuple[str, int], reason: str) -> Failed:
        failed = Failed(*key, reason, tuple(sorted(self._open.pop(key).arrived)))
        self._remember(key, failed)
        return failed

    def _again(self, outcome: Outcome, member: int) -> Outcome:
        if isinstance(outcome, Failed):
            return Failed(outcome.name, outcome.generation, outcome.reason, (member,), news=False)
        if member in outcome.members:
            return outcome
        reason = f"rank {member} came after {len(outcome.members)} members had been released"
        return Failed(outcome.name, outcome.generation, reason, (member,), news=False)

    def _remember(self, key: tuple[str, int], outcome: Outcome) -> None:
        self._over[key] = outcome
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)


def to_ranges(members: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Sorted members as ranges, both ends in: [0, 1, 2, 5] -> ((0, 2), (5, 5))."""
    ranges: list[tuple[int, int]] = []
    for member in members:
        if ranges and member == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], member)
        else:
            ranges.append((member, member))
    return tuple(ranges)


def from_ranges(ranges: Iterable[tuple[int, ...]]) -> list[int]:
    """The members of ranges, both ends in.

    Raises RemoteError for what is no range, or for more than MOST_MEMBERS members.
    """
    members: list[int] = []
    for pair in ranges:
        if len(pair) != 2 or pair[0] > pair[1] or len(members) + pair[1] - pair[0] >= MOST_MEMBERS:
            raise RemoteError(f"{pair} is not a range of at most {MOST_MEMBERS} members")
        members.extend(range(pair[0], pair[1] + 1))
    return members
