"""A blob on its way: written by one, read by many, and taken up again after any death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from phalanx.agent.relay.journal import Journal
from phalanx.agent.relay.spool import Spool, SpoolError
from phalanx.protocol.blob import ChunkMismatch, Manifest

from tests.relay.nodes import CHUNK, blob_of, cut, fill, until
from tests.small_disk import small_filesystem
from tests.source import ROOT

#: An agent that keeps what comes on its standard input as chunk after chunk, until it is killed.
AGENT = """
import sys
from pathlib import Path
from phalanx.agent.relay.spool import Spool
from phalanx.protocol.blob import make_manifest
content = sys.stdin.buffer.read()
pieces = [content[i:i + 65536] for i in range(0, len(content), 65536)]
spool = Spool(Path(sys.argv[1]), make_manifest(pieces, 65536))
assert spool.claim()
for index in map(int, sys.argv[2].split(",")):
    spool.keep(index, pieces[index])
sys.stdout.write("kept\\n")
sys.stdout.flush()
import signal
signal.pause()
"""


def claimed(folder: Path, manifest: Manifest) -> Spool:
    spool = Spool(folder / manifest.blob.hex(), manifest)
    assert spool.claim()
    return spool


def names(folder: Path) -> list[str]:
    return sorted(path.suffix or "whole" for path in folder.iterdir())


def test_chunks_may_come_in_any_order_and_the_whole_gets_its_name(tmp_path: Path) -> None:
    content, manifest = blob_of(5.5)
    spool = claimed(tmp_path, manifest)
    assert names(tmp_path) == [".bitmap", ".part"]
    for index in (5, 2, 0, 4, 1):
        assert spool.keep(index, memoryview(cut(content)[index]))
    assert not spool.keep(2, cut(content)[2])
    assert (list(spool.missing(0, 1)), spool.complete) == ([3], False)
    assert spool.verified == manifest.size - CHUNK
    fill(spool, content)
    assert spool.complete
    assert spool.whole
    assert names(tmp_path) == ["whole"]
    assert spool.path.read_bytes() == content
    assert spool.path.stat().st_mode & 0o777 == 0o600


def test_what_does_not_match_is_not_written(tmp_path: Path) -> None:
    content, manifest = blob_of(2)
    spool = claimed(tmp_path, manifest)
    for index, payload in ((0, cut(content)[1]), (1, cut(content)[1][:-1]), (2, b"")):
        with pytest.raises(ChunkMismatch):
            spool.keep(index, payload)
    assert spool.part.stat().st_size == 0
    assert not spool.has(0)
    with pytest.raises(SpoolError, match="not held"):
        spool.read(0)


def test_readers_wake_when_their_chunk_comes(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    spool = claimed(tmp_path, manifest)
    assert not spool.wait_for(1, 0.0)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(spool.read(1) if spool.wait_for(1, 10) else b""))
    reader.start()
    spool.keep(1, cut(content)[1])
    reader.join()
    assert got == [cut(content)[1]]


def test_a_manifest_whose_chunks_do_not_make_its_whole_keeps_nothing(tmp_path: Path) -> None:
    content, manifest = blob_of(2)
    wrong = Manifest(bytes(32), manifest.size, manifest.digests, manifest.chunk_bytes)
    spool = claimed(tmp_path, wrong)
    for index, piece in enumerate(cut(content)):
        spool.keep(index, piece)
    with pytest.raises(SpoolError, match="the whole is not"):
        spool.finish()
    assert names(tmp_path) == []


def test_an_agent_that_was_killed_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    content, manifest = blob_of(8)
    path = tmp_path / manifest.blob.hex()
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(path), "0,1,2,5"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert agent.stdin is not None
    assert agent.stdout is not None
    agent.stdin.write(content)
    agent.stdin.close()
    assert agent.stdout.readline() == b"kept\n"
    spool = Spool(path, manifest)
    assert not spool.claim()  # while the other lives it is the other's
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    agent.stdout.close()
    assert spool.claim()
    assert list(spool.missing(0, 1)) == [3, 4, 6, 7]
    fill(spool, content)
    assert path.read_bytes() == content


def test_what_the_journal_says_is_verified_again(tmp_path: Path) -> None:
    content, manifest = blob_of(4)
    spool = claimed(tmp_path, manifest)
    for index in range(3):
        spool.keep(index, cut(content)[index])
    with spool.part.open("r+b") as file:
        file.seek(CHUNK + 17)
        file.write(b"not what was verified")
    Journal(spool.bitmap, manifest).mark(3)  # of a chunk that never came
    spool.unclaim()
    again = claimed(tmp_path, manifest)
    assert list(again.missing(0, 1)) == [1, 3]
    fill(again, content)
    assert again.path.read_bytes() == content


def test_a_journal_of_chunks_of_another_size_says_nothing(tmp_path: Path) -> None:
    content, manifest = blob_of(4)
    spool = claimed(tmp_path, manifest)
    spool.keep(0, cut(content)[0])
    spool.unclaim()
    from phalanx.protocol.blob import make_manifest

    other = make_manifest(cut(content, 2 * CHUNK), 2 * CHUNK)
    again = claimed(tmp_path, other)
    assert list(again.missing(0, 1)) == [0, 1]
    fill(again, content)
    assert again.path.read_bytes() == content


def test_a_blob_that_was_not_brought_to_the_disk_is_looked_through_again(tmp_path: Path) -> None:
    content, manifest = blob_of(4)
    spool = claimed(tmp_path, manifest)
    for index, piece in enumerate(cut(content)):
        spool.keep(index, piece)
    assert spool.finish()  # and the machine dies before it is settled
    assert names(tmp_path) == [".bitmap", "whole"]
    assert not Spool(spool.path, manifest).claim()  # not yet
    spool.close()
    with spool.path.open("r+b") as file:
        file.write(bytes(10))
    again = Spool(spool.path, manifest)
    assert not again.whole
    assert again.claim()
    assert list(again.missing(0, 1)) == [0]
    fill(again, content)
    assert names(tmp_path) == ["whole"]
    assert Spool(spool.path, manifest).whole


def test_of_two_who_want_to_write_one_does_and_the_other_finds_it_whole(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one = claimed(tmp_path, manifest)
    other = Spool(one.path, manifest)
    assert not other.claim()
    fill(one, content)
    assert not other.claim()
    assert other.whole
    assert other.read(2) == cut(content)[2]


def test_one_who_gives_up_leaves_it_to_the_next(tmp_path: Path) -> None:
    content, manifest = blob_of(3)
    one = claimed(tmp_path, manifest)
    one.keep(1, cut(content)[1])
    other = Spool(one.path, manifest)
    one.unclaim()
    assert other.claim()
    assert other.has(1)
    assert not one.keep(0, cut(content)[0])  # too late
    assert one.read(1) == cut(content)[1]  # what it has it gives on


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    _, manifest = blob_of(1)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f"{manifest.blob.hex()}.part").symlink_to(victim)
    with pytest.raises(SpoolError, match="cannot write"):
        Spool(tmp_path / manifest.blob.hex(), manifest).claim()
    assert victim.read_bytes() == b"precious"


def test_a_reader_keeps_the_file_that_it_reads_when_the_blob_is_let_go(tmp_path: Path) -> None:
    content, manifest = blob_of(2)
    spool = claimed(tmp_path, manifest)
    fill(spool, content)
    file, offset, length = spool.span(1)
    spool.close()
    with (tmp_path / "another").open("wb") as another:
        another.write(bytes(3 * CHUNK))
    assert os.pread(file.number, length, offset) == cut(content)[1]
    with pytest.raises(SpoolError):
        spool.read(1)


def test_a_disk_that_is_full_in_the_middle_leaves_nothing_of_the_blob(tmp_path: Path) -> None:
    content, manifest = blob_of(16)
    with small_filesystem(tmp_path / "small", 10 * CHUNK) as folder:
        spool = claimed(folder, manifest)
        with pytest.raises(SpoolError, match=r"cannot write .*No space left.*PHALANX_CACHE_DIR"):
            for index, piece in enumerate(cut(content)):
                spool.keep(index, piece)
        assert names(folder) == []
        assert spool.verified == 0


def test_hashing_keeps_up_with_what_comes(tmp_path: Path) -> None:
    content, manifest = blob_of(6)
    spool = claimed(tmp_path, manifest)
    done: list[bool] = []
    finishing = threading.Thread(target=lambda: done.append(spool.finish()))
    finishing.start()
    for index in (1, 0, 3, 2, 5, 4):
        spool.keep(index, cut(content)[index])
    finishing.join()
    assert done == [True]
    until(lambda: spool.path.read_bytes() == content)
