"""What nodes have of images, folded: the same on one line, and what differs said."""

from __future__ import annotations

from typing import Any

from phalanx.controller.fleet.events import ImagesOnNode
from phalanx.controller.runs.inventory import cache_cells, document, image_cells, image_rows

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def image(reference: str, image_id: str = ONE, size: int = 2_000_000) -> dict[str, Any]:
    return {"reference": reference, "image_id": image_id, "size": size}


def test_nodes_that_are_alike_stand_on_one_line() -> None:
    found = [ImagesOnNode(f"gpu{number:02}", (image("a:1"),)) for number in range(1, 5)]
    (row,) = image_rows(found)
    assert image_cells(row) == ("a:1", "111111111111", "2.0 MB", "4", "gpu[01-04]", "")


def test_another_id_and_a_missing_image_are_said() -> None:
    found = [
        ImagesOnNode("n1", (image("a:1"), image("", TWO))),
        ImagesOnNode("n2", (image("a:1"),)),
        ImagesOnNode("n3", (image("a:1", TWO),)),
        ImagesOnNode("n4"),
        ImagesOnNode("n5", error="cannot reach the engine"),
    ]
    rows = [image_cells(row) for row in image_rows(found)]
    assert [(row[0], row[1][:1], row[4], row[5]) for row in rows] == [
        ("a:1", "1", "n[1-2]", "1 other image elsewhere, not on n4"),
        ("a:1", "2", "n3", "1 other image elsewhere, not on n4"),
        ("-", "2", "n1", ""),
    ]


def test_one_image_that_stores_call_differently_stands_on_one_line() -> None:
    found = [
        ImagesOnNode(node, ({**image("a:1", image_id), "likeness": "f", "by_manifest": by},))
        for node, image_id, by in (("n1", TWO, True), ("n2", ONE, False), ("n3", ONE, False))
    ]
    (row,) = image_rows(found)
    assert image_cells(row) == ("a:1", "111111111111", "2.0 MB", "3", "n[1-3]", "under 2 ids")
    (told,) = document(found)["images"]
    assert (told["image_id"], told["image_ids"]) == (ONE, [ONE, TWO])


def test_exact_ids_that_differ_are_different_images_whatever_they_tell() -> None:
    told = {"likeness": "f", "by_manifest": False}
    found = [
        ImagesOnNode("n1", ({**image("a:1", ONE), **told}, {**image("", ONE), **told})),
        ImagesOnNode("n2", ({**image("a:1", TWO), **told}, {**image("", TWO), **told})),
        ImagesOnNode("n3", ({**image("a:1", "sha256:3"), **told, "by_manifest": True},)),
    ]
    rows = [image_cells(row) for row in image_rows(found)]
    assert [(row[0], row[4]) for row in rows] == [
        ("a:1", "n1"),
        ("a:1", "n2"),
        ("a:1", "n3"),
        ("-", "n1"),
        ("-", "n2"),
    ]


def test_caches_with_the_same_figures_stand_on_one_line() -> None:
    found = [
        ImagesOnNode("n1", layers=2, layer_bytes=3_000_000, freed_bytes=0),
        ImagesOnNode("n2", layers=2, layer_bytes=3_000_000, freed_bytes=0),
        ImagesOnNode("n3", layers=0, layer_bytes=0, freed_bytes=3_000_000),
        ImagesOnNode("n4", error="lost"),
    ]
    assert cache_cells(found) == [("2", "3.0 MB", "0 B", "2", "n[1-2]"), ("0", "0 B", "3.0 MB", "1", "n3")]


def test_the_document_has_every_node_with_its_error() -> None:
    told = document([ImagesOnNode("n1", (image("a:1"),)), ImagesOnNode("n2", error="lost")])
    assert told["images"] == [
        {
            "reference": "a:1",
            "image_id": ONE,
            "image_ids": [ONE],
            "size": 2_000_000,
            "nodes": ["n1"],
            "missing": [],
        }
    ]
    assert [(one["node"], one["error"]) for one in told["nodes"]] == [("n1", ""), ("n2", "lost")]
