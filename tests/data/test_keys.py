"""Keys of a store as paths below a folder: nothing leads out of it, whatever its name."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.agent.data.keys import DEEPEST, Object, as_files, relative
from phalanx.agent.data.request import DataError

EVIL = (
    "..",
    ".",
    "",
    "/",
    "\0",
    "a\nb",
    "..\\",
    "x" * 300,
    "é" * 200,
    "\x7f",
    "~",
    "-rf",
    "\u202e",
    "C:",
    "a",
)
parts = st.one_of(st.sampled_from(EVIL), st.text(max_size=8))
keys = st.lists(parts, min_size=1, max_size=6).map("/".join)


@given(keys, st.sampled_from(["", "set", "set/", "a/b"]))
def test_any_key_is_a_path_inside_or_refused(key: str, prefix: str) -> None:
    try:
        path = relative(key, prefix)
    except DataError as refused:
        assert str(refused)
        return
    assert posixpath.normpath(f"/root/{path}") == f"/root/{path}"
    assert path and "\0" not in path


@pytest.mark.parametrize(
    "key",
    ["set/../x", "set/./x", "set//x", "set/a/../../b", "set/..", "set/a\0b", "set/a\nb", "set/" + "n" * 256],
)
def test_a_key_that_no_file_may_have_is_named(key: str) -> None:
    with pytest.raises(DataError, match="cannot be a file here"):
        relative(key, "set")


def test_a_key_that_is_too_deep_is_refused() -> None:
    with pytest.raises(DataError, match=f"deeper than {DEEPEST} folders"):
        relative("set/" + "d/" * DEEPEST + "x", "set")


@pytest.mark.parametrize(
    ("key", "prefix", "path"),
    [("set/a/b", "set", "a/b"), ("set/a", "set/", "a"), ("a/b", "", "a/b"), ("x/file", "x/file", "file")],
)
def test_a_path_is_what_follows_the_data_set(key: str, prefix: str, path: str) -> None:
    assert relative(key, prefix) == path


def test_a_key_beside_the_data_set_is_not_of_it() -> None:
    with pytest.raises(DataError, match="not below"):
        relative("settle/x", "set")


def test_an_empty_object_above_others_stands_for_a_folder_and_one_with_bytes_is_refused() -> None:
    below = Object("set/a/x", 1, "e")
    assert list(as_files([Object("set/a", 0), below], "set")) == ["a/x"]
    with pytest.raises(DataError, match="a file and a folder at once"):
        as_files([Object("set/a", 5), below], "set")


def test_a_store_that_lists_an_object_twice_is_not_believed() -> None:
    with pytest.raises(DataError, match="twice"):
        as_files([Object("set/a", 1), Object("set/a", 2)], "set")
