"""What passed through the cables of a lab while something ran, read about 20 times a second.

The same watch stands beside every method, so that "the last byte" means the same for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from benchmarks.crew import BenchmarkError
from tests.lab.lab import Lab
from tests.lab.topology import LOGIN

#: Seconds between two readings.
INTERVAL_S = 0.05
#: A node is said to have it all when it has this part: what comes after the last byte (acknowledgements to
#: nodes behind it, the words of srun) is far less than the rest.
WHOLE = 0.995


class LinkWatch:
    """A thread that reads the counters; a context around what is watched."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="watch of the links", daemon=True)
        self._readings: list[tuple[float, dict[str, tuple[int, int]]]] = []
        self.look()

    def __enter__(self) -> LinkWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.look()

    def _go_on(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self.look()

    def look(self) -> None:
        """Read all counters once."""
        self._readings.append((time.monotonic(), self._lab.traffic()))

    def received(self, node: str) -> int:
        """Bytes that a node received so far, or in all."""
        return self._readings[-1][1][node][1] - self._readings[0][1][node][1]

    @property
    def source_sent(self) -> int:
        """Bytes that the login node sent."""
        return self._readings[-1][1][LOGIN][0] - self._readings[0][1][LOGIN][0]

    def last_byte_s(self, node: str) -> float:
        """Seconds from the first reading until the node had all that it was to receive.

        All is what it received to the end, headers and retransmissions included: a method that sends more
        does not count as done when the size of the image has passed.
        """
        begin, first = self._readings[0]
        wanted = first[node][1] + WHOLE * self.received(node)
        return next(moment for moment, seen in self._readings if seen[node][1] >= wanted) - begin

    def check_whole(self, nodes: Sequence[str], size: int) -> None:
        """Raises BenchmarkError when a node received less than an image of that size."""
        short = {node: self.received(node) for node in nodes if self.received(node) < WHOLE * size}
        if short:
            raise BenchmarkError(f"nodes have received less than the {size} bytes of the image: {short}")
