"""Two runs of a user on the same nodes: one writes a blob, the other reads along, and goes on without it.

Two nodes in one folder with one name are two agents of a node: they share nothing but the files of its cache.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.descriptor import rename_anew
from phalanx.agent.relay.events import ParentLost, Progress, PullComplete, PullFailed, Starved
from phalanx.agent.relay.journal import Journal
from phalanx.agent.relay.spool import Spool, SpoolError
from phalanx.agent.relay.stripe import window
from phalanx.protocol.blob import Manifest, make_manifest

from tests.relay.conftest import MakeNode
from tests.relay.nodes import BRISK, CHUNK, Fetch, Node, blob_of, cut, fill, until

#: Of who waits for another only as long as a test may take, and of who never stops.
SHORT, LONG = replace(BRISK, still_s=0.3), replace(BRISK, still_s=60.0)


def both(folder: Path, manifest: Manifest) -> tuple[Spool, Spool]:
    """One blob in two processes, as it were; the first has claimed it."""
    one, other = (Spool(folder / manifest.blob.hex(), manifest) for _ in range(2))
    assert one.claim()
    assert not other.claim()
    return one, other


def names(folder: Path) -> list[str]:
    return sorted(path.name[64:] or "whole" for path in folder.iterdir())


def test_what_another_process_has_written_is_there_once_it_is_verified(tmp_path: Path) -> None:
    content, manifest = blob_of(4.5)
    one, other = both(tmp_path, manifest)
    other.follow()
    assert other.verified == 0
    fill(one, content, [0, 4])
    other.follow()
    assert [other.has(index) for index in range(5)] == [True, False, False, False, True]
    assert other.read(4) == cut(content)[4]
    Journal(one.bitmap, manifest).mark(2)  # of a chunk that is not what it says
    other.follow()
    assert not other.has(2)
    fill(one, content, [1, 2, 3])
    other.follow()
    assert other.complete
    assert not other.whole
    assert not other.writing


def test_a_chunk_whose_digest_is_not_known_yet_is_not_there(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, _ = both(tmp_path, manifest)
    fill(one, content, [0, 1, 2])
    growing = Manifest(manifest.blob, manifest.size, manifest.digests[:2], CHUNK)
    other = Spool(one.path, growing)
    other.follow()
    assert [other.has(index) for index in range(3)] == [True, True, False]


def test_many_chunks_that_do_not_match_do_not_keep_it_from_the_others(tmp_path: Path) -> None:
    content, manifest = blob_of(12)
    one, other = both(tmp_path, manifest)
    for index in range(10):
        Journal(one.bitmap, manifest).mark(index)
    fill(one, content, [10, 11])
    for _ in range(3):
        other.follow()
    assert [index for index in range(12) if other.has(index)] == [10, 11]
    fill(one, content, range(10))
    for _ in range(3):
        other.follow()
    assert other.complete


def test_what_has_its_name_is_whole_for_others_before_it_is_on_the_disk(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    fill(one, content, range(3))
    assert one.finish()  # and is settled with all the others, at the end
    other.follow()
    assert other.whole
    one.close()
    third = Spool(one.path, manifest)
    assert not third.claim()  # it stays while it is used
    assert not third.whole
    other.settle()
    assert third.adopt()
    assert names(tmp_path) == ["whole"]


def test_what_has_its_name_and_is_not_on_the_disk_is_written_anew_once_nobody_uses_it(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    fill(one, content, range(3))
    assert one.finish()
    other.follow()
    one.close()
    other.close()
    assert Spool(one.path, manifest).claim()


def test_a_file_of_chunks_of_another_size_is_taken_once_it_has_its_name(tmp_path: Path) -> None:
    content, manifest = blob_of(6)
    one, _ = both(tmp_path, manifest)
    other = Spool(one.path, make_manifest(cut(content, 2 * CHUNK), 2 * CHUNK))
    fill(one, content, range(6))
    other.follow()
    assert other.verified == 0
    assert one.finish()
    other.follow()
    assert other.whole


def test_who_reads_along_goes_on_when_the_writer_is_gone(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    fill(one, content, [0])
    other.follow()
    one.unclaim()
    assert other.claim()
    assert other.has(0)
    fill(other, content)
    assert names(tmp_path) == ["whole"]


def test_what_was_read_along_is_verified_again_by_who_goes_on(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    fill(one, content, [0, 1])
    other.follow()
    with one.part.open("r+b") as file:
        file.write(b"not what was verified")
    one.unclaim()
    assert other.claim()
    assert list(other.missing(0, 1)) == [0, 2]
    assert other.verified == CHUNK


def test_a_file_that_was_given_up_and_begun_anew_is_another(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    fill(one, content, [0, 1])
    other.follow()
    one.discard()
    other.follow()
    assert other.read(1) == cut(content)[1]  # it goes on giving what it has
    assert one.claim()
    fill(one, content, [2])
    other.follow()
    assert [other.has(index) for index in range(3)] == [False, False, True]


def test_how_long_another_writes_nothing_is_known(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    assert other.still_s == 0.0
    other.follow()
    until(lambda: other.still_s > 0.05)
    fill(one, content, [0])
    other.follow()
    assert other.still_s < 0.05
    assert one.still_s == 0.0


def test_who_goes_apart_takes_over_what_there_is_and_the_first_one_whole_has_the_name(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    fill(one, content, [1])
    other.follow()
    assert other.claim_apart()
    assert other.recall(1)
    assert not other.recall(0)
    assert names(tmp_path) == [".1.bitmap", ".1.part", ".bitmap", ".part"]
    fill(other, content)
    assert names(tmp_path) == ["whole"]
    assert Spool(one.path, manifest).whole  # it is on the disk
    fill(one, content, [0, 2])  # it wakes
    assert one.finish()
    assert one.whole
    assert one.read(2) == cut(content)[2]
    assert names(tmp_path) == ["whole"]


def test_who_went_apart_in_vain_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, other = both(tmp_path, manifest)
    assert other.claim_apart()
    fill(other, content, [0])
    fill(one, content)
    assert other.finish()
    assert other.whole
    assert names(tmp_path) == ["whole"]
    third, fourth = both(tmp_path, blob_of(3)[1])
    assert fourth.claim_apart()
    fourth.unclaim()
    third.discard()
    assert names(tmp_path) == ["whole"]


def test_what_a_dead_process_has_written_apart_is_used_by_the_next_and_may_be_evicted(tmp_path: Path) -> None:
    content, manifest = blob_of(4)
    cache = BlobCache(tmp_path, 1 << 30, reserve_bytes=0)
    one, other = both(cache.folder, manifest)
    assert other.claim_apart()
    fill(other, content, [3])
    part = other.part
    del other  # a dead process closes its files, and does nothing more
    third = Spool(one.path, manifest)
    third.follow()
    assert third.claim_apart()
    assert third.part == part
    assert third.recall(3)
    del third
    assert cache.prune() > 0
    assert names(cache.folder) == [".bitmap", ".part"]
    one.discard()


def test_two_names_of_one_file_are_what_a_death_in_between_has_left(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one, _ = both(tmp_path, manifest)
    fill(one, content, range(3))
    one.path.hardlink_to(one.part)
    one.close()
    again = Spool(one.path, manifest)
    assert again.claim()
    assert names(tmp_path) == [".bitmap", ".part"]
    fill(again, content)
    assert names(tmp_path) == ["whole"]


def test_a_name_is_given_once(tmp_path: Path) -> None:
    first, second, name = tmp_path / "a", tmp_path / "b", tmp_path / "name"
    for file in (first, second):
        file.write_text(file.name)
    assert rename_anew(first, name)
    assert not rename_anew(second, name)
    assert name.read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "name"]


def test_whose_file_is_taken_away_again_and_again_is_told(tmp_path: Path) -> None:
    content, manifest = blob_of(1)
    spool = Spool(tmp_path / manifest.blob.hex(), manifest)
    for _ in range(3):
        assert spool.claim()
        spool.part.unlink()
        assert not spool.finish()
    assert spool.claim()
    fill(spool, content, [0])
    spool.part.unlink()
    with pytest.raises(SpoolError, match="take it away"):
        spool.finish()


# --- fetches


def complete(*fetches: Fetch) -> None:
    for fetch in fetches:
        fetch.until(PullComplete)
        assert not fetch.all_of(ParentLost)


def read_by(*fetches: Fetch) -> int:
    return sum(fetch.all_of(Progress)[-1].read for fetch in fetches)


def test_a_fetch_reads_along_and_asks_for_nothing_while_another_comes_on(make_node: MakeNode) -> None:
    content, manifest = blob_of(48)
    source = make_node("source", rate_bytes_s=48 * CHUNK)
    one, other = make_node("sink"), make_node("sink", number=1)
    source.holds(content, manifest)
    fetches = [
        node.fetch(manifest, patience=SHORT).start([source.for_reader("sink")]) for node in (one, other)
    ]
    complete(*fetches)
    assert read_by(*fetches) < manifest.size * 1.05
    assert other.has(manifest) == content


def test_two_runs_that_would_wait_for_each_other_read_along(make_node: MakeNode) -> None:
    """Run A writes on the first host, B on the second; each reads half of it from its node on the other."""
    content, manifest = blob_of(24)
    roots = [make_node(f"root{run}", number=run) for run in range(2)]
    for root in roots:
        root.holds(content, manifest)
    a1, a2, b1, b2 = (make_node(host, wait_every_s=0.1) for host in ("host1", "host2", "host1", "host2"))

    def fetch(node: Node, *parents: Node) -> Fetch:
        return node.fetch(manifest, patience=LONG).start(*([one.for_reader(node.name)] for one in parents))

    fetches = [fetch(a1, a2, roots[0]), fetch(b2, roots[1], b1)]
    until(lambda: all(writer.pull._desk.wanted.ours for writer in fetches))
    fetches += [fetch(a2, roots[0], a1), fetch(b1, b2, roots[1])]
    complete(*fetches)
    for node in (a1, a2, b1, b2):
        assert node.has(manifest) == content


def test_runs_that_write_different_layers_take_each_others_before_their_end(make_node: MakeNode) -> None:
    (first, one), (second, two) = blob_of(window(CHUNK)), blob_of(6)
    source, slow = make_node("source"), make_node("slow")
    a, b = make_node("sink"), make_node("sink")
    source.holds(second, two)
    spool = slow.cache.open(one)
    assert slow.cache.claim(spool)
    slow.relay.serve(spool)
    earlier = a.fetch(one, two, patience=LONG).start([slow.for_reader("sink"), source.for_reader("sink")])
    until(lambda: earlier.pull._desk.wanted.ours)
    later = b.fetch(one, two, patience=LONG).start([source.for_reader("sink")])
    until(lambda: later.pull._desk.wanted.ours)
    fill(spool, first)
    complete(earlier, later)
    assert [len(fetch.pull._desk.wanted.ours) for fetch in (earlier, later)] == [1, 1]
    assert [b.has(manifest) for manifest in (one, two)] == [first, second]


def test_a_fetch_goes_on_by_itself_when_who_writes_the_blob_does_not(make_node: MakeNode) -> None:
    content, manifest = blob_of(20)
    source, stopped, sink = make_node("source"), make_node("sink"), make_node("sink", number=1)
    source.holds(content, manifest)
    spool = stopped.cache.open(manifest)
    assert stopped.cache.claim(spool)
    fill(spool, content, range(8))
    fetch = sink.fetch(manifest, patience=SHORT).start([source.for_reader("sink")])
    complete(fetch)
    assert read_by(fetch) < 12 * CHUNK * 1.05 + CHUNK
    assert sink.has(manifest) == content
    fill(spool, content, range(8, 20))  # it wakes
    assert spool.finish()
    assert names(sink.cache.folder) == ["whole"]


def test_without_room_for_another_file_that_is_told_and_the_other_waited_for(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, manifest = blob_of(6)
    source, slow, sink = make_node("source"), make_node("sink"), make_node("sink", number=1)
    source.holds(content, manifest)
    spool = slow.cache.open(manifest)
    assert slow.cache.claim(spool)
    monkeypatch.setattr(sink.cache, "free_bytes", lambda: 100)
    fetch = sink.fetch(manifest, patience=SHORT).start([source.for_reader("sink")])
    reason = fetch.until(Starved).reason
    assert "another run of yours" in reason
    assert f"{manifest.size} bytes" in reason
    fill(spool, content)
    complete(fetch)
    assert not fetch.all_of(PullFailed)
