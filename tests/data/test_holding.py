"""A folder that is filled, killed, filled again: what is whole is known, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.agent.data.holding import Holding, held
from phalanx.agent.data.progress import Progress, du_size, size
from phalanx.agent.data.record import Record, add_record
from phalanx.agent.data.request import DataError


def kept(holding: Holding, path: str, content: bytes, version: str = "v1") -> None:
    part = holding.parts / "0"
    part.write_bytes(content)
    holding.keep(part, path, version)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "content"
    made.mkdir()
    return made


def say(words: str) -> None:
    raise AssertionError(words)


def test_what_was_kept_is_there_for_the_next_one(folder: Path) -> None:
    with held(folder, "minio here", say) as holding:
        kept(holding, "a/b", b"12345")
        assert holding.has("a/b", 5, "v1")
    with held(folder, "minio here", say) as again:
        assert again.has("a/b", 5, "v1")
        assert not again.has("a/b", 5, "v2")
        assert not again.has("a/b", 6, "v1")
        assert not again.has("a/b", 5, "")
        assert not again.has("a", 5, "v1")


def test_another_origin_knows_of_nothing(folder: Path) -> None:
    with held(folder, "minio here", say) as holding:
        kept(holding, "a", b"1")
    with held(folder, "nas there", say) as other:
        assert not other.has("a", 1, "v1")


def test_a_file_that_was_touched_since_is_not_whole(folder: Path) -> None:
    with held(folder, "o", say) as holding:
        kept(holding, "a", b"12345")
        (folder / "a").write_bytes(b"54321")
        assert not holding.has("a", 5, "v1")


@given(st.integers(0, 200), st.binary(max_size=20))
def test_a_record_that_was_cut_off_is_believed_up_to_there(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes
) -> None:
    folder = tmp_path_factory.mktemp("holding") / "content"
    folder.mkdir()
    with held(folder, "o", say) as holding:
        for name in ("a", "b", "c"):
            kept(holding, name, name.encode())
    done = folder.with_name(".content.done")
    whole = done.read_bytes()
    done.write_bytes(whole[:cut] + tail)
    lines = whole[:cut].count(b"\n")
    with held(folder, "o", say) as again:
        assert set(list("abc")[: max(0, lines - 1)]) <= set(again.whole) <= set("abc")
        kept(again, "d", b"d")
    with held(folder, "o", say) as last:
        assert last.has("d", 1, "v1")


def test_a_link_on_the_way_to_a_file_is_not_followed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "sub").symlink_to(outside)
    with held(folder, "o", say) as holding, pytest.raises(OSError, match="sub"):
        kept(holding, "sub/x", b"evil")
    assert not list(outside.iterdir())


def test_a_link_in_the_place_of_a_file_is_not_written_through(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (folder / "x").symlink_to(outside)
    with held(folder, "o", say) as holding:
        kept(holding, "x", b"theirs")
    assert outside.read_text() == "mine"
    assert (folder / "x").read_bytes() == b"theirs"


def test_a_folder_in_the_place_of_a_file_gives_way(folder: Path) -> None:
    (folder / "x" / "y").mkdir(parents=True)
    with held(folder, "o", say) as holding:
        kept(holding, "x", b"1")
    assert (folder / "x").read_bytes() == b"1"


def test_what_the_source_does_not_have_goes_with_the_folders_it_was_in(folder: Path) -> None:
    with held(folder, "o", say) as holding:
        for path in ("a/x", "b/y", "c"):
            kept(holding, path, b"1")
        (folder / "d").symlink_to("/etc")
        assert holding.drop_others(["a/x"]) == 3
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == ["a", "a/x"]


def test_more_than_the_disk_holds_is_refused_before_it_comes(folder: Path) -> None:
    with pytest.raises(DataError, match=r"not enough room in .*set PHALANX_CACHE_DIR"):
        Holding(folder, "o").check_room(1 << 60)


def test_data_sets_of_a_case_are_joined_in_the_order_of_their_steps(tmp_path: Path) -> None:
    add_record(tmp_path, Record("a", "local"))
    add_record(tmp_path, Record("b", "minio", "20M", "1.50"))
    found = json.loads((tmp_path / ".phalanx" / "data.json").read_text())
    assert found == {
        "dataname": "a,b",
        "data_provider_type": "local,minio",
        "data_size": ",20M",
        "data_download_duration": ",1.50",
    }


def test_a_link_that_a_workload_put_in_the_place_of_the_record_leads_nowhere(tmp_path: Path) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    (results / ".phalanx").mkdir(parents=True)
    outside.write_text("mine")
    (results / ".phalanx" / "data.json").symlink_to(outside)
    (results / ".phalanx" / ".data.json.new").symlink_to(outside)
    add_record(results, Record("a", "local"))
    assert outside.read_text() == "mine"
    (results / ".phalanx" / "data.json").unlink()
    (results / ".phalanx").rmdir()
    (results / ".phalanx").symlink_to(tmp_path)
    with pytest.raises(OSError, match="phalanx"):
        add_record(results, Record("a", "local"))


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (1025, "1.1K"),
        (10_240, "10K"),
        (20 << 20, "20M"),
        (1 << 42, "4.0T"),
    ],
)
def test_sizes_are_written_as_du_writes_them(count: int, words: str) -> None:
    assert du_size(count) == words


def test_progress_speaks_every_two_seconds_and_no_more() -> None:
    now, said = [0.0], []
    progress = Progress(10_000_000, 4, said.append, lambda: now[0])
    for step in range(1, 101):
        now[0] = step / 20
        progress.came(100_000)
    assert said == ["4.0 MB of 10.0 MB, 0 of 4 files, 2.0 MB/s", "8.0 MB of 10.0 MB, 0 of 4 files, 2.0 MB/s"]
    assert size(12) == "12 B"
