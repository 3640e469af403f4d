"""Archives on the login node, honest or not: layers are found, verified, and copied only when packed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.images import staging
from phalanx.controller.images.archive import Content, layer_sizes, open_content, span_pages
from phalanx.controller.images.login import ImageSourceError
from phalanx.controller.images.staging import Stage
from phalanx.protocol.blob import layer_chunk_bytes, with_page
from phalanx.protocol.image import ImageFormatError, digest_text
from phalanx.protocol.image_archive import archive, blob_name
from phalanx.protocol.messages import CHUNK_BYTES, Layer

from tests.images.layered import Made, hybrid, image, noise, tar

NAME = "phx/made:1"


def packed_by_gzip(data: bytes) -> bytes:
    """The same bytes for the same data, whatever the time."""
    return gzip.compress(data, 1, mtime=0)


def made(seed: str = "a", count: int = 3, **config: Any) -> Made:
    return image(*(tar({f"{n}": noise(f"{seed}{n}", 700_000)}) for n in range(count)), **config)


def write_tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    path.write_bytes(tar(members, links))
    return path


def saved(path: Path, *images: tuple[Made, str]) -> Path:
    """As ``docker save`` of 20.10 writes several images, a layer they share as a link."""
    members: dict[str, bytes] = {}
    links: dict[str, str] = {}
    entries = []
    where: dict[bytes, str] = {}
    for one, name in images:
        folders = []
        for number, layer in enumerate(one.layers):
            folder = f"{one.content.digest.hex()[:8]}{number}"
            folders.append(f"{folder}/layer.tar")
            if layer in where:
                links[folders[-1]] = f"../{where[layer]}"
            else:
                members[folders[-1]] = layer
                where[layer] = folders[-1]
        config = f"{one.content.digest.hex()}.json"
        members[config] = one.content.config
        entries.append({"Config": config, "RepoTags": [name], "Layers": folders})
    members["manifest.json"] = json.dumps(entries).encode()
    return write_tar(path, members, links)


def oci_members(one: Made, pack: Callable[[bytes], bytes], name: str = NAME) -> dict[str, bytes]:
    """An OCI layout with layers as a registry has them."""
    blobs = [pack(layer) for layer in one.layers]

    def described(data: bytes) -> dict[str, Any]:
        return {"digest": digest_text(hashlib.sha256(data).digest()), "size": len(data)}

    manifest = json.dumps(
        {"config": described(one.content.config), "layers": [described(blob) for blob in blobs]}
    ).encode()
    notes = {"org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [described(manifest) | {"annotations": notes}]}
    files = {
        blob_name(hashlib.sha256(data).digest()): data for data in (*blobs, manifest, one.content.config)
    }
    return files | {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
    }


def write_folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def check(found: Content, one: Made) -> None:
    """Everything that is promised of a content."""
    assert found.image == one.content
    for span, layer, described in zip(found.spans, one.layers, found.image.layers, strict=True):
        (page,) = span_pages(span, described, layer_chunk_bytes(found.image.size))
        manifest = with_page(None, page)
        assert manifest.whole
        data = span.path.read_bytes()[span.offset : span.offset + span.size]
        assert data == layer
        assert (manifest.blob, manifest.size) == (hashlib.sha256(layer).digest(), len(layer))
        for index in range(len(manifest.digests)):
            manifest.verify(index, data[manifest.offset(index) :][: manifest.length(index)])


def left_in(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir()) if work.exists() else []


def test_layers_of_an_uncompressed_archive_stay_where_they_are(tmp_path: Path) -> None:
    one = made()
    for path in (hybrid(tmp_path / "new.tar", one), saved(tmp_path / "old.tar", (one, NAME))):
        found = open_content(path, NAME, Stage(tmp_path / "work"))
        check(found, one)
        assert {span.path for span in found.spans} == {path}
    assert left_in(tmp_path / "work") == []


def test_a_layer_that_is_there_as_a_link_is_found(tmp_path: Path) -> None:
    first, empty = made("a"), tar({})
    twice = image(first.layers[0], empty, first.layers[1], empty)
    path = saved(tmp_path / "x.tar", (first, "a:1"), (twice, "b:1"))
    check(open_content(path, "b:1", Stage(tmp_path / "work")), twice)
    check(open_content(path, "docker.io/library/a:1", Stage(tmp_path / "work")), first)
    with pytest.raises(ImageSourceError, match=r"x\.tar does not hold c:1; it holds a:1, b:1"):
        open_content(path, "c:1", Stage(tmp_path / "work"))


@pytest.mark.parametrize("pack", [packed_by_gzip, bz2.compress, lzma.compress])
def test_a_compressed_archive_is_unpacked_once(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    one = made()
    path = tmp_path / "x.tar.packed"
    path.write_bytes(pack(hybrid(tmp_path / "x.tar", one).read_bytes()))
    check(open_content(path, NAME, Stage(tmp_path / "work")), one)
    assert left_in(tmp_path / "work") == ["unpacked.tar"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_an_oci_layout_is_read_as_folder_and_as_archive(folder: bool, packed: bool, tmp_path: Path) -> None:
    one = made()
    members = oci_members(one, packed_by_gzip if packed else bytes)
    path = write_folder(tmp_path / "x", members) if folder else write_tar(tmp_path / "x.tar", members)
    check(open_content(path, NAME, Stage(tmp_path / "work")), one)
    assert left_in(tmp_path / "work") == sorted(
        f"{diff_id.hex()}.tar" for diff_id in one.content.diff_ids if packed
    )


def test_an_oci_image_is_found_by_its_tag_alone(tmp_path: Path) -> None:
    one = made()
    path = write_folder(tmp_path / "x", oci_members(one, bytes, "1"))
    assert open_content(path, NAME, Stage(tmp_path / "work")).image == one.content


def test_layers_compressed_with_zstd_are_refused_by_name(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "x", oci_members(made(), lambda data: b"\x28\xb5\x2f\xfd" + data))
    with pytest.raises(ImageSourceError, match=r"/x: its layer 'blobs/.* is compressed with zstd"):
        open_content(path, NAME, Stage(tmp_path / "work"))
    (tmp_path / "y").write_bytes(b"\x28\xb5\x2f\xfd and so on")
    with pytest.raises(ImageSourceError, match=r"/y: it is compressed with zstd"):
        open_content(tmp_path / "y", NAME, Stage(tmp_path / "work"))


@pytest.mark.parametrize("place", range(3))
def test_a_flipped_bit_in_any_layer_is_told_when_it_is_read(place: int, tmp_path: Path) -> None:
    one = made()
    path = hybrid(tmp_path / "x.tar", one)
    data = bytearray(path.read_bytes())
    data[data.index(one.layers[place]) + 350_000] ^= 4
    path.write_bytes(data)
    found = open_content(path, NAME, Stage(tmp_path / "work"))
    for index, (span, layer) in enumerate(zip(found.spans, found.image.layers, strict=True)):
        if index != place:
            assert [page.blob for page in span_pages(span, layer, CHUNK_BYTES)] == [layer.diff_id]
            continue
        with pytest.raises(ImageFormatError, match=rf"its layer {layer.diff_id.hex()[:12]} is damaged"):
            next(span_pages(span, layer, CHUNK_BYTES))


def test_the_sizes_of_layers_are_known_without_unpacking_anything(tmp_path: Path) -> None:
    one = made()
    assert layer_sizes(hybrid(tmp_path / "x.tar", one), NAME) == tuple(len(layer) for layer in one.layers)
    packed = write_folder(tmp_path / "x", oci_members(one, packed_by_gzip))
    assert layer_sizes(packed, NAME) == ()
    assert layer_sizes(tmp_path / "none.tar", NAME) == ()
    low, high = one.layers[:2]
    twice = hybrid(tmp_path / "twice.tar", image(low, high, low))
    assert layer_sizes(twice, NAME) == (0, len(high), len(low)), "what comes again travels once"


def test_a_flipped_bit_in_a_compressed_layer_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    one = made()
    path = write_folder(tmp_path / "x", oci_members(one, packed_by_gzip))
    blob = path / blob_name(hashlib.sha256(packed_by_gzip(one.layers[0])).digest())
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 4
    blob.write_bytes(data)
    with pytest.raises(ImageSourceError, match="damaged"):
        open_content(path, NAME, Stage(tmp_path / "work"))
    assert not [name for name in left_in(tmp_path / "work") if name.endswith(".part")]


def test_an_archive_cut_anywhere_is_told_with_the_file(tmp_path: Path) -> None:
    whole = hybrid(tmp_path / "x.tar", made()).read_bytes()
    packed = packed_by_gzip(whole)
    path = tmp_path / "cut.tar"
    for data in (whole, packed):
        for kept in (0, 1, 300, 512, 5000, len(data) // 2, len(data) - 2000):
            path.write_bytes(data[:kept])
            with pytest.raises(ImageSourceError, match=r"cut\.tar"):
                open_content(path, NAME, Stage(tmp_path / "work"))


def test_an_archive_without_some_of_its_layers_is_told(tmp_path: Path) -> None:
    one = made()
    data = {hashlib.sha256(layer).digest(): layer for layer in one.layers}
    pieces = archive(one.content, NAME, [0, 2])
    sent = b"".join(data[piece.diff_id] if isinstance(piece, Layer) else piece for piece in pieces)
    (tmp_path / "x.tar").write_bytes(sent)
    with pytest.raises(ImageSourceError, match=rf"{one.content.diff_ids[1].hex()}' is not there"):
        open_content(tmp_path / "x.tar", NAME, Stage(tmp_path / "work"))


def test_layers_that_are_not_the_configurations_are_told(tmp_path: Path) -> None:
    one, members = made(), {}
    members["c.json"] = one.content.config
    members["l"] = one.layers[0]
    members["manifest.json"] = json.dumps([{"Config": "c.json", "Layers": ["l"]}]).encode()
    with pytest.raises(ImageSourceError, match="1 layers where its configuration names 3"):
        open_content(write_tar(tmp_path / "x.tar", members), NAME, Stage(tmp_path / "work"))


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../etc/hostname"])
def test_links_in_a_layouts_folder_are_not_followed(target: str, tmp_path: Path) -> None:
    one = made()
    path = write_folder(tmp_path / "x", oci_members(one, bytes))
    blob = path / blob_name(one.content.diff_ids[1])
    blob.unlink()
    blob.symlink_to(target)
    with pytest.raises(ImageSourceError, match="is not there"):
        open_content(path, NAME, Stage(tmp_path / "work"))


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name, words in (("pipe", "neither a file"), ("empty", "neither manifest"), ("gone", "No such file")):
        with pytest.raises(ImageSourceError, match=rf"{name}.*{words}"):
            open_content(tmp_path / name, NAME, Stage(tmp_path / "work"))


def test_unpacking_stops_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "RESERVE_BYTES", 1 << 60)
    (tmp_path / "x.gz").write_bytes(packed_by_gzip(hybrid(tmp_path / "x.tar", made()).read_bytes()))
    with pytest.raises(ImageSourceError, match=r"x\.gz: no room to unpack it in .*work"):
        open_content(tmp_path / "x.gz", NAME, Stage(tmp_path / "work"))
    assert left_in(tmp_path / "work") == []


def test_tools_that_write_dot_names_are_read(tmp_path: Path) -> None:
    one = made()
    made_file = io.BytesIO()
    with (
        tarfile.open(hybrid(tmp_path / "x.tar", one)) as old,
        tarfile.open(fileobj=made_file, mode="w") as new,
    ):
        for member in old.getmembers():
            content = old.extractfile(member)
            member.name = f"./{member.name}"
            new.addfile(member, content)
    (tmp_path / "y.tar").write_bytes(made_file.getvalue())
    check(open_content(tmp_path / "y.tar", NAME, Stage(tmp_path / "work")), one)


@pytest.mark.parametrize("content", [b"", b"not a tar", bytes(10_000), b"\x1f\x8b and no more"])
def test_bytes_that_are_no_archive_are_told_with_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(ImageSourceError, match=r"x\.tar"):
        open_content(path, NAME, Stage(tmp_path / "work"))


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError, match=r"gone\.tar.*No such file"):
        open_content(tmp_path / "gone.tar", NAME, Stage(tmp_path / "work"))


def test_unpacking_that_is_called_off_ends_and_leaves_nothing(tmp_path: Path) -> None:
    archive_path = tmp_path / "x.tar.gz"
    archive_path.write_bytes(packed_by_gzip(hybrid(tmp_path / "x.tar", made()).read_bytes()))
    stage = Stage(tmp_path / "work")
    stage.called_off.set()
    with pytest.raises(ImageSourceError, match="called off"):
        open_content(archive_path, NAME, stage)
    assert not list(stage.folder.iterdir())
