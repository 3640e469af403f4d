"""Whether an image fits: the cache, the engine, and one disk that must hold both."""

from __future__ import annotations

import pytest
from phalanx.controller.fleet.events import LayersOnNode
from phalanx.controller.images.room import RESERVE_BYTES, too_little

GB = 10**9
SIZES = [5 * GB] * 8
#: What the engine takes of these layers, and once more the largest as it came.
LOADS = 49 * GB
EVERY = tuple(range(8))


def held(
    free: int, engine: int = 1000 * GB, cached: tuple[int, ...] = (), loaded: int = 0, one_disk: bool = False
) -> LayersOnNode:
    return LayersOnNode("n1", False, loaded, cached, True, free, engine, one_disk=one_disk)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (held(40 * GB + RESERVE_BYTES, LOADS), ""),
        (held(40 * GB), "40000000000 bytes and 67108864 in reserve are needed in its cache, 40000000000 are"),
        (held(41 * GB, LOADS - 1), "its engine needs 49000000000 bytes, 48999999999 are free"),
        (held(40 * GB + LOADS + RESERVE_BYTES, one_disk=True), ""),
        (held(40 * GB + LOADS, one_disk=True), "40000000000 bytes in its cache, 49000000000 for its engine"),
        (held(52 * GB, 52 * GB, one_disk=True), "are needed on one disk, 52000000000 are free"),
        (held(LOADS + RESERVE_BYTES, LOADS, EVERY, one_disk=True), ""),
        (held(LOADS, LOADS, EVERY, one_disk=True), "0 bytes in its cache, 49000000000 for its engine"),
        (held(16 * GB, cached=EVERY[:6], loaded=7, one_disk=True), ""),
        (held(15 * GB, cached=EVERY[:6], loaded=7, one_disk=True), "5000000000 bytes in its cache, 10500000"),
        (held(RESERVE_BYTES, 0, loaded=8, one_disk=True), ""),
    ],
)
def test_an_image_needs_room_in_the_cache_and_in_the_engine_and_for_both_on_one_disk(
    there: LayersOnNode, words: str
) -> None:
    found = too_little(SIZES, there)
    assert words in found
    assert bool(words) == bool(found)


def test_a_layer_that_comes_again_travels_once_and_is_twice_in_the_engine() -> None:
    twice, loads = (5 * GB, 20 * GB, 5 * GB), 53 * GB
    fits = held(25 * GB + RESERVE_BYTES, loads)
    assert too_little(twice, fits, repeated=(0,)) == ""
    assert "30000000000 bytes" in too_little(twice, fits)
    assert "its engine needs" in too_little(twice, held(25 * GB + RESERVE_BYTES, loads - 1), (0,))
    above = held(25 * GB + RESERVE_BYTES, loads, loaded=1)
    assert too_little(twice, above, repeated=(0,)) == "", "of a layer in the engine, the second one comes"
