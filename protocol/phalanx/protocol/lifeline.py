"""Control messages of one incarnation, both ways, across reconnects: each exactly once and in order.

A message that was written to a socket may never have arrived. So each side keeps what it sent until the
other says how many it has received (heartbeats carry that number; one goes out early when much has come),
and both say it again when they shake hands anew: what is missing is sent again before anything else. XMPP's
stream management (XEP-0198) does the same. Logs and blobs have offsets of their own and do not pass here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .errors import RemoteError

#: Bytes kept for a peer that does not confirm them. Beyond that it is given up rather than waited for.
KEPT_BYTES = 16 * 1024 * 1024
#: Bytes after which their receiver confirms them at once, and not with its next heartbeat: keys of a workload
#: fill what is kept within a second.
CONFIRM_BYTES = KEPT_BYTES // 16


class Overflow(RemoteError):
    """The peer has confirmed nothing for so long that what is kept for it has no more room."""


@dataclass(slots=True)
class Lifeline:
    """``received``: messages of the peer so far. Our frames from number ``confirmed`` on are kept."""

    received: int = 0
    confirmed: int = 0
    _kept: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0

    def keep(self, frame: bytes) -> None:
        """A frame is sent, or will be once there is a connection. Raises Overflow."""
        if self._bytes + len(frame) > KEPT_BYTES:
            raise Overflow(f"{self._bytes} bytes wait for a peer that does not confirm them")
        self._kept.append(frame)
        self._bytes += len(frame)

    def confirm(self, count: int) -> None:
        """The peer has received ``count`` messages in all. Raises RemoteError when that cannot be."""
        if not self.confirmed <= count <= self.confirmed + len(self._kept):
            raise RemoteError(
                f"the peer confirms {count} messages, {self.confirmed} to "
                f"{self.confirmed + len(self._kept)} are possible"
            )
        while self.confirmed < count:
            self._bytes -= len(self._kept.popleft())
            self.confirmed += 1

    @property
    def kept_bytes(self) -> int:
        """Bytes that the peer has not confirmed."""
        return self._bytes

    def missing(self) -> list[bytes]:
        """Frames that the peer has not confirmed, oldest first."""
        return list(self._kept)
