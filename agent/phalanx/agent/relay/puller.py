"""Gets a list of blobs into the cache, in order, each over several stripes at a time.

A stripe is a thread that reads every n-th chunk; one more thread hashes each blob while it comes and gives it
its name. What another process of the node writes is left to it, and read along in one more thread; when it
does not come on, as with two runs that wait for each other, the blob is fetched beside it. Whatever breaks,
what is verified stays: it is never asked for again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.events import (
    BlobComplete,
    Patience,
    Progress,
    PullComplete,
    PullEvent,
    PullFailed,
    Starved,
)
from phalanx.agent.relay.parents import Known
from phalanx.agent.relay.rate import Pacer
from phalanx.agent.relay.spool import Spool, SpoolError
from phalanx.agent.relay.stripe import Desk, Stripe
from phalanx.agent.relay.wanted import Wanted
from phalanx.protocol import messages
from phalanx.protocol.blob import Manifest
from phalanx.protocol.messages import Chunk, ChunkGet, ChunkRefused


class Pull:
    """One fetch of ``count`` blobs, in the order in which ``add`` gives their manifests. What is known of
    them is read while others, and more of their digests (``more_known``), are still to come. ``tell`` gets
    every event, from any thread, and must not block.

    ``ask`` asks the controller for a chunk over the bulk link, False when that is down; what comes then is
    handed in by ``on_chunk``. ``run_id`` and ``node`` are what the tickets were made for. ``opened`` gets
    every blob, to be served on to others. ``rate_bytes_s`` caps what is read, 0 for no limit.
    ``trusted``: the manifests come from one that is believed, and not from another node.
    """

    def __init__(
        self,
        cache: BlobCache,
        count: int,
        *,
        run_id: str,
        node: str,
        tell: Callable[[PullEvent], None],
        ask: Callable[[ChunkGet], bool] = lambda wanted: False,
        opened: Callable[[Spool], None] = lambda spool: None,
        rate_bytes_s: int = 0,
        patience: Patience | None = None,
        trusted: bool = False,
    ) -> None:
        self._cache = cache
        self._trusted = trusted
        patience = patience or Patience()
        self._count = count
        self._opened = opened
        wanted = Wanted(self._claim, cache.claim_apart)
        pacer = Pacer(rate_bytes_s)
        self._desk = Desk(
            wanted, Known(), pacer, patience, run_id, node, tell, ask, self._fail, self._tell_progress
        )
        self._stripes: list[Stripe] = []
        self._told_at = 0.0
        self._ended = threading.Event()
        self._leave = threading.Event()
        self._crowded: set[Spool] = set()
        self._apart_from = 0.0
        self._finishing = threading.Thread(target=self._finish_all, name="pull: whole blobs", daemon=True)
        self._following = threading.Thread(target=self._follow_all, name="pull: blobs of others", daemon=True)

    def add(self, manifest: Manifest) -> None:
        """The next blob; nothing once the pull is over. Raises OSError when the cache cannot be used."""
        if self._desk.over:
            return
        spool = self._cache.open(manifest)
        self._opened(spool)
        self._desk.wanted.add(spool)
        self.more_known()

    def more_known(self) -> None:
        """Digests were added to a manifest: there may be more to ask for."""
        with self._desk.changing():
            pass

    def start(self, stripes: Sequence[messages.Stripe]) -> None:
        """Begin to read."""
        self.parents_changed(stripes)
        self._following.start()
        self._finishing.start()

    def parents_changed(self, stripes: Sequence[messages.Stripe]) -> None:
        """Read from these from now on; none: wait for others. A first parent that is read from stays."""
        with self._desk.changing():
            self._desk.of = max(1, len(stripes))
            while len(self._stripes) < self._desk.of and not self._desk.over:
                self._stripes.append(Stripe(self._desk, len(self._stripes)))
                self._stripes[-1].thread.start()
            for place, stripe in enumerate(self._stripes):
                stripe.set_parents(stripes[place].parents if place < len(stripes) else ())

    def on_chunk(self, message: Chunk | ChunkRefused) -> None:
        """What the controller sent; what nobody asked for is let fall."""
        with self._desk.changed:
            for stripe in self._stripes:
                if stripe.give(message):
                    return

    def cancel(self) -> None:
        """End every thread and leave what is there for a later fetch.

        Blocks for a moment; not to be called from an event.
        """
        self._end()
        if self._finishing.is_alive():
            self._ended.wait()

    def close(self) -> None:
        """Cancel, and let go of the blobs: they may be evicted now. Not while a relay is to serve them."""
        self.cancel()
        for spool in self._desk.wanted.spools:
            self._cache.close(spool)

    # --- its threads

    def _is_over(self) -> bool:
        return self._desk.over

    def _end(self) -> None:
        self._leave.set()
        with self._desk.changing():
            self._desk.over = True
            for stripe in self._stripes:
                stripe.abort()
        self._desk.pacer.stop()
        for spool in self._desk.wanted.spools:
            spool.wake()

    def _fail(self, reason: str) -> None:
        with self._desk.changed:
            news = not self._desk.over
            self._desk.over = True
        self._end()
        if news:
            self._desk.tell(PullFailed(reason))

    def _claim(self, spool: Spool) -> bool:
        try:
            return self._cache.claim(spool, self._is_over)
        except OSError as error:
            raise SpoolError(f"cannot use the cache of layers: {error}") from error

    def _finish_all(self) -> None:
        try:
            for place in range(self._count):
                spool = self._awaited(place)
                if spool is None or not self._finish(spool):
                    return
                self._desk.tell(BlobComplete(spool.manifest.blob, spool.path))
            self._tell_progress(at_once=True)
            self._desk.tell(PullComplete())
        except SpoolError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - a defect here must not leave the run waiting for ever
            self._fail(f"the fetch of layers broke: {error!r}")
        finally:
            self._end()
            for thread in (self._following, *(stripe.thread for stripe in self._stripes)):
                thread.join()
            self._desk.wanted.give_up()
            self._ended.set()
        self._settle()

    def _awaited(self, place: int) -> Spool | None:
        """A blob, once its manifest has begun to come; None when the pull is over before."""
        desk = self._desk
        with desk.changed:
            desk.changed.wait_for(lambda: desk.over or len(desk.wanted.spools) > place)
            return None if desk.over else desk.wanted.spools[place]

    def _finish(self, spool: Spool) -> bool:
        """Until the blob is whole, whoever writes it. False when the pull is over before."""
        while not spool.whole:
            if self._desk.over:
                return False
            if self._desk.wanted.claim(spool):
                spool.finish(self._is_over, trusted=self._trusted)
            elif not spool.wait_complete(self._desk.patience.claim_s, self._is_over) and self._is_stuck(
                spool
            ):
                self._go_apart(spool)
        return True

    def _is_stuck(self, spool: Spool) -> bool:
        """Whether who writes it does not come on, and we could."""
        could = spool.complete or any(True for _ in spool.missing(0, 1))
        return could and spool.still_s > self._desk.patience.still_s and time.monotonic() >= self._apart_from

    def _go_apart(self, spool: Spool) -> None:
        """Fetch it beside another, when there is room for that."""
        try:
            ours = self._desk.wanted.claim_apart(spool)
        except SpoolError as error:
            if spool not in self._crowded:
                words = f"another run of yours writes {spool.path.name[:12]} and does not come on"
                self._desk.tell(Starved(0, f"{words}; it cannot be fetched beside it: {error}"))
            self._crowded.add(spool)
            self._apart_from = time.monotonic() + self._desk.patience.still_s
            return
        if ours:
            self.more_known()
            spool.recall_all(self._is_over)

    def _follow_all(self) -> None:
        desk = self._desk
        try:
            while not desk.over:
                for spool in desk.wanted.of_others():
                    before = spool.verified
                    spool.follow(self._is_over)
                    if spool.verified != before:
                        self._tell_progress()
                # not for ``changed``: with every chunk it would wake this thread, which has seldom work
                self._leave.wait(desk.patience.claim_s)
        except Exception as error:  # noqa: BLE001 - a defect here must not leave the run waiting for ever
            self._fail(f"the fetch of layers broke: {error!r}")

    def _settle(self) -> None:
        try:
            for spool in self._desk.wanted.spools:
                spool.settle()
        except OSError:
            return  # the next agent reads them again to know what is there

    def _tell_progress(self, at_once: bool = False) -> None:
        now = time.monotonic()
        with self._desk.changed:
            if not at_once and now - self._told_at < self._desk.patience.progress_s:
                return
            self._told_at = now
            read = self._desk.read + sum(stripe.reading_bytes for stripe in self._stripes)
        verified = sum(spool.verified for spool in self._desk.wanted.spools)
        self._desk.tell(Progress(verified, read))
