"""Which chunk is asked for next: of each blob in turn, by one stripe only, and not again."""

from __future__ import annotations

from pathlib import Path

from phalanx.agent.relay.spool import Spool
from phalanx.agent.relay.wanted import Wanted

from tests.relay.nodes import blob_of, cut


def wanted_of(folder: Path, *chunks: float) -> tuple[Wanted, list[Spool], list[list[bytes]]]:
    blobs = [blob_of(count) for count in chunks]
    spools = [Spool(folder / manifest.blob.hex(), manifest) for _, manifest in blobs]
    wanted = Wanted(Spool.claim)
    for spool in spools:
        wanted.add(spool)
    return wanted, spools, [cut(content) for content, _ in blobs]


def taken(wanted: Wanted, stripe: int, of: int) -> list[tuple[int, int]]:
    """All that a stripe asks for, as places of blobs and indexes."""
    got = []
    while (want := wanted.take(stripe, of)) is not None:
        got.append((wanted.spools.index(want[0]), want[1]))
    return got


def test_stripes_take_their_shares_of_one_blob_after_another(tmp_path: Path) -> None:
    wanted, _, _ = wanted_of(tmp_path, 3, 2)
    assert taken(wanted, 0, 2) == [(0, 0), (0, 2), (1, 0)]
    assert taken(wanted, 1, 2) == [(0, 1), (1, 1)]
    assert taken(wanted, 0, 2) == []


def test_what_did_not_come_is_asked_for_again_and_what_came_is_not(tmp_path: Path) -> None:
    wanted, (spool,), (pieces,) = wanted_of(tmp_path, 4)
    assert len(taken(wanted, 0, 1)) == 4
    spool.keep(1, pieces[1])
    wanted.came(spool.manifest.blob, 1)
    wanted.give_back([(spool, index) for index in (0, 2, 3)])
    assert taken(wanted, 0, 1) == [(0, 0), (0, 2), (0, 3)]


def test_with_another_number_of_stripes_nothing_that_is_on_its_way_is_asked_for(tmp_path: Path) -> None:
    wanted, (spool,), _ = wanted_of(tmp_path, 6)
    assert wanted.take(0, 1) == (spool, 0)
    assert wanted.take(0, 1) == (spool, 1)
    assert taken(wanted, 0, 2) == [(0, 2), (0, 4)]
    assert taken(wanted, 1, 2) == [(0, 3), (0, 5)]


def test_a_blob_that_another_writes_is_left_to_it_until_it_is_ours(tmp_path: Path) -> None:
    wanted, (first, second), (pieces, _) = wanted_of(tmp_path, 2, 1)
    other = Spool(first.path, first.manifest)
    assert other.claim()
    other.keep(1, pieces[1])
    assert taken(wanted, 0, 1) == [(1, 0)]
    assert not wanted.claim(first)
    other.unclaim()
    assert wanted.claim(first)
    assert taken(wanted, 0, 1) == [(0, 0)]
    assert second in wanted.ours
    wanted.give_up()
    assert other.claim()
