"""Nodes have the same image, or not, though the stores of their engines call it differently."""

from __future__ import annotations

from dataclasses import replace

import pytest
from phalanx.controller.fleet.events import ImageOnNode, ImageSource
from phalanx.controller.fleet.image_identity import all_same, common_id, held_by_source, is_image

CONFIG, OTHER, MANIFEST, ZIPPED = ("sha256:" + digit * 64 for digit in "abcd")
GRAPH = ImageOnNode("g1", "a:1", CONFIG, likeness="f")
CONTAINERD = ImageOnNode("c1", "a:1", MANIFEST, likeness="f", by_manifest=True)
SOURCE = ImageSource("archive", "a:1", CONFIG, 1, likeness="f")


@pytest.mark.parametrize(
    ("held", "same"),
    [
        ([GRAPH], True),
        ([GRAPH, GRAPH], True),
        ([GRAPH, CONTAINERD], True),
        ([CONTAINERD, replace(CONTAINERD, image_id=ZIPPED), GRAPH], True),  # it came another way
        ([GRAPH, replace(GRAPH, image_id=OTHER)], False),  # exact ids that differ, whatever they tell
        ([GRAPH, CONTAINERD, replace(GRAPH, image_id=OTHER)], False),
        ([GRAPH, replace(CONTAINERD, likeness="g")], False),
        ([CONTAINERD, replace(CONTAINERD, image_id=ZIPPED, likeness="g")], False),
        ([replace(GRAPH, likeness=""), replace(CONTAINERD, likeness="")], False),  # nothing is known
        ([replace(GRAPH, likeness=""), GRAPH], True),
        ([GRAPH, replace(GRAPH, image_id="")], False),
        ([], False),
    ],
)
def test_all_nodes_have_the_same_image(held: list[ImageOnNode], same: bool) -> None:
    assert all_same(held) is same
    assert all_same(held[::-1]) is same


@pytest.mark.parametrize(
    ("held", "found"),
    [
        (GRAPH, True),
        (replace(GRAPH, image_id=OTHER), False),
        (CONTAINERD, True),
        (replace(CONTAINERD, likeness="g"), False),
        (replace(CONTAINERD, image_id=""), False),
        (replace(GRAPH, image_id="", likeness=""), False),
    ],
)
def test_a_node_has_the_image_of_the_source(held: ImageOnNode, found: bool) -> None:
    assert is_image(held, SOURCE) is found


def test_what_the_engine_calls_it_that_gives_it_counts_too() -> None:
    source = replace(SOURCE, engine_id=MANIFEST, likeness="")
    assert is_image(replace(CONTAINERD, likeness=""), source)
    assert not is_image(replace(CONTAINERD, likeness="", image_id=ZIPPED), source)
    assert held_by_source(replace(source, node="n1")) == ImageOnNode("n1", "a:1", MANIFEST, by_manifest=True)
    assert held_by_source(replace(SOURCE, node="n1")) == replace(GRAPH, node="n1")


def test_people_are_told_the_id_that_they_find_on_the_nodes() -> None:
    zipped = replace(CONTAINERD, image_id=ZIPPED)
    absent = replace(GRAPH, image_id="")
    assert common_id([CONTAINERD, GRAPH, zipped, absent], "else") == CONFIG
    assert common_id([CONTAINERD, CONTAINERD], "else") == MANIFEST
    assert common_id([CONTAINERD, zipped], "else") == "else"
    assert common_id([absent], "else") == "else"
