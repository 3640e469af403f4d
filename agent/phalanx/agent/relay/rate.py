"""A cap on bytes a second that threads share: who takes more than has run in waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from phalanx.protocol.rate import Bucket


class Pacer:
    """Makes threads wait so that together they keep to ``rate_bytes_s``; 0 is no limit."""

    def __init__(self, rate_bytes_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = Bucket(rate_bytes_s, clock()) if rate_bytes_s else None
        self._clock = clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        #: bytes that are taken at a time, so that no single wait is longer than a tenth of a second or so
        self.piece = max(4096, rate_bytes_s // 8) if rate_bytes_s else 1 << 30

    def wait(self, amount: int) -> None:
        """Until ``amount`` bytes may go."""
        if self._bucket is None:
            return
        with self._lock:
            seconds = self._bucket.take(amount, self._clock())
        if seconds:
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """So long, unless it is stopped."""
        self._stopped.wait(seconds)

    def stop(self) -> None:
        """Nobody waits any more."""
        self._stopped.set()
