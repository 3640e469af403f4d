"""Who may stand at the door, and who goes when it is full."""

from __future__ import annotations

from phalanx.controller.fleet.admission import Door


def test_a_flood_from_one_source_evicts_only_its_own() -> None:
    door: Door[str] = Door(most=8)
    honest = [f"node{number}" for number in range(4)]
    for name in honest:
        assert door.arrive(name, name) is None
    evicted = [door.arrive("flood", f"flood{number}") for number in range(1000)]
    assert {source for source, _ in filter(None, evicted)} == {"flood"}
    assert set(honest) <= set(door.waiting())
    assert len(door) == 8


def test_the_oldest_of_the_worst_source_goes_first() -> None:
    door: Door[str] = Door(most=2)
    door.arrive("flood", "first")
    door.arrive("flood", "second")
    assert door.arrive("flood", "third") == ("flood", "first")
    assert door.arrive("flood", "fourth") == ("flood", "second")


def test_one_that_proved_itself_takes_no_room() -> None:
    door: Door[str] = Door(most=1)
    door.arrive("a", "agent")
    door.leave("a", "agent")
    door.leave("a", "agent")
    assert len(door) == 0
    assert door.arrive("b", "other") is None
