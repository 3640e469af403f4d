"""Images in files of the login node, made readable layer by layer without a copy where that can be.

A docker archive or OCI layout, as a tar or a folder. Layers of an uncompressed tar stay where they are; what
is compressed is unpacked once. Every layer is read to its end and must be what the image's configuration
names, so that a damaged file is told here and not by a thousand nodes; none of them ever has the whole of it.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from phalanx.protocol.image import ImageContent, ImageFormatError, config_diff_ids, layer_pages
from phalanx.protocol.image_archive import blob_name
from phalanx.protocol.image_index import Held, check_packing, choose, find_images, gunzip, packing
from phalanx.protocol.image_tar import Member, members
from phalanx.protocol.messages import BlobChunks, Layer

from .login import ImageSourceError
from .needs import each_once
from .staging import PIECE_BYTES, Stage, write

_OPENERS = {"gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}


@dataclass(frozen=True, slots=True)
class Span:
    """Where the bytes of a layer's uncompressed tar are."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """An image; for each of its layers, lowest first, where it lies."""

    image: ImageContent
    spans: tuple[Span, ...]
    tags: tuple[str, ...]


def open_content(path: Path, reference: str, stage: Stage, architecture: str = "") -> Content:
    """The image of that name in a file or folder, or its only one; ``stage``: where to unpack. Blocks.

    ``architecture``: which, when the image is there for several ("amd64"). Raises ImageSourceError naming the
    file and what it holds.
    """
    try:
        if path.is_dir():
            return _open_layout(path, reference, stage, architecture)
        return _open_file(path, reference, stage, architecture)
    except ImageFormatError as error:
        raise ImageSourceError(_words(path, str(error))) from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ImageSourceError(f"cannot read the image archive {path}: {error}") from error


def _words(path: Path, words: str) -> str:
    if words.startswith(("does not hold", "holds")):
        return f"{path} {words}"
    cure = "" if ";" in words else "; make it again with `docker save`"
    return f"cannot read the image archive {path}: {words}{cure}"


def _open_file(path: Path, reference: str, stage: Stage, architecture: str) -> Content:
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageFormatError("it is neither a file nor a folder")
    with path.open("rb") as file:
        kind = packing(file.read(8))
    tar = _unpacked(path, kind, stage) if kind else path
    with tar.open("rb") as file:
        descriptor = file.fileno()
        found = members(lambda at, count: os.pread(descriptor, count, at), os.fstat(descriptor).st_size)
        images = find_images(found, lambda member: os.pread(descriptor, member.size, member.offset))
    image = choose(images, reference, architecture)
    return _located(image, [Span(tar, member.offset, member.size) for member in image.layers], stage)


def _unpacked(path: Path, kind: str, stage: Stage) -> Path:
    if kind not in _OPENERS:
        raise ImageFormatError(
            f"it is compressed with {kind}, which is not read here; unpack it (`{kind} -d`)"
        )
    with _OPENERS[kind](path) as packed:
        return _write(iter(lambda: packed.read(PIECE_BYTES), b""), stage, "unpacked.tar")


def _write(pieces: Iterable[bytes], stage: Stage, name: str) -> Path:
    """A file in ``stage``, there only when it is whole. Raises OSError before the disk is full."""
    stage.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = f"no room to unpack it in {stage.folder}; make room there or unpack it yourself"
    part = stage.folder / f"{name}.part"
    try:
        write(pieces, part, lambda: stage.check(words))
        return part.replace(stage.folder / name)
    finally:
        part.unlink(missing_ok=True)


def _open_layout(path: Path, reference: str, stage: Stage, architecture: str) -> Content:
    found = _layout_members(path)
    images = find_images(found, lambda member: (path / member.name).read_bytes()[: member.size + 1])
    image = choose(images, reference, architecture)
    return _located(image, [Span(path / member.name, 0, member.size) for member in image.layers], stage)


def _layout_members(path: Path) -> dict[str, Member]:
    """The files of a layout's folder; links in it are not followed, since they may lead anywhere."""
    blobs = path / "blobs" / "sha256"
    index = [path / "index.json"] if (path / "index.json").exists() else []
    files = [*index, *(sorted(blobs.iterdir()) if blobs.is_dir() else [])]
    found = {}
    for file in files:
        name = str(file.relative_to(path))
        about = file.lstat()
        if stat.S_ISREG(about.st_mode):
            found[name] = Member(name, 0, about.st_size)
    return found


def _located(image: Held, packed: list[Span], stage: Stage) -> Content:
    diff_ids = config_diff_ids(image.config)
    if len(diff_ids) != len(packed):
        raise ImageFormatError(f"it has {len(packed)} layers where its configuration names {len(diff_ids)}")
    plain: dict[bytes, Span] = {}
    for diff_id, span, member in zip(diff_ids, packed, image.layers, strict=True):
        if diff_id not in plain:
            plain[diff_id] = _plain(span, member, diff_id, stage)
    spans = tuple(plain[diff_id] for diff_id in diff_ids)
    layers = tuple(Layer(diff_id, plain[diff_id].size) for diff_id in diff_ids)
    return Content(ImageContent(image.config, layers), spans, image.names)


def span_pages(span: Span, layer: Layer, chunk_bytes: int) -> Iterator[BlobChunks]:
    """See ``layer_pages``: in one pass over it. Each step blocks. Raises OSError when it cannot be read."""
    wrong = "is damaged: it does not match its digest"
    return layer_pages(layer, _chunks(span, chunk_bytes), chunk_bytes, wrong)


def layer_sizes(path: Path, reference: str) -> tuple[int, ...]:
    """Bytes that travel of each layer of an image in an uncompressed archive; () where that takes unpacking.

    Raises ImageSourceError.
    """
    nowhere = Stage(Path(os.devnull))
    try:
        image = open_content(path, reference, nowhere).image
    except ImageSourceError:
        return ()
    return each_once([layer.size for layer in image.layers], image.repeated)


def _plain(span: Span, member: Member, diff_id: bytes, stage: Stage) -> Span:
    """The layer uncompressed: where it is, or in a file of its own in ``stage``."""
    with span.path.open("rb") as file:
        file.seek(span.offset)
        if not check_packing(file.read(min(8, span.size)), member.name):
            return span
    read = hashlib.sha256()
    path = _write(gunzip(_hashed(_chunks(span, PIECE_BYTES), read)), stage, f"{diff_id.hex()}.tar")
    if member.name.startswith("blobs/") and member.name != blob_name(read.digest()):
        raise ImageFormatError(f"its member {member.name} is damaged: it does not match its digest")
    return Span(path, 0, path.stat().st_size)


def _hashed(chunks: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _chunks(span: Span, chunk_bytes: int) -> Iterator[bytes]:
    """The bytes of a span, ``chunk_bytes`` at a time. Raises OSError."""
    with span.path.open("rb") as file:
        file.seek(span.offset)
        left = span.size
        while left and (chunk := file.read(min(chunk_bytes, left))):
            left -= len(chunk)
            yield chunk
