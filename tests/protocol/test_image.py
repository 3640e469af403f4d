"""Images as values: chains, the images on the way, archives that any tar reader reads, and hostile ones."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.protocol import image_tar
from phalanx.protocol.image import (
    CONFIG_BYTES,
    LAYERS,
    PARTIAL_LABEL,
    ImageContent,
    ImageFormatError,
    ImageTooLarge,
    chain_ids,
    check_tagged,
    config_diff_ids,
    digest_text,
    full_name,
    leading_held,
    prefix_config,
)
from phalanx.protocol.image_archive import archive, blob_name, manifest_digest, oci_manifest
from phalanx.protocol.image_index import MANIFEST_BYTES, Held, choose, find_images, gunzip, is_named, packing
from phalanx.protocol.messages import ImageSync, Layer, LayersQuery

NAME = "phx/made:1"


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def config_of(diff_ids: list[bytes], **more: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest_text(diff_id) for diff_id in diff_ids]}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs, **more}).encode()


def image_of(*layers: bytes, **more: Any) -> ImageContent:
    named = tuple(Layer(sha256(data), len(data)) for data in layers)
    return ImageContent(config_of([layer.diff_id for layer in named], **more), named)


def streamed(content: ImageContent, carried: list[int], *layers: bytes, name: str = NAME) -> bytes:
    """What a caller sends who puts the layers' bytes where they belong."""
    data = {sha256(layer): layer for layer in layers}
    pieces = archive(content, name, carried)
    return b"".join(piece if isinstance(piece, bytes) else data[piece.diff_id] for piece in pieces)


def indexed(data: bytes) -> list[Held]:
    found = image_tar.members(lambda at, count: data[at : at + count], len(data))
    return find_images(found, lambda member: data[member.offset : member.offset + member.size])


def tar(**members: Any) -> bytes:
    """A tar with JSON members; bytes are taken as they are."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name.replace("_json", ".json").replace("__", "/"))
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return made.getvalue()


# chains and configurations


def test_a_chain_is_the_digest_of_the_chain_below_and_the_layer() -> None:
    one, two, three = sha256(b"1"), sha256(b"2"), sha256(b"3")
    second = sha256(f"{digest_text(one)} {digest_text(two)}".encode())
    third = sha256(f"{digest_text(second)} {digest_text(three)}".encode())
    assert chain_ids([one, two, three]) == (one, second, third)
    assert chain_ids([]) == ()


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=6), st.data())
def test_what_an_engine_can_skip_is_the_common_beginning_with_an_image_it_has(
    wanted: list[bytes], data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(wanted)))
    other = [*wanted[:kept], sha256(b"something else"), *wanted[kept:]]
    assert leading_held(wanted, set(chain_ids(other))) == kept
    assert leading_held(wanted, set()) == 0


def test_the_same_layer_on_top_of_another_is_not_held() -> None:
    below, other, layer = sha256(b"below"), sha256(b"other"), sha256(b"layer")
    assert leading_held([below, layer], set(chain_ids([other, layer])) | {below}) == 1


HISTORY = [
    {"created_by": "a"},
    {"created_by": "ENV", "empty_layer": True},
    {"created_by": "b"},
    {"created_by": "CMD", "empty_layer": True},
]


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (1, 1), (2, 3)])
def test_an_image_on_the_way_has_the_first_layers_and_their_history(count: int, kept: int) -> None:
    content = image_of(b"a", b"b", history=HISTORY, config={"Env": ["SECRET=1"], "Labels": {"theirs": "1"}})
    made = json.loads(prefix_config(content.config, count))
    assert made["rootfs"]["diff_ids"] == [digest_text(diff_id) for diff_id in content.diff_ids[:count]]
    assert made["history"] == HISTORY[:kept]
    assert made["config"] == {"Labels": {PARTIAL_LABEL: content.partial_mark}}
    assert (made["architecture"], made["os"]) == ("amd64", "linux")
    assert prefix_config(content.config, count) == prefix_config(content.config, count)
    assert content.prefix(count).layers == content.layers[:count]


@pytest.mark.parametrize("history", [None, [], [{"created_by": "a"}], "x", [7], HISTORY * 9])
def test_a_history_that_does_not_tell_is_left_out_or_cut(history: Any) -> None:
    content = image_of(b"a", b"b", history=history)
    made = json.loads(prefix_config(content.config, 2))["history"]
    assert sum(1 for entry in made if not entry.get("empty_layer")) in (0, 2)


BAD: dict[str, bytes] = {
    "no JSON": b"{",
    "no object": b"[]",
    "JSON without a bottom": b"[" * 100_000,
    "a number that is none": b'{"a": NaN}',
    "no rootfs": b"{}",
    "a rootfs of another type": b'{"rootfs": {"type": "x", "diff_ids": []}}',
    "layers that are no list": b'{"rootfs": {"type": "layers", "diff_ids": "sha256:"}}',
    "a layer that is no digest": b'{"rootfs": {"type": "layers", "diff_ids": ["../../x"]}}',
    "a digest in capitals": config_of([]).replace(b"[]", b'["sha256:' + b"AB" * 32 + b'"]'),
    "bytes that are no text": b"\xff\xfe\xfa",
    "a number of a million digits": b"1" * 100_000,
}


@pytest.mark.parametrize("kind", BAD)
def test_a_configuration_with_something_wrong_is_refused(kind: str) -> None:
    with pytest.raises(ImageFormatError):
        config_diff_ids(BAD[kind])


def test_an_image_with_more_than_messages_carry_is_refused_as_too_large() -> None:
    with pytest.raises(ImageTooLarge, match="layers"):
        config_diff_ids(config_of([sha256(b"x")] * (LAYERS + 1)))
    with pytest.raises(ImageTooLarge, match="bytes"):
        config_diff_ids(config_of([]) + b" " * CONFIG_BYTES)
    largest = ImageContent(config_of([sha256(b"")] * LAYERS), (Layer(sha256(b""), 0),) * LAYERS)
    assert ImageSync(1, NAME, largest.config + b" " * 10, largest.layers, 0, ()).layers == largest.layers
    assert LayersQuery(1, NAME, largest.digest, largest.layers)


def test_a_layer_that_comes_again_counts_at_the_last_of_its_places() -> None:
    assert image_of(b"a", b"b", b"a", b"a").repeated == (0, 2)
    assert image_of(b"a", b"b").repeated == ()


def test_layers_that_the_configuration_does_not_name_are_refused() -> None:
    content = image_of(b"a", b"b")
    with pytest.raises(ImageFormatError, match="not those"):
        ImageContent(content.config, content.layers[:1])
    with pytest.raises(ImageFormatError, match="two sizes"):
        twice = image_of(b"a", b"a")
        ImageContent(twice.config, (twice.layers[0], Layer(sha256(b"a"), 7)))


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("rocm/dev:6", "docker.io/rocm/dev:6"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1"),
        ("host:5000/x", "host:5000/x:latest"),
        ("localhost/x:1", "localhost/x:1"),
        ("ghcr.io/a/b@sha256:" + "ab" * 32, "ghcr.io/a/b@sha256:" + "ab" * 32),
    ],
)
def test_a_short_name_means_what_docker_takes_it_for(short: str, full: str) -> None:
    assert full_name(short) == full
    assert full_name(full) == full


@pytest.mark.parametrize("reference", ["", "a@sha256:" + "ab" * 32, "sha256:" + "ab" * 32, "ab" * 32])
def test_no_image_can_be_given_a_digest_as_its_name(reference: str) -> None:
    with pytest.raises(ImageFormatError, match="name it by repository and tag"):
        check_tagged(reference)


# archives


LAYER = st.binary(max_size=1500)


@given(st.lists(LAYER, max_size=4), st.data())
def test_every_tar_reader_reads_what_was_streamed(layers: list[bytes], data: st.DataObject) -> None:
    content = image_of(*layers)
    carried = data.draw(st.lists(st.integers(0, len(layers) - 1), unique=True)) if layers else []
    sent = streamed(content, carried, *layers)
    assert sent == streamed(content, carried, *layers)
    with tarfile.open(fileobj=io.BytesIO(sent)) as file:
        read = {member.name: file.extractfile(member) for member in file.getmembers()}
        blobs = {name: file.read() for name, file in read.items() if file is not None}
    wanted = {blob_name(sha256(layers[index])): layers[index] for index in carried}
    manifest = blob_name(manifest_digest(content))
    own = {manifest: oci_manifest(content), blob_name(content.digest): content.config}
    assert {name: blob for name, blob in blobs.items() if name.startswith("blobs/")} == wanted | own
    index, docker = json.loads(blobs["index.json"]), json.loads(blobs["manifest.json"])
    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert f"blobs/sha256/{index['manifests'][0]['digest'][7:]}" == manifest
    assert docker[0]["Layers"] == [blob_name(diff_id) for diff_id in content.diff_ids]
    assert docker[0]["RepoTags"] == [f"docker.io/{NAME}"]


@given(st.lists(LAYER, max_size=4))
def test_what_was_streamed_is_found_again(layers: list[bytes]) -> None:
    content = image_of(*layers)
    sent = streamed(content, list(range(len(layers))), *layers)
    for data in (sent, *([without(sent, "manifest.json")])):
        held = choose(indexed(data), NAME)
        assert held.config == content.config
        assert [data[part.offset : part.offset + part.size] for part in held.layers] == layers


def without(data: bytes, name: str) -> bytes:
    """The archive less one member."""
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=made, mode="w") as new:
        for member in old.getmembers():
            if member.name != name:
                new.addfile(member, old.extractfile(member))
    return made.getvalue()


@pytest.mark.parametrize("size", [0, 1, 512, (8 << 30) - 1, 8 << 30, (40 << 30) + 7])
def test_a_layer_of_any_size_can_stand_in_an_archive(size: int) -> None:
    layer = Layer(sha256(b"huge"), size)
    content = ImageContent(config_of([layer.diff_id]), (layer,))
    pieces = list(archive(content, NAME, [0]))
    place = pieces.index(layer)
    header = pieces[place - 1]
    assert isinstance(header, bytes)
    entry = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (entry.name, entry.size, entry.isreg()) == (blob_name(layer.diff_id), size, True)
    assert pieces[place + 1] == bytes(-size % 512)

    def read(at: int, count: int) -> bytes:
        """As if the layer were there, all zero."""
        if at >= len(before) + size:
            return after[at - len(before) - size :][:count]
        return before[at : at + count]

    before = b"".join(piece for piece in pieces[:place] if isinstance(piece, bytes))
    after = b"".join(piece for piece in pieces[place + 1 :] if isinstance(piece, bytes))
    found = image_tar.members(read, len(before) + size + len(after))
    assert found[blob_name(layer.diff_id)].size == size


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(names=st.lists(st.text("abcé/.", min_size=1, max_size=90), min_size=1, max_size=5, unique=True))
def test_members_are_found_where_tarfile_finds_them(form: int, names: list[str]) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            file.addfile(member, io.BytesIO(name.encode("latin-1", "replace")))
    data = made.getvalue()
    found = image_tar.members(lambda at, count: data[at : at + count], len(data))
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        wanted = {image_tar.clean(m.name): (m.offset_data, m.size) for m in file.getmembers()}
    wanted.pop("", None)
    assert {name: (member.offset, member.size) for name, member in found.items()} == wanted


def linked(name: str, kind: bytes, target: str, *, size: int = 0) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        member = tarfile.TarInfo("one/layer.tar")
        member.size = 3
        file.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo(name)
        link.type, link.linkname, link.size = kind, target, size
        file.addfile(link)
    return made.getvalue()


def test_links_of_both_kinds_are_followed_inside_the_archive() -> None:
    for kind, target in ((tarfile.SYMTYPE, "../one/layer.tar"), (tarfile.LNKTYPE, "one/layer.tar")):
        data = linked("two/layer.tar", kind, target)
        found = image_tar.members(lambda at, count, data=data: data[at : at + count], len(data))
        assert image_tar.resolve(found, "./two/layer.tar").name == "one/layer.tar"


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../etc/passwd"),
        (tarfile.SYMTYPE, "layer.tar"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "two/layer.tar"),
        (tarfile.SYMTYPE, "../nowhere"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.DIRTYPE, ""),
    ],
)
def test_links_out_of_the_archive_in_circles_or_to_nothing_are_refused(kind: bytes, target: str) -> None:
    data = linked("two/layer.tar", kind, target)
    found = image_tar.members(lambda at, count: data[at : at + count], len(data))
    with pytest.raises(ImageFormatError, match="is not there"):
        image_tar.resolve(found, "two/layer.tar")


@given(st.data())
def test_damaged_archives_are_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    layers = (b"x" * 600, b"y")
    sent = bytearray(streamed(image_of(*layers), [0, 1], *layers))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(sent[: data.draw(st.integers(0, len(sent)))])
    with contextlib.suppress(ImageFormatError):
        choose(indexed(cut), NAME)


def with_header(**fields: int) -> bytes:
    """A member whose header claims something, with a checksum that is right."""
    entry = tarfile.TarInfo("x")
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    size = fields["size"]
    block[124:136] = (
        b"\x80" + size.to_bytes(11, "big") if size >= 0 else size.to_bytes(12, "big", signed=True)
    )
    block[156] = fields.get("kind", ord("0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(2048)


@pytest.mark.parametrize(
    "data",
    [
        with_header(size=1 << 70),
        with_header(size=-1024),
        with_header(size=-(1 << 40)),
        with_header(size=5000),
        with_header(size=1 << 40, kind=ord("x")),
        with_header(size=0, kind=ord("S")),
        b"",
        b"\0" * 100,
        b"not a tar",
    ],
)
def test_absurd_sizes_and_what_is_no_tar_are_refused(data: bytes) -> None:
    with pytest.raises(ImageFormatError):
        indexed(data)


@pytest.mark.parametrize(
    "records",
    [b"9 size=-1\n", b"0 size=1\n", b"99 size=1\n", b"xx", b"11 size=1e9\n", b"12 GNU.sparse.major=1\n"],
)
def test_damaged_records_are_refused(records: bytes) -> None:
    record = tarfile.TarInfo("records")
    record.type, record.size = tarfile.XHDTYPE, len(records)
    data = record.tobuf(tarfile.GNU_FORMAT) + records.ljust(512, b"\0") + tar(x=b"1")
    with pytest.raises(ImageFormatError):
        indexed(data)


DIGEST = sha256(b"{}").hex()
WRONG: dict[str, dict[str, Any]] = {
    "neither": {"x": b""},
    "no list": {"manifest_json": {"Config": "c"}},
    "an empty list": {"manifest_json": []},
    "a config out of the archive": {"manifest_json": [{"Config": "../../etc/passwd"}]},
    "a config that is no text": {"manifest_json": [{"Config": 7}]},
    "names that are no list": {"manifest_json": [{"Config": "c", "RepoTags": "a:1"}], "c": b"{}"},
    "something among the images": {"manifest_json": [7]},
    "a layer that is not there": {"manifest_json": [{"Config": "c", "Layers": ["l"]}], "c": b"{}"},
    "a config that does not match its name": {"manifest_json": [{"Config": DIGEST}], DIGEST: b"{} "},
    "too much of it": {"manifest_json": b" " * (MANIFEST_BYTES + 1) + b"[]"},
    "JSON without a bottom": {"manifest_json": b"[" * 100_000},
    "an index that is no list": {"index_json": {"manifests": 7}},
    "an index without images": {"index_json": {"manifests": []}},
    "an index of nothing": {"index_json": {"manifests": [{"digest": digest_text(sha256(b"gone"))}]}},
    "a manifest that is damaged": {
        "index_json": {"manifests": [{"digest": digest_text(sha256(b"x"))}]},
        f"blobs__sha256__{sha256(b'x').hex()}": b"y",
    },
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_archive_with_something_wrong_is_refused(kind: str) -> None:
    with pytest.raises(ImageFormatError):
        indexed(tar(**WRONG[kind]))


def test_an_index_that_holds_itself_ends() -> None:
    inner = json.dumps({"manifests": []}).encode()
    for _ in range(5):
        blob = {f"blobs__sha256__{sha256(inner).hex()}": inner}
        outer = {"manifests": [{"digest": digest_text(sha256(inner))}]}
        inner = json.dumps(outer).encode()
        with pytest.raises(ImageFormatError):
            indexed(tar(index_json=outer, **blob))


def test_indexes_that_multiply_are_refused() -> None:
    inner, blobs = json.dumps({"manifests": []}).encode(), {}
    for _ in range(2):
        blobs[f"blobs__sha256__{sha256(inner).hex()}"] = inner
        inner = json.dumps({"manifests": [{"digest": digest_text(sha256(inner))}] * 40}).encode()
    with pytest.raises(ImageFormatError, match="more than"):
        indexed(tar(index_json=json.loads(inner), **blobs))


def held(architecture: str, *names: str) -> Held:
    return Held(config_of([], architecture=architecture), names, ())


@pytest.mark.parametrize(
    ("name", "reference", "same"),
    [
        ("rocm/vllm:6.2", "rocm/vllm:6.2", True),
        ("docker.io/rocm/vllm:6.2", "rocm/vllm:6.2", True),
        ("rocm/vllm:6.2", "rocm_vllm:6.2", False),
        ("rocm/vllm:6.3", "rocm/vllm:6.2", False),
        ("6.2", "rocm/vllm:6.2", True),
        ("localhost/mad:1", "mad:1", True),
        ("localhost/mad:1", "localhost/mad:1", True),
        ("localhost/mad:1", "quay.io/mad:1", False),
    ],
)
def test_the_name_of_an_image_is_compared_as_engines_write_it(name: str, reference: str, same: bool) -> None:
    assert is_named(["other:1", name], reference) is same
    assert not is_named([], reference)


def test_the_image_of_the_wanted_name_is_chosen_however_it_is_written() -> None:
    one, two = held("amd64", "a:1"), held("arm64", "docker.io/library/b:2", "c:3")
    assert choose([one, two], "b:2") is two
    assert choose([one, two], "docker.io/library/a:1") is one
    assert choose([one], "wanted:9") is one
    with pytest.raises(ImageFormatError, match="does not hold d:1; it holds a:1, c:3, docker"):
        choose([one, two], "d:1")


def test_names_that_no_person_should_be_shown_are_left_out() -> None:
    names = ["\x1b[2J:1", "\ud800", "a:1", "b" * 600, "é:1"]
    data = tar(manifest_json=[{"Config": "c", "RepoTags": names}], c=config_of([], architecture="\x1b[2J"))
    (found,) = indexed(data)
    assert found.names == ("a:1",)
    assert found.architecture == "unknown"


def test_an_image_of_several_platforms_needs_one_named() -> None:
    images = [held("amd64", "a:1"), held("arm64", "a:1")]
    assert choose(images, "a:1", "arm64") is images[1]
    for architecture in ("", "riscv64"):
        with pytest.raises(ImageFormatError, match="amd64, arm64"):
            choose(images, "a:1", architecture)


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=3), st.integers(1, 700), st.integers(1, 700))
def test_compressed_layers_come_out_whatever_the_pieces(parts: list[bytes], step: int, piece: int) -> None:
    packed = b"".join(gzip.compress(part) for part in parts) + bytes(7)
    chunks = [packed[at : at + step] for at in range(0, len(packed), step)]
    out = list(gunzip(chunks, piece))
    assert b"".join(out) == b"".join(parts)
    assert max(map(len, out)) <= piece
    with pytest.raises(ImageFormatError):
        list(gunzip([packed[:-8]]))


def test_a_compressed_layer_that_is_damaged_is_refused() -> None:
    packed = bytearray(gzip.compress(hashlib.shake_256(b"").digest(100_000)))
    packed[len(packed) // 2] ^= 1
    with pytest.raises(ImageFormatError, match="damaged"):
        list(gunzip([bytes(packed)]))
    with pytest.raises(ImageFormatError, match="damaged"):
        list(gunzip([gzip.compress(b"x") + b"rubbish"]))
    assert packing(bytes(packed)) == "gzip"
    assert packing(b"\x28\xb5\x2f\xfd") == "zstd"
