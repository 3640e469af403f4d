"""What a workload can ask for, read from an HTTP request. Pure: text in, a typed call or words for
people out.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

#: Largest body, as KvPut has it on the wire.
MOST_BODY_BYTES = 64 * 1024

#: Longest name of a barrier, a key or a metric, and of a unit, as the wire has them.
_LONGEST_NAME = 255
_LONGEST_UNIT = 64

#: Seconds that a barrier waits unless told otherwise, and at most.
BARRIER_WAIT_S = 3600.0
_LONGEST_WAIT_S = 7 * 86400.0

_MOST_MEMBERS = 2**32 - 1
_MOST_GENERATIONS = 2**63 - 1
_LARGEST = 1e300

HELP = """\
phalanx workload API. NAME and KEY are yours to choose; R is this process's rank (PHALANX_RANK).

  POST /barrier/NAME?rank=R     wait until every rank of the case has called it
       &count=N                 ... or until N ranks have
       &timeout=S               give up waiting after S seconds (3600)
       &generation=G            which round of the barrier (each call meets the next one)
  PUT  /kv/KEY                  set a key of the case to the body (64 KiB at most)
  GET  /kv/KEY?wait=S           read a key, waiting up to S seconds for it to be set (0)
  POST /ready?rank=R            say that this rank is ready
  POST /metric/NAME?value=V&unit=U&rank=R   report a number

The header X-Phalanx-Rank may carry the rank; a node with one rank needs neither.

  curl --unix-socket "$PHALANX_SOCKET" -X POST "http://x/barrier/start?rank=$PHALANX_RANK"
"""


class Refused(Exception):
    """The request cannot be obeyed as it is: an HTTP status and words for people."""

    def __init__(self, status: int, words: str, allow: str = "") -> None:
        super().__init__(words)
        self.status = status
        self.allow = allow


@dataclass(frozen=True, slots=True)
class Help:
    """Say what there is."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """Arrive at a barrier and wait. ``generation`` None: the next; ``count`` 0: all ranks of the case."""

    name: str
    rank: int
    count: int
    generation: int | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key, waiting up to ``wait_s`` seconds for it."""

    key: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class Ready:
    """This rank is ready."""

    rank: int


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of this rank."""

    rank: int
    name: str
    value: float
    unit: str


Call = Help | Barrier | Put | Get | Ready | Metric


def read_call(method: str, target: str, rank_header: str, body: bytes, ranks: Sequence[int]) -> Call:
    """The call that a request means on a node with ``ranks``. Raises Refused."""
    try:
        split = urlsplit(target)
        query = dict(parse_qsl(split.query, keep_blank_values=True, max_num_fields=16))
    except ValueError:
        raise Refused(400, f"cannot read the request target {target[:100]!r}") from None
    kind, _, name = split.path.lstrip("/").partition("/")
    given = _Given(unquote(name), query, rank_header, body, ranks)
    if kind == "barrier":
        _allow(method, "POST", "PUT", "GET")
        return given.barrier()
    if kind == "kv":
        _allow(method, "GET", "PUT", "POST")
        return given.get() if method == "GET" else given.put()
    if kind == "ready" and not name:
        _allow(method, "POST", "PUT")
        return given.ready()
    if kind == "metric":
        _allow(method, "POST", "PUT")
        return given.metric()
    if not kind:
        _allow(method, "GET")
        return Help()
    raise Refused(404, f"there is no /{kind[:100]}; GET / lists what there is")


def _allow(method: str, *methods: str) -> None:
    if method not in methods:
        raise Refused(405, f"{method} does nothing here; use {methods[0]}", ", ".join(methods))


@dataclass(frozen=True, slots=True)
class _Given:
    """The parts of a request, and what each call wants of them."""

    name: str
    query: Mapping[str, str]
    rank_header: str
    body: bytes
    ranks: Sequence[int]

    def barrier(self) -> Barrier:
        self.know("rank", "count", "generation", "timeout")
        generation = self.whole("generation", 0, _MOST_GENERATIONS) if "generation" in self.query else None
        count = self.whole("count", 1, _MOST_MEMBERS) if "count" in self.query else 0
        timeout = self.seconds("timeout", BARRIER_WAIT_S)
        return Barrier(self.named("barrier", "start"), self.rank(), count, generation, timeout)

    def put(self) -> Put:
        self.know("rank")
        return Put(self.named("key", "address"), self.body)

    def get(self) -> Get:
        self.know("rank", "wait")
        return Get(self.named("key", "address"), self.seconds("wait", 0.0))

    def ready(self) -> Ready:
        self.know("rank")
        return Ready(self.rank())

    def metric(self) -> Metric:
        self.know("rank", "value", "unit")
        text = self.query.get("value") or self.body.decode("ascii", errors="replace").strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= _LARGEST:
            raise Refused(
                400, f"cannot read the value {text[:100]!r}: it must be a finite number, as in ?value=12.5"
            )
        unit = self.query.get("unit", "")
        if len(unit) > _LONGEST_UNIT:
            raise Refused(400, f"the unit is longer than {_LONGEST_UNIT} characters")
        return Metric(self.rank(), self.named("metric", "loss"), value, unit)

    def know(self, *names: str) -> None:
        """Refuse a parameter that would be ignored: a misspelt timeout is a hang."""
        for name in self.query:
            if name not in names:
                raise Refused(
                    400, f"the parameter {name[:100]!r} means nothing here; known are {', '.join(names)}"
                )

    def named(self, what: str, example: str) -> str:
        """The part of the path that the workload chose."""
        if not self.name:
            raise Refused(400, f"the {what} has no name; write it behind the slash, as in /{example}")
        if len(self.name) > _LONGEST_NAME or not self.name.isprintable():
            raise Refused(400, f"the name of the {what} must be at most {_LONGEST_NAME} printable characters")
        return self.name

    def rank(self) -> int:
        """Which of the node's ranks calls."""
        text = self.query.get("rank") or self.rank_header
        here = ", ".join(str(rank) for rank in self.ranks[:16]) + (", ..." if len(self.ranks) > 16 else "")
        if not text:
            if len(self.ranks) == 1:
                return self.ranks[0]
            raise Refused(
                400,
                f"this node has the ranks {here or 'none'}: say which one calls, "
                "with ?rank=$PHALANX_RANK or the header X-Phalanx-Rank",
            )
        if not _is_whole(text) or int(text) not in self.ranks:
            raise Refused(400, f"{text[:100]!r} is no rank of this node; it has {here or 'none'}")
        return int(text)

    def whole(self, name: str, low: int, high: int) -> int:
        text = self.query[name]
        if not _is_whole(text) or not low <= int(text) <= high:
            raise Refused(400, f"{name} must be a whole number from {low} to {high}, not {text[:100]!r}")
        return int(text)

    def seconds(self, name: str, default: float) -> float:
        text = self.query.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= _LONGEST_WAIT_S:
            raise Refused(400, f"{name} must be seconds from 0 to {_LONGEST_WAIT_S:.0f}, not {text[:100]!r}")
        return value


def _is_whole(text: str) -> bool:
    """Whether ``text`` is a number in plain digits that int() takes without a cost."""
    return 0 < len(text) <= 20 and all(c in string.digits for c in text)
