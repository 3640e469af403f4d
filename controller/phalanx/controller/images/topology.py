"""Shapes of a transfer, as numbers: for each stripe, the parent of each position, or ROOT.

A node that forwards each chunk as it comes makes the time independent of the number of nodes. A chain does
so with the least traffic, but each node waits for all before it: good for a few. Where a node takes in
about as fast as it sends, only *two trees* keep both every link full and the depth a logarithm: each half
of the chunks has its own tree, and who forwards in one is a leaf in the other (Sanders, Speck, Traeff 2009,
"Two-tree algorithms for full bandwidth broadcast, reduction and scan"). Where it sends faster, one tree
does.

The root has one child per stripe: the source sends each byte once. Every shape changes little when the last
position goes, which is how a plan that lost a node stays nearly what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

#: The parent of who reads from the source.
ROOT = -1
#: Nodes up to which a chain is as fast as anything: seven chunks of delay.
CHAIN_MAX = 8
#: Most children in a k-ary tree. More would make it shallower by less than a hop.
FANOUT_MAX = 4

Parents = list[int]


def chain(count: int) -> list[Parents]:
    """One behind the other."""
    return [list(range(-1, count - 1))]


def k_ary(count: int, fanout: int) -> list[Parents]:
    """One tree of the least depth for ``fanout`` children a node, filled from the first subtree on.

    A subtree is a run of neighbours, so with positions sorted by rack most edges stay in one; a parent comes
    before its children.
    """
    subtree = 1  # positions of a full subtree under the head
    while 1 + fanout * subtree < count:
        subtree = 1 + fanout * subtree
    parents = [ROOT] * count
    runs = [(0, subtree)] if count > 1 else []
    while runs:
        head, size = runs.pop()
        for first in range(head + 1, min(count, head + 1 + fanout * size), size):
            parents[first] = head
            if size > 1:
                runs.append((first, (size - 1) // fanout))
    return [parents]


def two_tree(counts: Sequence[int]) -> list[Parents]:
    """Two trees over groups of ``counts`` positions, one group after another.

    Within a group anyone may be anyone's parent. A group's trees hang from a place that the group before
    has left free: of two children for each node, two trees leave exactly one place each. So nobody has more
    than two readers in all, and nobody forwards in both trees, but for one node between two groups.
    """
    trees: list[Parents] = [[], []]
    feeders = (ROOT, ROOT)
    start = 0
    for count in counts:
        for stripe, tree in enumerate(trees):
            for index in range(count):
                # The second tree is the first with the order shifted by one: even positions become odd.
                position = (index + stripe) % count + 1
                above = _above(position, count)
                tree.append(feeders[stripe] if not above else start + (above - 1 - stripe) % count)
        last = start + count - 1
        feeders = (last, last if count % 2 else last - 1)
        start += count
    return trees


def _above(position: int, count: int) -> int:
    """The parent of a position from 1 to ``count`` in an in-order binary tree; 0 for its head.

    Odd positions are leaves. The lowest set bit is the level; a parent that would lie past the end is
    skipped.
    """
    bit = position & -position
    above = (position ^ bit) | (bit << 1)
    return above if above <= count else position ^ bit


def downward(parents: Parents) -> Iterator[int]:
    """Positions with each parent before its children."""
    below: dict[int, list[int]] = {}
    for child, parent in enumerate(parents):
        below.setdefault(parent, []).append(child)
    wave = below.get(ROOT, [])
    while wave:
        yield from wave
        wave = [child for parent in wave for child in below.get(parent, ())]
