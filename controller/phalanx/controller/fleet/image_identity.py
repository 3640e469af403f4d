"""Whether nodes have the same image, though the stores of their engines give it different ids. Pure.

The graph-driver store (and podman) calls an image by the digest of its configuration, the containerd store
by that of a manifest, which depends on how the image came to the node. Where one of two ids is of a manifest,
the likeness decides: what containers are told, and the layers.
"""

from __future__ import annotations

from collections.abc import Collection

from .events import ImageOnNode, ImageSource


def held_by_source(source: ImageSource) -> ImageOnNode:
    """What the node has that gives the image."""
    image_id = source.engine_id or source.image_id
    return ImageOnNode(
        source.node,
        source.reference,
        image_id,
        request=source.request,
        likeness=source.likeness,
        by_manifest=image_id != source.image_id,
    )


def is_image(held: ImageOnNode, source: ImageSource) -> bool:
    """Whether what a node has is the image of the source."""
    if held.image_id in (source.image_id, source.engine_id):
        return bool(held.image_id)
    return held.by_manifest and bool(held.likeness) and held.likeness == source.likeness


def all_same(held: Collection[ImageOnNode]) -> bool:
    """Whether all have an image, and the same."""
    ids = {one.image_id for one in held}
    if not all(ids) or len(ids) < 2:
        return bool(held) and all(ids)
    exact = {one.image_id for one in held if not one.by_manifest}
    likenesses = {one.likeness for one in held}
    return len(exact) < 2 and len(likenesses) == 1 and all(likenesses)


def common_id(held: Collection[ImageOnNode], otherwise: str) -> str:
    """By which id people find the image on the nodes that have it: the digest of its configuration where some
    engine shows that, else the one that all engines show, else ``otherwise``."""
    exact = {one.image_id for one in held if one.image_id and not one.by_manifest}
    ids = exact or {one.image_id for one in held if one.image_id}
    return ids.pop() if len(ids) == 1 else otherwise
