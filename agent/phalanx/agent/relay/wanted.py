"""Which chunk a stripe asks for next: blob after blob, each chunk once while it is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from phalanx.agent.relay.spool import Spool

#: A chunk of a blob.
Want = tuple[Spool, int]


class Wanted:
    """The chunks that a pull lacks of ``spools``, which only grow. ``claim`` makes a blob ours to write, and
    ``claim_apart`` does beside another that writes it.

    A blob is claimed when its turn comes; what another transfer writes is left to that one. Safe to use from
    any thread. What ``claim`` and ``claim_apart`` raise comes through.
    """

    def __init__(
        self, claim: Callable[[Spool], bool], claim_apart: Callable[[Spool], bool] = Spool.claim_apart
    ) -> None:
        self.spools: list[Spool] = []
        self._claim = claim
        self._claim_apart = claim_apart
        self._lock = threading.RLock()
        self._asked: set[tuple[bytes, int]] = set()
        self._from: dict[tuple[bytes, int, int], int] = {}
        self._tried: set[Spool] = set()
        self.ours: set[Spool] = set()

    def add(self, spool: Spool) -> None:
        """One more, after the others. Waits for nothing: the lock may be held while a blob is hashed."""
        self.spools.append(spool)

    def claim(self, spool: Spool) -> bool:
        """Whether the blob is ours to fetch; another transfer may have it."""
        return self._make_ours(spool, self._claim)

    def claim_apart(self, spool: Spool) -> bool:
        """Whether the blob is ours to fetch, beside another transfer that does not come on."""
        return self._make_ours(spool, self._claim_apart)

    def _make_ours(self, spool: Spool, claim: Callable[[Spool], bool]) -> bool:
        with self._lock:
            self._tried.add(spool)
            if not self._is_ours(spool) and not spool.whole and claim(spool):
                self.ours.add(spool)
                self._from.clear()  # what was there of it before may not be now
            return self._is_ours(spool)

    def of_others(self) -> list[Spool]:
        """Blobs that are left to other transfers, as far as their turn has come."""
        with self._lock:
            return [s for s in self.spools if s in self._tried and not s.whole and not self._is_ours(s)]

    def _is_ours(self, spool: Spool) -> bool:
        return spool.writing and spool in self.ours

    def lacks(self, stripe: int, of: int) -> bool:
        """Whether a stripe would have something to ask for, of what is ours to fetch."""
        with self._lock:
            ours = [spool for spool in self.spools if self._is_ours(spool)]
        return stripe < of and any(True for spool in ours for _ in spool.missing(stripe, of))

    def take(self, stripe: int, of: int) -> Want | None:
        """The next chunk of a stripe; None when there is none just now."""
        with self._lock:
            for spool in self.spools:
                if spool.whole:
                    continue
                if self._is_ours(spool) or (spool not in self._tried and self.claim(spool)):
                    index = self._next(spool, stripe, of)
                    if index is not None:
                        return spool, index
        return None

    def _next(self, spool: Spool, stripe: int, of: int) -> int | None:
        blob = spool.manifest.blob
        key = blob, stripe, of
        start = self._from.get(key, stripe)
        known = len(spool.manifest.digests)  # before a look at each of them: they may become more meanwhile
        for index in spool.missing(start, of):
            if (blob, index) not in self._asked:
                self._asked.add((blob, index))
                self._from[key] = index + of
                return index
        self._from[key] = start + of * len(range(start, known, of))
        return None

    def came(self, blob: bytes, index: int) -> None:
        """It is on its way no more."""
        with self._lock:
            self._asked.discard((blob, index))

    def give_back(self, wants: Iterable[Want]) -> None:
        """They did not come; whoever reads that stripe asks for them again."""
        with self._lock:
            for spool, index in wants:
                self._asked.discard((spool.manifest.blob, index))
            self._from.clear()

    def give_up(self) -> None:
        """Leave to others what is ours and not finished."""
        with self._lock:
            for spool in self.ours:
                spool.unclaim()
