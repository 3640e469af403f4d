"""What the images benchmark reads off the cables, and what it refuses to measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import link_watch, servers
from benchmarks.crew import BenchmarkError
from benchmarks.image_lab import REFERENCE, make_image
from benchmarks.images import chosen
from benchmarks.link_watch import LinkWatch


class Cables:
    """Stands where a lab is asked for its traffic; says what it was told to, then the last of it."""

    def __init__(self, *received: int) -> None:
        self._received = list(received)

    def traffic(self) -> dict[str, tuple[int, int]]:
        received = self._received.pop(0) if len(self._received) > 1 else self._received[0]
        return {"login": (2 * received, 0), "n1": (0, received)}


def watch(*received: int) -> LinkWatch:
    """One that has made these readings."""
    cables: Any = Cables(*received)
    links = LinkWatch(cables)
    for _ in received[1:]:
        links.look()
    return links


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by one second with each look at it."""
    clock = iter(range(1000))
    monkeypatch.setattr(link_watch.time, "monotonic", lambda: float(next(clock)))


@pytest.mark.usefixtures("seconds")
def test_the_last_byte_is_that_of_all_which_a_node_received_and_not_of_the_size_of_the_image() -> None:
    links = watch(500, 500, 1000, 1500, 2500, 2501)
    assert links.received("n1") == 2001
    assert links.last_byte_s("n1") == 4.0


@pytest.mark.usefixtures("seconds")
def test_what_passed_before_the_watch_does_not_count() -> None:
    links = watch(10_000, 10_000, 11_000)
    assert (links.received("n1"), links.source_sent, links.last_byte_s("n1")) == (1000, 2000, 2.0)


def test_a_node_that_received_less_than_the_image_makes_the_measurement_worthless() -> None:
    links = watch(0, 900)
    links.check_whole(["n1"], 900)
    with pytest.raises(BenchmarkError, match=r"less than the 1000 bytes of the image: .*n1"):
        links.check_whole(["n1"], 1000)


def test_an_image_is_the_same_each_time_and_another_with_one_layer_changed(tmp_path: Path) -> None:
    first, again, other = (
        make_image(tmp_path / f"{number}.tar", 3, 1000, changed=changed)
        for number, changed in enumerate((0, 0, 2))
    )
    assert first.archive.read_bytes() == again.archive.read_bytes()
    assert first.id == again.id != other.id
    assert REFERENCE.encode() in first.archive.read_bytes()


def test_a_missing_registry_is_named_with_the_package_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(BenchmarkError, match="apt-get install docker-registry"),
        servers.registry("127.0.0.1", tmp_path / "image.tar", tmp_path, "image"),
    ):
        pass


def test_ways_are_chosen_by_name_or_by_group() -> None:
    assert chosen([]) == ("phalanx", "registry_pull", "copy_load", "sbcast", "crude_chain")
    assert chosen(["ours", "sbcast"]) == ("phalanx", "sbcast")
