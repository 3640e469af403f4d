"""How long a plan takes, before it is tried.

A pipeline's time is that of its slowest link plus one chunk and one hop for each node before: S/B + d (c/B
+ a). With two stripes each tree carries half of the bytes at half of the rate. Nothing beats max(S/uplink,
S/ingest), S being the most that a node lacks. The engine's loading runs beside the transfer, a layer behind
it.
"""

from __future__ import annotations

from collections.abc import Sequence

from phalanx.protocol.blob import chunk_count

from .sync_plan import Links
from .topology import ROOT, Parents, downward

#: A slow node has less than this share of the rate of the others: they are planned with the best of it.
SLOW_SHARE = 0.5


def stripe_bytes(size: int, chunk_bytes: int, stripe: int, stripes: int) -> int:
    """Bytes of the chunks ``stripe``, ``stripe + stripes``, ... of a blob."""
    count = chunk_count(size, chunk_bytes)
    mine = len(range(stripe, count, stripes))
    short = count * chunk_bytes - size if mine and (count - 1) % stripes == stripe else 0
    return mine * chunk_bytes - short


def finishes(
    parents: Parents, amounts: Sequence[int], chunk_bytes: int, rate: float, hop_s: float
) -> list[float]:
    """When each position of one stripe's tree has its last byte, in seconds. ``rate``: of the stripe."""
    done = [0.0] * len(parents)
    for position in downward(parents):
        if not amounts[position]:
            continue
        parent = parents[position]
        behind = done[parent] + chunk_bytes / rate + hop_s if parent != ROOT else 0.0
        done[position] = max(behind, amounts[position] / rate + hop_s)
    return done


def pendant_finish(parent_s: float, size: int, links: Links) -> float:
    """When a slow node has its last byte, at the earliest; ``parent_s``: when who feeds it has it."""
    return max(parent_s, size / (links.rate * SLOW_SHARE)) + links.hop_s


def loading_after(sizes: Sequence[int], first: int, missing: tuple[int, ...], links: Links) -> float:
    """Seconds that the engine goes on after the last byte: each layer begins when it is there and the one
    before is loaded.
    """
    travels = set(missing)
    to_come = sum(sizes[layer] for layer in missing)
    loaded = -to_come / links.rate
    for layer in range(first, len(sizes)):
        if layer in travels:
            to_come -= sizes[layer]
            loaded = max(loaded, -to_come / links.rate)
        loaded += sizes[layer] / links.load
    return max(0.0, loaded)
