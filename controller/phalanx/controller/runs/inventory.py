"""What an inventory of images found, nodes that are alike together: from a run's events to rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from phalanx.controller.fleet.events import ImagesOnNode, Recorded
from phalanx.controller.nodesets import fold, natural
from phalanx.controller.runs.words import plural, short_image, size


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image by name, on these nodes. ``image_ids``: what their engines call it, first what most do: stores
    differ in that. ``missing``: nodes that answered and have nothing by that name; ``others``: how many other
    images the name means elsewhere."""

    reference: str
    image_ids: tuple[str, ...]
    size: int
    nodes: tuple[str, ...]
    missing: tuple[str, ...]
    others: int


def answers(events: Iterable[Recorded]) -> list[ImagesOnNode]:
    """The nodes' answers in the order of their names."""
    found = {one.event.node: one.event for one in events if isinstance(one.event, ImagesOnNode)}
    return [found[node] for node in natural(found)]


def _told(found: Iterable[ImagesOnNode]) -> list[ImagesOnNode]:
    """Those that said what they have; a node that could not be asked says nothing of itself."""
    return [one for one in found if one.images or not one.error]


def _sames(found: Iterable[ImagesOnNode]) -> dict[tuple[str, str], str]:
    """By name and id the likeness of an image that stores call differently; see ``image_identity``.

    Images whose exact ids differ are different, whatever they tell; so are those without a name.
    """
    alike: dict[tuple[str, str], dict[str, bool]] = {}
    for image in (image for one in found for image in one.images):
        if image["reference"] and image.get("likeness"):
            ids = alike.setdefault((str(image["reference"]), str(image["likeness"])), {})
            ids[str(image["image_id"])] = bool(image.get("by_manifest"))
    return {
        (reference, image_id): mark
        for (reference, mark), ids in alike.items()
        if any(ids.values()) and list(ids.values()).count(False) < 2
        for image_id in ids
    }


def image_rows(found: Iterable[ImagesOnNode]) -> list[ImageRow]:
    """By name, images without one last; of a name, the id that most nodes have comes first."""
    sound = _told(found)
    holders: dict[tuple[str, str], list[str]] = {}
    ids: dict[tuple[str, str], Counter[str]] = {}
    sizes: dict[tuple[str, str], int] = {}
    same_as = _sames(sound)
    for one in sound:
        for image in one.images:
            image_id = str(image["image_id"])
            key = str(image["reference"]), same_as.get((str(image["reference"]), image_id), image_id)
            holders.setdefault(key, []).append(one.node)
            ids.setdefault(key, Counter())[image_id] += 1
            sizes[key] = max(sizes.get(key, 0), int(image["size"]))
    rows = []
    for key, nodes in holders.items():
        reference, shown = key[0], tuple(sorted(ids[key], key=lambda one: (-ids[key][one], one)))
        same = [other for other in holders if other[0] == reference] if reference else [key]
        having = {node for other in same for node in holders[other]}
        missing = tuple(one.node for one in sound if one.node not in having) if reference else ()
        rows.append(ImageRow(reference, shown, sizes[key], tuple(nodes), missing, len(same) - 1))
    return sorted(rows, key=lambda row: (not row.reference, row.reference, -len(row.nodes), row.image_ids))


def note(row: ImageRow) -> str:
    """What differs between nodes, "" when nothing does."""
    words = [f"under {len(row.image_ids)} ids"] if len(row.image_ids) > 1 else []
    if row.others:
        words.append(f"{plural(row.others, 'other image')} elsewhere")
    if row.missing:
        words.append(f"not on {fold(row.missing)}")
    return ", ".join(words)


def image_cells(row: ImageRow) -> tuple[str, ...]:
    """IMAGE, ID, SIZE, COUNT, NODES, NOTE."""
    name = row.reference or "-"
    count = str(len(row.nodes))
    return name, short_image(row.image_ids[0]), size(row.size), count, fold(row.nodes), note(row)


def cache_cells(found: Iterable[ImagesOnNode]) -> list[tuple[str, ...]]:
    """LAYERS, CACHED, FREED, COUNT, NODES, nodes with the same figures on one line."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in _told(found):
        figures = str(one.layers), size(one.layer_bytes), size(one.freed_bytes)
        groups.setdefault(figures, []).append(one.node)
    return [(*figures, str(len(nodes)), fold(nodes)) for figures, nodes in groups.items()]


def document(found: Iterable[ImagesOnNode]) -> dict[str, Any]:
    """For ``--json``: images as rows, and each node's cache, or its error."""
    found = list(found)
    return {
        "images": [
            {
                "reference": row.reference,
                "image_id": row.image_ids[0],
                "image_ids": list(row.image_ids),
                "size": row.size,
                "nodes": list(row.nodes),
                "missing": list(row.missing),
            }
            for row in image_rows(found)
        ],
        "nodes": [
            {
                "node": one.node,
                "cached_layers": one.layers,
                "cached_bytes": one.layer_bytes,
                "freed_bytes": one.freed_bytes,
                "more_images": one.more,
                "error": one.error,
            }
            for one in found
        ],
    }
