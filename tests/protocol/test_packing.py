"""When chunks go packed: links, layers and CPUs of all kinds, played chunk by chunk in made-up time."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from phalanx.protocol.packing import TRIAL, Packing, Sent, read_tcp_info, room

CHUNK = 4 << 20
MBIT = 125_000.0


@dataclass
class Play:
    """A connection; rates in bytes a second: of its link, of this side's CPU when it packs, of the reader.

    ``part`` of the layer is left when it is packed. ``tried``: places of the chunks that were packed.
    """

    rate: float
    part: float = 0.36
    pack: float = 400e6
    reader: float = 10e9
    least_s: float = 0.0
    rule: Packing = field(default_factory=Packing)
    place: int = 0
    now: float = 0.0
    spent: float = 0.0
    acked: float = 0.0
    busy: float = 0.0
    full: float = 0.0
    tried: list[int] = field(default_factory=list)

    def send(self, chunks: int) -> Play:
        for _ in range(chunks):
            self._send()
        return self

    def _send(self) -> None:
        self.rule.saw(Sent(int(self.acked), self.busy, self.full), self.least_s)
        left, took = CHUNK, 0.0
        if self.rule.wants(CHUNK):
            self.tried.append(self.place)
            small = int(CHUNK * self.part)
            small = small if small <= room(CHUNK) else 0
            took = CHUNK / self.pack
            self.rule.packed(CHUNK, small, took)
            left = small or CHUNK
        wire, full = left / self.rate, max(0.0, CHUNK / self.reader - left / self.rate)
        self.busy, self.full, self.acked = self.busy + wire + full, self.full + full, self.acked + left
        self.now += max(took, wire + full)
        self.spent += took
        self.place += 1

    @property
    def part_tried(self) -> float:
        return len(self.tried) / self.place


def test_on_a_fast_link_nothing_is_ever_tried() -> None:
    assert Play(rate=25_000 * MBIT).send(1000).tried == []


@pytest.mark.parametrize("mbit", [10, 100, 1000, 2500])
def test_on_a_slow_link_what_gets_smaller_goes_packed_after_the_first_chunks(mbit: int) -> None:
    play = Play(rate=mbit * MBIT).send(200)
    assert play.tried[0] <= 8
    assert play.tried == list(range(play.tried[0], 200))
    as_it_is = 200 * CHUNK / play.rate
    assert play.now < 1.05 * as_it_is * max(play.part, play.rate / play.pack)


@pytest.mark.parametrize("mbit", [10, 100, 1000])
def test_what_does_not_get_smaller_is_tried_for_a_hundredth_of_the_time(mbit: int) -> None:
    play = Play(rate=mbit * MBIT, part=0.95, pack=1.5e9).send(3000)
    assert play.tried
    assert play.spent < 0.0101 * play.now + CHUNK / play.pack


def test_what_gets_a_tenth_smaller_only_is_not_worth_it() -> None:
    play = Play(rate=100 * MBIT, part=0.89).send(1000)
    assert not play.rule.on
    assert play.spent < 0.0101 * play.now + TRIAL * CHUNK / play.pack


def test_where_cpu_is_short_chunks_go_as_they_are() -> None:
    play = Play(rate=1000 * MBIT, pack=50e6).send(2000)
    assert not play.rule.on
    as_it_is = 2000 * CHUNK / play.rate
    assert play.now < 1.02 * as_it_is + TRIAL * CHUNK / play.pack


def test_a_reader_that_takes_in_no_more_gets_them_as_they_are() -> None:
    play = Play(rate=5000 * MBIT, reader=100e6).send(500)
    assert not play.rule.on
    assert play.part_tried < 0.1


def test_a_link_that_gets_slow_is_noticed() -> None:
    play = Play(rate=25_000 * MBIT).send(100)
    play.rate = 100 * MBIT
    play.send(50)
    assert 100 <= play.tried[0] <= 110
    assert play.tried == list(range(play.tried[0], 150))


def test_a_link_that_gets_fast_is_noticed() -> None:
    play = Play(rate=100 * MBIT).send(100)
    assert play.rule.on
    play.rate = 25_000 * MBIT
    play.send(100)
    assert not play.rule.on
    assert play.tried[-1] <= 140


def test_a_part_of_a_layer_that_does_not_get_smaller_costs_next_to_nothing() -> None:
    play = Play(rate=1000 * MBIT).send(100)
    play.part, play.pack = 1.0, 1.5e9
    began = play.now
    play.send(200)
    assert not play.rule.on
    assert play.now - began < 1.03 * 200 * CHUNK / play.rate
    play.part, play.pack = 0.36, 400e6
    play.send(100)
    assert play.rule.on
    assert any(300 <= place < 340 for place in play.tried)


def test_one_slow_moment_of_the_cpu_does_not_end_it() -> None:
    play = Play(rate=500 * MBIT).send(100)
    play.pack = 20e6
    play.send(1)
    play.pack = 400e6
    assert play.send(100).tried[-100:] == list(range(101, 201))


def test_the_first_chunk_may_be_slow_because_caches_are_cold() -> None:
    play = Play(rate=1000 * MBIT, pack=50e6)
    while not play.tried:
        play.send(1)
    play.pack = 400e6
    assert play.send(50).rule.on


def test_a_cap_on_the_rate_is_a_slow_link() -> None:
    play = Play(rate=25_000 * MBIT, least_s=1 / (100 * MBIT)).send(10)
    assert play.tried == list(range(10))


def test_a_kernel_that_counts_nothing_gets_nothing_packed() -> None:
    rule = Packing()
    for _ in range(100):
        rule.saw(read_tcp_info(bytes(160)))
        assert not rule.wants(CHUNK)


def test_what_the_kernel_says_is_read_from_its_places() -> None:
    info = bytearray(232)
    struct.pack_into("=Q", info, 120, 5_000_000)
    struct.pack_into("=QQQ", info, 168, 2_000_000, 500_000, 7)
    assert read_tcp_info(bytes(info)) == Sent(5_000_000, 2.0, 0.5)
    assert read_tcp_info(bytes(info[:183])) is None
