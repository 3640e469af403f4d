"""What a pull tells its owner, from any of its threads; and how patient it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BlobComplete:
    """A blob lies whole at ``path``, verified. They come in the order in which they were asked for."""

    blob: bytes
    path: Path


@dataclass(frozen=True, slots=True)
class ParentLost:
    """A stripe has left a parent for the next; node "" is the controller.

    ``corrupt``: it sent something else than was asked for, and is not used again while others give anything.
    """

    node: str
    corrupt: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Starved:
    """No parent of a stripe has given anything, or there is none: others are needed. It goes on trying
    meanwhile."""

    stripe: int
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes that are verified, of all blobs together, and bytes read from the network."""

    verified: int
    read: int


@dataclass(frozen=True, slots=True)
class PullComplete:
    """Every blob is there."""


@dataclass(frozen=True, slots=True)
class PullFailed:
    """It will not become anything; the reason says what to do."""

    reason: str


PullEvent = BlobComplete | ParentLost | Starved | Progress | PullComplete | PullFailed


@dataclass(frozen=True, slots=True)
class Patience:
    """Times of a pull, in seconds.

    ``silent_s``: without any byte of a relay, which speaks once a second at least; ``controller_silent_s``:
    without a chunk of the controller, which speaks in whole chunks only; ``frame_s``: for one frame (at 4 MiB
    a floor of 140 kB/s); ``retry_s``: before a list of parents is begun again; ``claim_s``: between looks
    at what another process has of a blob that we want; ``still_s``: without a chunk more in its file, which
    it writes in whole chunks only; ``progress_s``: between two Progress.
    """

    silent_s: float = 3.0
    controller_silent_s: float = 10.0
    frame_s: float = 30.0
    retry_s: float = 1.0
    claim_s: float = 0.2
    still_s: float = 10.0
    progress_s: float = 0.5
