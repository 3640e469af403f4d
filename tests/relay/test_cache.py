"""The blobs of a node: within a limit, none taken from under who uses it, on a disk of the node's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from phalanx.agent.relay.cache import BlobCache
from phalanx.agent.relay.place import (
    PlaceRefused,
    cache_place,
    filesystem_type,
    private_directory,
    refuse_shared,
)
from phalanx.agent.relay.spool import SpoolError
from phalanx.protocol.blob import Manifest

from tests.relay.nodes import CHUNK, blob_of, cut, fill
from tests.small_disk import small_filesystem

MOUNTS = """\
21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 21 0:26 / /home rw shared:2 - nfs4 server:/home rw
31 21 0:27 / /scratch rw - lustre mds@o2ib:/scratch rw
32 21 254:2 / /var/tmp rw - xfs /dev/nvme0n1 rw
33 32 0:28 / /var/tmp/with\\040space rw - tmpfs tmpfs rw
34 30 0:29 / /home rw - beegfs over rw
"""


def keep(cache: BlobCache, chunks: float, used_at: float) -> Manifest:
    """A whole blob that nobody uses any more."""
    content, manifest = blob_of(chunks)
    spool = cache.open(manifest)
    assert cache.claim(spool)
    fill(spool, content)
    cache.close(spool)
    os.utime(spool.path, (used_at, used_at))
    return manifest


def test_those_not_used_for_longest_go_until_there_is_room_again(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 10 * CHUNK, reserve_bytes=0)
    old, older, young = (keep(cache, 3, used_at) for used_at in (2.0, 1.0, 3.0))
    lease = cache.lease(older.blob, older.size)
    assert lease is not None  # it is used again now, and must not go
    content, manifest = blob_of(4)
    spool = cache.open(manifest)
    assert cache.claim(spool)
    there = [cache.whole(one.blob, one.size) is not None for one in (old, older, young)]
    assert there == [
        False,
        True,
        False,
    ]  # down to nine tenths of the limit
    fill(spool, content)
    assert cache.whole(manifest.blob, manifest.size) is not None


def test_a_prune_leaves_only_what_is_in_use(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 10 * CHUNK, reserve_bytes=0)
    used, unused = keep(cache, 2, 1.0), keep(cache, 3, 2.0)
    lease = cache.lease(used.blob, used.size)
    assert lease is not None
    assert cache.kept()[0] == 2
    assert cache.prune() >= unused.size
    assert cache.whole(used.blob, used.size) is not None
    assert cache.whole(unused.blob, unused.size) is None
    lease.release()
    assert cache.prune() >= used.size
    assert cache.kept() == (0, 0)


def test_what_is_leased_or_open_stays_whatever_the_limit(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", CHUNK, reserve_bytes=0)
    content, manifest = blob_of(2)
    spool = cache.open(manifest)
    assert cache.claim(spool)
    spool.keep(0, cut(content)[0])
    others = BlobCache(tmp_path / "cache", CHUNK, reserve_bytes=0)  # of another process, as it were
    others.check_room(CHUNK)
    fill(spool, content)
    others.check_room(CHUNK)
    assert cache.whole(manifest.blob, manifest.size) is not None
    lease = others.lease(manifest.blob, manifest.size)
    assert lease is not None
    cache.close(spool)
    cache.check_room(CHUNK)
    assert lease.path.read_bytes() == content
    lease.release()
    cache.check_room(CHUNK)
    assert cache.whole(manifest.blob, manifest.size) is None


def test_what_a_dead_agent_has_left_unfinished_goes_too(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", CHUNK, reserve_bytes=0)
    content, manifest = blob_of(2)
    spool = cache.open(manifest)
    assert cache.claim(spool)
    spool.keep(0, cut(content)[0])
    cache.close(spool)
    assert len(list(cache.folder.iterdir())) == 2
    cache.check_room(CHUNK)
    assert list(cache.folder.iterdir()) == []


def test_all_who_open_a_blob_share_it_until_the_last_has_closed_it(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 1 << 30, reserve_bytes=0)
    content, manifest = blob_of(2)
    one, other = cache.open(manifest), cache.open(manifest)
    assert one is other
    assert cache.claim(one)
    assert not cache.claim(other)
    fill(one, content)
    cache.close(one)
    assert other.read(1) == cut(content)[1]
    cache.close(other)
    assert cache.open(manifest) is not one


def test_a_blob_of_the_wrong_size_is_none_and_one_deleted_is_fetched_again(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 1 << 30, reserve_bytes=0)
    manifest = keep(cache, 2, 1.0)
    path = cache.whole(manifest.blob, manifest.size)
    assert path is not None
    assert cache.whole(manifest.blob, manifest.size + 1) is None
    os.truncate(path, 10)
    assert cache.whole(manifest.blob, manifest.size) is None
    assert cache.lease(manifest.blob, manifest.size) is None
    assert cache.claim(cache.open(manifest))
    other = keep(cache, 1, 1.0)
    (cache.folder / other.blob.hex()).unlink()
    assert cache.whole(other.blob, other.size) is None


def test_what_the_disk_has_changed_is_removed_and_the_rest_stays(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 1 << 30, reserve_bytes=0)
    sound, bad = keep(cache, 2, 1.0), keep(cache, 3, 1.0)
    path = cache.folder / bad.blob.hex()
    content = bytearray(path.read_bytes())
    content[CHUNK + 1] ^= 1
    path.write_bytes(content)
    absent = b"\0" * 32
    assert cache.drop_damaged([sound.blob, bad.blob, bad.blob, absent]) == [bad.blob]
    assert cache.whole(sound.blob, sound.size) is not None
    assert cache.whole(bad.blob, bad.size) is None


def test_too_little_room_is_said_with_figures_before_anything_is_written(tmp_path: Path) -> None:
    _, manifest = blob_of(8)
    with small_filesystem(tmp_path / "small", 10 * CHUNK) as folder:
        cache = BlobCache(folder / "cache", 1 << 30, reserve_bytes=4 * CHUNK)
        spool = cache.open(manifest)
        with pytest.raises(SpoolError) as caught:
            cache.claim(spool)
        words = str(caught.value)
        assert words.startswith(f"cannot keep layers in {folder / 'cache'}: {8 * CHUNK} bytes")
        assert "are free; make room there, or set PHALANX_CACHE_DIR" in words
        assert list(cache.folder.iterdir()) == []


def test_a_disk_that_is_short_is_relieved_of_what_nobody_uses(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", 12 * CHUNK) as folder:
        cache = BlobCache(folder / "cache", 1 << 30, reserve_bytes=CHUNK)
        unused = keep(cache, 8, 1.0)
        assert cache.free_bytes() >= 8 * CHUNK
        _, manifest = blob_of(8)
        assert cache.claim(cache.open(manifest))
        assert cache.whole(unused.blob, unused.size) is None


def test_blobs_that_are_to_stay_are_no_room_for_others(tmp_path: Path) -> None:
    """Those of an image that is to come are not evicted for its own other layers."""
    with small_filesystem(tmp_path / "small", 12 * CHUNK) as folder:
        cache = BlobCache(folder / "cache", 1 << 30, reserve_bytes=CHUNK)
        own, other = keep(cache, 3, 1.0), keep(cache, 2, 1.0)
        every = cache.free_bytes()
        assert every - cache.free_bytes([own.blob]) == 3 * CHUNK
        assert every - cache.free_bytes([own.blob, other.blob, b"\0" * 32]) == 5 * CHUNK


def test_two_folders_share_their_room_on_one_disk(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", 12 * CHUNK) as folder:
        cache = BlobCache(folder / "cache", 1 << 30)
        (folder / "engine").mkdir()
        assert cache.on_disk_of(str(folder / "engine"))
        for apart in (str(tmp_path), str(folder / "nowhere"), ""):
            assert not cache.on_disk_of(apart)


def test_everything_of_the_cache_is_the_users_alone(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", 1 << 30)
    keep(cache, 1, 1.0)
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_the_place_is_on_the_node_unless_it_is_named() -> None:
    assert cache_place({}, 1000) == Path("/var/tmp/phalanx-1000")
    assert cache_place({"HOME": "/home/u", "PHALANX_CACHE_DIR": "/nvme/u"}, 1000) == Path("/nvme/u")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/var/tmp", "xfs"),
        ("/var/tmp/phalanx-1", "xfs"),
        ("/var/tmporary", "ext4"),
        ("/var/tmp/with space/x", "tmpfs"),
        ("/scratch/u", "lustre"),
        ("/home/u", "beegfs"),
    ],
)
def test_the_filesystem_is_that_of_the_deepest_mount(path: str, kind: str) -> None:
    assert filesystem_type(path, MOUNTS) == kind


def test_a_filesystem_that_nodes_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_shared(tmp_path)
    monkeypatch.setattr("phalanx.agent.relay.place.filesystem_type", lambda path, table: "nfs4")
    with pytest.raises(PlaceRefused, match="nfs4 is shared between nodes; set PHALANX_CACHE_DIR"):
        refuse_shared(tmp_path)


def test_a_directory_that_is_a_link_or_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PlaceRefused, match="link"):
        private_directory(tmp_path / "link")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PlaceRefused, match="others can write"):
        private_directory(tmp_path / "open")
    if os.geteuid() == 0:
        (tmp_path / "theirs").mkdir(mode=0o700)
        os.chown(tmp_path / "theirs", 65534, 65534)
        with pytest.raises(PlaceRefused, match="belongs to uid 65534"):
            private_directory(tmp_path / "theirs")
