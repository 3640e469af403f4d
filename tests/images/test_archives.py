"""What an image archive says about itself, honest or not."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.images.source import MANIFEST_BYTES, ImageSourceError, inspect_archive

DIGEST = "ab" * 32
OTHER = "cd" * 32


def archive(path: Path, **members: Any) -> Path:
    """A tar with JSON members; bytes are taken as they are."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name.replace("_json", ".json"))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def saved(path: Path, *images: tuple[str, list[str]]) -> Path:
    """What ``docker save`` writes."""
    return archive(
        path, manifest_json=[{"Config": config, "RepoTags": tags, "Layers": []} for config, tags in images]
    )


def test_the_image_of_the_wanted_name_is_found_among_others(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", (f"{OTHER}.json", ["a:1"]), (f"blobs/sha256/{DIGEST}", ["b:1", "b:2"]))
    found = inspect_archive(path, "b:2")
    assert (found.image_id, found.tags, found.size) == (
        f"sha256:{DIGEST}",
        ("b:1", "b:2"),
        path.stat().st_size,
    )


def test_a_single_image_is_taken_whatever_its_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", manifest_json=[{"Config": f"{DIGEST}.json", "RepoTags": None}])
    assert inspect_archive(path, "wanted:1").image_id == f"sha256:{DIGEST}"


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", (f"{DIGEST}.json", ["a:1"]))
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert inspect_archive(packed, "a:1").image_id == f"sha256:{DIGEST}"


def test_a_missing_name_says_what_the_archive_does_hold(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", (f"{OTHER}.json", ["a:1"]), (f"{DIGEST}.json", ["b:1"]))
    with pytest.raises(ImageSourceError, match="does not hold c:1; it holds a:1, b:1"):
        inspect_archive(path, "c:1")


def test_an_oci_layout_says_how_to_convert_it(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", index_json={"schemaVersion": 2, "manifests": []})
    with pytest.raises(ImageSourceError, match=r"is an OCI layout .*skopeo copy oci-archive:"):
        inspect_archive(path, "a:1")


EVIL: dict[str, Any] = {
    "no list": {"Config": f"{DIGEST}.json"},
    "an empty list": [],
    "a config that is no digest": [{"Config": "../../etc/passwd"}],
    "a config that is no text": [{"Config": 7}],
    "names that are no list": [{"Config": f"{DIGEST}.json", "RepoTags": "a:1"}],
    "something among the images": [{"Config": f"{DIGEST}.json"}, 7],
    "no JSON": b"{",
    "JSON without a bottom": b"[" * 100_000,
    "bytes that are no text": b"\xff\xfe\xfa",
    "too much of it": b" " * (MANIFEST_BYTES + 1) + b"[]",
}


@pytest.mark.parametrize("kind", EVIL)
def test_a_manifest_with_something_wrong_is_told_as_such(kind: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", manifest_json=EVIL[kind])
    with pytest.raises(ImageSourceError, match="is not a docker archive"):
        inspect_archive(path, "a:1")


@pytest.mark.parametrize(
    "type_of_link", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_a_manifest_that_is_no_file_is_not_followed(type_of_link: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.type, member.linkname = type_of_link, "/etc/hostname"
        tar.addfile(member)
    with pytest.raises(ImageSourceError, match="is not a docker archive"):
        inspect_archive(path, "a:1")


@pytest.mark.parametrize(
    "content",
    [b"", b"not a tar", b"\x1f\x8b\x08\x00 cut short", b"BZh9 cut", b"\xfd7zXZ\x00 cut", b"\0" * 100],
)
def test_bytes_that_are_no_archive_are_told_with_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(ImageSourceError, match=r"x\.tar"):
        inspect_archive(path, "a:1")


def test_an_archive_that_was_cut_short_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", (f"{DIGEST}.json", ["a:1"]))
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ImageSourceError, match="cannot read the image archive"):
        inspect_archive(path, "a:1")


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError, match="No such file"):
        inspect_archive(tmp_path / "gone.tar", "a:1")
