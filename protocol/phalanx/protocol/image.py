"""What an image is: the bytes of its configuration, and the layers that the configuration names.

The id of an image is the sha256 of its configuration; a layer's is that of its uncompressed tar (diff id). An
engine knows a layer by its *chain*: the digest of the layer and of all below it. What an engine lacks of an
image is therefore always a suffix of its layers. (OCI image specification 1.1, config.md, "Layer ChainID".)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from .blob import BlobMismatch, make_pages
from .errors import RemoteError
from .messages import BlobChunks, Layer

#: What a message carries of an image at most (messages.ImageConfig, messages.Layers).
CONFIG_BYTES, LAYERS = 192 * 1024, 256
#: Label of the images that hold the first layers of one on its way: 12 digits of its configuration's digest.
PARTIAL_LABEL = "phalanx.partial"
#: Repository of their tags.
PARTIAL = "phalanx-partial"
#: What an engine that keeps images in the containerd store has among DriverStatus of its GET /info.
CONTAINERD_STORE = ["driver-type", "io.containerd.snapshotter.v1"]
#: What containers are told by an image: fields of its configuration's ``config`` that the engines of every
#: store show alike.
_TOLD = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "StopSignal", "User", "Volumes", "WorkingDir")
#: Fields of a configuration that say where the image can run; the images on the way keep them.
_PLATFORM = ("architecture", "created", "os", "os.features", "os.version", "variant")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageFormatError(RemoteError):
    """An image or archive that is not what it must be; the message says which part of it."""


class ImageTooLarge(ImageFormatError):
    """An image that may be whole, and has more of something than can be moved."""


def layer_pages(
    layer: Layer, chunks: Iterable[bytes], chunk_bytes: int, otherwise: str
) -> Iterator[BlobChunks]:
    """The digests of a layer's chunks, page by page while its ``chunks`` are read.

    Raises ImageFormatError with ``otherwise`` instead of the last page when it is not the layer that the
    image names.
    """
    try:
        yield from make_pages(layer.diff_id, layer.size, chunks, chunk_bytes)
    except BlobMismatch as error:
        raise ImageFormatError(f"its layer {layer.diff_id.hex()[:12]} {otherwise}") from error


def digest_text(digest: bytes) -> str:
    """A digest as images and engines write it."""
    return f"sha256:{digest.hex()}"


def digest_bytes(text: object) -> bytes:
    """The digest of such a text. Raises ImageFormatError for anything else."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ImageFormatError(f"{str(text)[:80]!r} is no sha256 digest")
    return bytes.fromhex(text.removeprefix("sha256:"))


def read_json(data: bytes, what: str) -> Any:
    """A JSON document. Raises ImageFormatError, whatever is wrong with it."""
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ImageFormatError(f"{what} is no JSON that can be read") from error


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def write_json(document: object) -> bytes:
    """The same document always in the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def read_config(config: bytes) -> dict[str, Any]:
    """An image's configuration. Raises ImageFormatError when it is too large or no object."""
    if len(config) > CONFIG_BYTES:
        raise ImageTooLarge(f"a configuration of {len(config)} bytes; {CONFIG_BYTES} can be moved")
    document = read_json(config, "the image's configuration")
    if not isinstance(document, dict):
        raise ImageFormatError("the image's configuration is no JSON object")
    return document


def config_diff_ids(config: bytes) -> tuple[bytes, ...]:
    """The layers that a configuration names, lowest first. Raises ImageFormatError."""
    rootfs = read_config(config).get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise ImageFormatError("the image's configuration has no rootfs of layers")
    named = rootfs.get("diff_ids") or []
    if not isinstance(named, list):
        raise ImageFormatError("the image's configuration has no list of layers")
    if len(named) > LAYERS:
        raise ImageTooLarge(f"an image of {len(named)} layers; {LAYERS} can be moved")
    return tuple(digest_bytes(text) for text in named)


def likeness(architecture: object, os: object, told: object, diff_ids: Iterable[bytes]) -> bytes:
    """Of two engines' images under one name, whether they are the same: what containers are told (``config``
    of the configuration) and the layers.

    The id does not tell it: the graph-driver store calls an image by the digest of its configuration, the
    containerd store by that of a manifest, which depends on how the image came. Empty and absent are the
    same.
    """
    fields = told if isinstance(told, dict) else {}
    kept = {name: fields[name] for name in _TOLD if fields.get(name)}
    layers = [digest_text(diff_id) for diff_id in diff_ids]
    return hashlib.sha256(write_json([architecture or "", os or "", kept, layers])).digest()


@dataclass(frozen=True, slots=True)
class ImageContent:
    """An image. Raises ImageFormatError when the layers are not those that the configuration names."""

    config: bytes
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if config_diff_ids(self.config) != self.diff_ids:
            raise ImageFormatError("the layers are not those that the image's configuration names")
        if len({layer.diff_id for layer in self.layers}) != len(set(self.layers)):
            raise ImageFormatError("two sizes for one layer")

    @property
    def digest(self) -> bytes:
        """Sha256 of the configuration: what the image is known by on every node."""
        return hashlib.sha256(self.config).digest()

    @property
    def likeness(self) -> bytes:
        """By which engines of every store can say that they have it. See ``likeness``."""
        config = read_config(self.config)
        return likeness(config.get("architecture"), config.get("os"), config.get("config"), self.diff_ids)

    @property
    def diff_ids(self) -> tuple[bytes, ...]:
        """The layers' digests, lowest first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def repeated(self) -> tuple[int, ...]:
        """Indexes of layers that come again above: such a layer is got once, for the last of its places."""
        last = {layer.diff_id: place for place, layer in enumerate(self.layers)}
        return tuple(place for place, layer in enumerate(self.layers) if last[layer.diff_id] != place)

    def prefix(self, count: int) -> ImageContent:
        """The image on the way that has the first ``count`` layers."""
        return ImageContent(prefix_config(self.config, count), self.layers[:count])

    def partial_tag(self, count: int) -> str:
        """The reference under which an engine holds that image until the whole one is there."""
        return f"{PARTIAL}:{self.partial_mark}-{count}"

    @property
    def partial_mark(self) -> str:
        """What label and tags of its images on the way have in common."""
        return self.digest.hex()[:12]


def chain_ids(diff_ids: Iterable[bytes]) -> tuple[bytes, ...]:
    """The chain of each layer, lowest first."""
    chains: list[bytes] = []
    for diff_id in diff_ids:
        if chains:
            pair = f"{digest_text(chains[-1])} {digest_text(diff_id)}"
            chains.append(hashlib.sha256(pair.encode()).digest())
        else:
            chains.append(diff_id)
    return tuple(chains)


def leading_held(diff_ids: Iterable[bytes], have_chains: Container[bytes]) -> int:
    """How many leading layers an engine with these chains can do without."""
    held = 0
    for chain in chain_ids(diff_ids):
        if chain not in have_chains:
            break
        held += 1
    return held


def prefix_config(config: bytes, count: int) -> bytes:
    """A configuration with the first ``count`` layers and no more to it than an engine needs to keep them.

    The same bytes for the same image always. It carries a label, so that whatever an interrupted load leaves
    can be told from images that are somebody's. Raises ImageFormatError.
    """
    document = read_config(config)
    diff_ids = config_diff_ids(config)[:count]
    kept = {key: document[key] for key in _PLATFORM if key in document}
    kept["config"] = {"Labels": {PARTIAL_LABEL: hashlib.sha256(config).hexdigest()[:12]}}
    kept["rootfs"] = {"type": "layers", "diff_ids": [digest_text(diff_id) for diff_id in diff_ids]}
    kept["history"] = _history(document.get("history"), count)
    return write_json(kept)


def _history(entries: object, count: int) -> list[dict[str, Any]]:
    """One entry per kept layer, and those for no layer between them; none when they do not tell."""
    kept: list[dict[str, Any]] = []
    layers = 0
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or layers == count:
            break
        kept.append(entry)
        layers += not entry.get("empty_layer")
    return kept if layers == count else []


def full_name(reference: str) -> str:
    """A reference with registry and tag, as Docker reads the short one.

    (distribution/reference, normalize.go.) One with a digest keeps it and gets no tag.
    """
    name, at, digest = reference.partition("@")
    host, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not (host == "localhost" or "." in host or ":" in host or host != host.lower()):
        name = f"docker.io/{name}"
    elif host in ("docker.io", "index.docker.io"):
        name = f"docker.io/{rest if '/' in rest else f'library/{rest}'}"
    if at:
        return f"{name}@{digest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def check_tagged(reference: str) -> str:
    """The full name of a reference that an image can be given.

    Raises ImageFormatError for a digest or an id.
    """
    if "@" in reference or not reference or re.fullmatch(r"(sha256:)?[0-9a-f]{64}", reference):
        raise ImageFormatError(
            f"no image can be given the name {reference or '(none)'}: a digest comes from a registry and an "
            "id from the engine; name it by repository and tag"
        )
    return full_name(reference)
