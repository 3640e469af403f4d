"""Which images an archive or OCI layout holds, and in which members their layers are.

Nothing of what an archive says of itself is believed further than it can be checked: names lead nowhere but
to members, small files have limits, and a blob that is called by its digest must have it.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .image import (
    CONFIG_BYTES,
    ImageFormatError,
    ImageTooLarge,
    digest_bytes,
    full_name,
    read_config,
    read_json,
)
from .image_archive import NAME_NOTE, TAG_NOTE, blob_name
from .image_tar import Member, resolve

#: Bytes of a manifest or index that are read.
MANIFEST_BYTES = 4 * 1024 * 1024
#: Images in one archive, indexes within an index.
_IMAGES, _NESTED = 1024, 3
#: Characters of a name (messages.ImageRef).
_NAME = 512
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}

ReadMember = Callable[[Member], bytes]


@dataclass(frozen=True, slots=True)
class Held:
    """An image in an archive: its configuration, its names, and the members with its layers, lowest first."""

    config: bytes
    names: tuple[str, ...]
    layers: tuple[Member, ...]

    @property
    def architecture(self) -> str:
        """What the image runs on, as it says itself."""
        found = str(read_config(self.config).get("architecture"))
        return found if found.isascii() and found.isalnum() else "unknown"


@dataclass(frozen=True, slots=True)
class _Archive:
    members: dict[str, Member]
    read_member: ReadMember

    def read(self, path: str, limit: int) -> bytes:
        """A small file, whose digest is checked when its name is one."""
        member = resolve(self.members, path)
        if member.size > limit:
            raise ImageTooLarge(f"its member {path[:120]!r} has {member.size} bytes; {limit} are read")
        data = self.read_member(member)
        stem = path.rpartition("/")[2].removesuffix(".json").removeprefix("sha256:")
        if len(data) != member.size:
            raise ImageFormatError(f"its member {path[:120]!r} is cut short")
        if _HEXADECIMAL.fullmatch(stem) and hashlib.sha256(data).hexdigest() != stem:
            raise ImageFormatError(f"its member {path[:120]!r} is damaged: it does not match its digest")
        return data

    def document(self, path: str) -> Any:
        return read_json(self.read(path, MANIFEST_BYTES), f"its {path}")


def find_images(members: dict[str, Member], read_member: ReadMember) -> list[Held]:
    """The images of a docker archive or OCI layout. Raises ImageFormatError when it is neither."""
    archive = _Archive(members, read_member)
    if "manifest.json" in members:
        return _docker_images(archive)
    if "index.json" in members:
        found = list(_oci_images(archive, archive.document("index.json"), (), _NESTED, iter(range(_IMAGES))))
        if found:
            return found
        raise ImageFormatError("its index.json names no image that is in it")
    raise ImageFormatError("it has neither manifest.json nor index.json")


def _docker_images(archive: _Archive) -> list[Held]:
    entries = archive.document("manifest.json")
    if not isinstance(entries, list) or not 0 < len(entries) <= _IMAGES:
        raise ImageFormatError("its manifest.json is no list of images")
    return [_docker_image(archive, entry) for entry in entries]


def _docker_image(archive: _Archive, entry: Any) -> Held:
    named = _object(entry, "an image of its manifest.json")
    config, layers = named.get("Config"), _strings(named.get("Layers"), "layers in its manifest.json")
    if not isinstance(config, str):
        raise ImageFormatError("an image of its manifest.json has no Config")
    return Held(
        archive.read(config, CONFIG_BYTES),
        _printable(_strings(named.get("RepoTags"), "names in its manifest.json")),
        tuple(resolve(archive.members, path) for path in layers),
    )


def _oci_images(
    archive: _Archive, index: Any, names: tuple[str, ...], depth: int, left: Iterator[int]
) -> Iterator[Held]:
    """``left`` has an item for each entry of all indexes that may still be followed."""
    entries = _object(index, "an index").get("manifests")
    if not isinstance(entries, list) or len(entries) > _IMAGES or not depth:
        raise ImageFormatError("its index is no list of manifests")
    for entry in entries:
        described = _object(entry, "an entry of its index")
        notes = _object(described.get("annotations") or {}, "annotations")
        path = blob_name(digest_bytes(described.get("digest")))
        outermost = depth == _NESTED
        if "vnd.docker.reference.type" in notes or (path not in archive.members and not outermost):
            continue  # what was said of an image, or a platform that was left out
        if next(left, None) is None:
            raise ImageFormatError(f"its indexes name more than {_IMAGES} images")
        own = _printable(str(notes[key]) for key in (NAME_NOTE, TAG_NOTE) if key in notes)
        document = _object(archive.document(path), "a manifest")
        if "manifests" in document:
            yield from _oci_images(archive, document, names + own, depth - 1, left)
        else:
            yield _oci_image(archive, document, names + own)


def _oci_image(archive: _Archive, manifest: dict[str, Any], names: tuple[str, ...]) -> Held:
    config = _object(manifest.get("config"), "the configuration of a manifest")
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        raise ImageFormatError("a manifest has no layers")
    digests = [digest_bytes(_object(layer, "a layer of a manifest").get("digest")) for layer in layers]
    return Held(
        archive.read(blob_name(digest_bytes(config.get("digest"))), CONFIG_BYTES),
        names,
        tuple(resolve(archive.members, blob_name(digest)) for digest in digests),
    )


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImageFormatError(f"{what} is no JSON object")
    return value


def _strings(value: Any, what: str) -> list[str]:
    if value is not None and not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        raise ImageFormatError(f"{what}: no list of texts")
    return value or []


def _printable(names: Iterable[str]) -> tuple[str, ...]:
    """Names that can be one and can be shown to a person; they are ASCII (distribution/reference)."""
    return tuple(name for name in names if name.isascii() and name.isprintable() and len(name) <= _NAME)


def is_named(names: Iterable[str], reference: str) -> bool:
    """Whether one of the names of an image is this one.

    An OCI layout may have the tag alone as name; podman writes "localhost/" before the name of what it built.
    """
    wanted = full_name(reference)
    same = {wanted.rpartition(":")[2], wanted}
    return any(same & {name, full_name(name), full_name(name.removeprefix("localhost/"))} for name in names)


def choose(images: list[Held], reference: str, architecture: str = "") -> Held:
    """The image of that name, or the only one. ``architecture``: which, when it is there for several.

    Raises ImageFormatError saying what there is.
    """
    fitting = [image for image in images if is_named(image.names, reference)]
    if not fitting and len({image.config for image in images}) == 1:
        fitting = images
    if not fitting:
        held = sorted({name for image in images for name in image.names})
        raise ImageFormatError(f"does not hold {reference}; it holds {', '.join(held) or 'no names'}")
    if len({image.config for image in fitting}) > 1:
        there = ", ".join(sorted({image.architecture for image in fitting}))
        fitting = [image for image in fitting if image.architecture == architecture]
        if len({image.config for image in fitting}) != 1:
            raise ImageFormatError(
                f"holds {reference} more than once ({there}); make one of a single platform"
            )
    return fitting[0]


def packing(head: bytes) -> str:
    """How a file that begins with these bytes is compressed, "" when it is not."""
    return next((kind for magic, kind in _PACKED.items() if head.startswith(magic)), "")


def check_packing(head: bytes, name: str) -> bool:
    """Whether a layer is to be unpacked first. Raises ImageFormatError where that cannot be done here."""
    kind = packing(head)
    if kind not in ("", "gzip"):
        raise ImageFormatError(
            f"its layer {name[:120]!r} is compressed with {kind}, which is not read here; "
            "make the archive with gzip or without compression"
        )
    return kind == "gzip"


def gunzip(chunks: Iterable[bytes], piece: int = 1 << 20) -> Iterator[bytes]:
    """What gzip members one after another hold, in pieces of at most ``piece`` bytes.

    Raises ImageFormatError when they are damaged or cut short.
    """
    member = zlib.decompressobj(wbits=31)
    begun = False
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if member.eof:
                    member, begun = zlib.decompressobj(wbits=31), False
                if not begun and not (rest := rest.lstrip(b"\0")):
                    break  # padding between members, or after the last
                begun = True
                yield member.decompress(rest, piece)
                rest = member.unconsumed_tail or member.unused_data
    except zlib.error as error:
        raise ImageFormatError(f"a compressed layer is damaged: {error}") from error
    if begun and not member.eof:
        raise ImageFormatError("a compressed layer is cut short")
