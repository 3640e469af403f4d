"""Is the other side there, and does it hear us? Heartbeats both ways that carry what was last heard.

TCP alone does not notice a vanished peer for minutes. A peer is *silent* after ``SILENT_BEATS`` missed
beats and *dead* after ``dead_after_s``. It is dead as well when it talks but has not heard us for that long
(a one-way break), so both sides come to the same verdict. A side that was itself stalled (a stopped process,
a blocked disk) credits the time it lost before it judges anyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .messages import Heartbeat

#: Missed heartbeats after which a peer is called silent (Flux calls it torpid).
SILENT_BEATS = 3


class Health(Enum):
    """What is known of the peer."""

    ALIVE = "alive"
    SILENT = "silent"
    DEAD = "dead"


@dataclass(slots=True)
class Liveness:
    """The heartbeat state of one side of one connection. ``now`` is any monotonic clock, in seconds."""

    heartbeat_s: float
    dead_after_s: float
    now: float
    seq: int = 0
    heard: int = 0
    _last_beat: float = 0.0
    _last_tick: float = 0.0
    _last_heard: float = 0.0
    _last_echo: float = 0.0
    _echo: int = 0
    _peer_sent_at: float = 0.0
    _peer_came: float = 0.0
    clock_offset_s: float | None = None
    round_trip_s: float | None = None

    def __post_init__(self) -> None:
        self._last_tick = self._last_heard = self._last_echo = self.now
        # Soon, but not at once: where a thousand join in a second, their first beats come behind the joining.
        self._last_beat = self.now - self.heartbeat_s / 2

    def heard_something(self, now: float) -> None:
        """Any frame shows that the peer can reach us."""
        self._last_heard = now

    def on_heartbeat(self, beat: Heartbeat, now: float, wall: float) -> None:
        """Take a heartbeat of the peer. ``wall`` is our wall clock in seconds."""
        self._last_heard = now
        self.heard = max(self.heard, beat.seq)
        self._peer_sent_at, self._peer_came = beat.sent_at, now
        if beat.heard > self._echo:
            self._echo, self._last_echo = min(beat.heard, self.seq), now
        if beat.heard_sent_at > 0:
            self._measure_clock(beat, wall)

    def _measure_clock(self, beat: Heartbeat, wall: float) -> None:
        """Cristian's algorithm, the sample with the shortest round trip kept."""
        round_trip = wall - beat.heard_sent_at - beat.held_s
        if round_trip < 0 or (self.round_trip_s is not None and round_trip > 2 * self.round_trip_s):
            return
        self.round_trip_s = round_trip
        self.clock_offset_s = beat.sent_at - (wall - round_trip / 2)

    def tick(self, now: float) -> None:
        """Call at least once per heartbeat. Time in which we were not called is credited to the peer."""
        stalled = now - self._last_tick - self.heartbeat_s
        if stalled > self.heartbeat_s:
            self._last_heard = min(now, self._last_heard + stalled)
            self._last_echo = min(now, self._last_echo + stalled)
        self._last_tick = now

    def due(self, now: float) -> bool:
        """Whether a heartbeat should go out."""
        return now - self._last_beat >= self.heartbeat_s

    def beat(self, now: float, wall: float, received: int = 0) -> Heartbeat:
        """The next heartbeat to send; ``received`` as in ``lifeline``."""
        self._last_beat = now
        self.seq += 1
        held = max(0.0, now - self._peer_came) if self._peer_came else 0.0
        return Heartbeat(self.seq, self.heard, wall, self._peer_sent_at, held, received)

    def next_deadline(self) -> float:
        """When ``tick`` and ``due`` should be asked again."""
        return self._last_beat + self.heartbeat_s

    def silent_for(self, now: float) -> float:
        """Seconds since the peer was last heard."""
        return max(0.0, now - self._last_heard)

    def unheard_for(self, now: float) -> float:
        """Seconds since the peer last showed that it hears us."""
        return max(0.0, now - self._last_echo)

    def health(self, now: float) -> Health:
        """The verdict on the peer at ``now``."""
        silent = self.silent_for(now)
        if silent >= self.dead_after_s or self.unheard_for(now) >= self.dead_after_s + self.heartbeat_s:
            return Health.DEAD
        return Health.SILENT if silent >= SILENT_BEATS * self.heartbeat_s else Health.ALIVE
