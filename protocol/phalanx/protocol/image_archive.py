"""The archive that puts an image, or the layers of it that are missing, into any engine.

A hybrid: the containerd store reads the OCI layout in it (and skips blobs that it has), the graph-driver
store and podman read manifest.json, which points at the same blobs. A layer that is not in the archive must
be in the engine under the same chain; podman takes whole images only. (Tried on Docker 20.10 and 28.5, a
store of each kind; OCI image layout 1.1; Docker image specification 1.2, "Combined Image JSON + Filesystem
Changeset".)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

from . import image_tar
from .image import ImageContent, check_tagged, digest_text, write_json
from .messages import Layer

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
#: Where an OCI layout has the name of an image: containerd's full one, and the tag alone.
NAME_NOTE, TAG_NOTE = "io.containerd.image.name", "org.opencontainers.image.ref.name"


def blob_name(digest: bytes) -> str:
    """A blob's member."""
    return f"blobs/sha256/{digest.hex()}"


def oci_manifest(content: ImageContent) -> bytes:
    """The manifest by which the containerd store knows the image; its digest is the image's id there."""
    return write_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, content.digest, len(content.config)),
            "layers": [_descriptor(LAYER_TYPE, layer.diff_id, layer.size) for layer in content.layers],
        }
    )


def manifest_digest(content: ImageContent) -> bytes:
    """Sha256 of that manifest."""
    return hashlib.sha256(oci_manifest(content)).digest()


def archive(content: ImageContent, reference: str, carried: Collection[int]) -> Iterator[bytes | Layer]:
    """The archive piece by piece; a Layer stands for the bytes of its file, which the caller puts there.

    ``carried``: indexes of the layers that are in it. Raises ImageFormatError for a reference that no image
    can be given.
    """
    for name, data in _small(content, check_tagged(reference)).items():
        yield image_tar.header(name, len(data)) + data + image_tar.padding(len(data))
    layers = {content.layers[index].diff_id: content.layers[index] for index in sorted(carried)}
    for layer in layers.values():
        yield image_tar.header(blob_name(layer.diff_id), layer.size)
        yield layer
        yield image_tar.padding(layer.size)
    yield image_tar.END


def _small(content: ImageContent, name: str) -> dict[str, bytes]:
    manifest = oci_manifest(content)
    notes = {NAME_NOTE: name, TAG_NOTE: name.rpartition(":")[2]}
    described = _descriptor(MANIFEST_TYPE, hashlib.sha256(manifest).digest(), len(manifest))
    docker = {
        "Config": blob_name(content.digest),
        "RepoTags": [name],
        "Layers": [blob_name(layer.diff_id) for layer in content.layers],
    }
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [described | {"annotations": notes}]}
    return {
        "oci-layout": write_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": write_json(index),
        "manifest.json": write_json([docker]),
        blob_name(content.digest): content.config,
        blob_name(manifest_digest(content)): manifest,
    }


def _descriptor(kind: str, digest: bytes, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_text(digest), "size": size}
