"""The layers of an image of this node's engine, taken into its cache, from where other nodes read them."""

from __future__ import annotations

import os
import time

from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.spool import Spool, SpoolError
from phalanx.agent.runtimes import seed
from phalanx.agent.runtimes.layers import Span

#: How long another process may take to make a layer whole that this node is to seed, and between two looks at
#: it, in seconds.
OTHERS_S, LOOK_S = 300.0, 0.2


def take_in(cache: BlobCache, found: seed.Seed) -> list[Spool]:
    """Copy a seed's layers into the cache, each verified once more. Blocks. Raises SpoolError, OSError."""
    spools = []
    for span, manifest in dict(zip(found.spans, found.manifests, strict=True)).items():
        spool = cache.open(manifest)
        spools.append(spool)
        fill(cache, spool, span)
    return spools


def fill(cache: BlobCache, spool: Spool, span: Span) -> None:
    """Make the blob whole, or wait until another process of the user has. Raises SpoolError, OSError."""
    manifest, until = spool.manifest, time.monotonic() + OTHERS_S
    while not cache.claim(spool):
        if spool.whole:
            return
        if time.monotonic() > until:
            raise SpoolError(
                f"another run of yours has been writing {spool.path} for {OTHERS_S:g} s; wait for its end"
            )
        spool.wait_complete(LOOK_S)
    with span.path.open("rb") as file:
        for index in list(spool.missing(0, 1)):
            payload = os.pread(file.fileno(), manifest.length(index), span.offset + manifest.offset(index))
            spool.keep(index, payload)
    spool.finish()


def settle(spools: list[Spool]) -> None:
    """Have them on the disk for sure. Blocks. Raises OSError."""
    for spool in spools:
        spool.settle()
