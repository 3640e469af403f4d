"""Whom a stripe reads from, and how fast: decisions without a socket."""

from __future__ import annotations

import pytest
from phalanx.agent.relay.parents import MOST_PARDONS, Known, Line
from phalanx.protocol.messages import Parent, Ticket
from phalanx.protocol.rate import BURST_S, Bucket

A, B, C = (Parent(name, "host", port, bytes(32)) for port, name in enumerate("abc", 1))


def test_parents_are_tried_in_order_and_then_again() -> None:
    line = Line(Known())
    assert line.current() is None
    assert not line.replace((A, B))
    assert line.current() is A
    assert line.leave(A, corrupt=False, reason="")
    assert line.current() is B
    assert line.leave(B, corrupt=False, reason="")
    assert line.current() is None
    assert line.begin_again()  # nothing came: that is told, once
    assert line.current() is A
    assert not line.leave(A, corrupt=False, reason="")  # that it failed is known
    assert not line.leave(B, corrupt=False, reason="")
    assert not line.begin_again()


def test_a_parent_that_gave_something_is_news_again_when_it_fails() -> None:
    line = Line(Known())
    line.replace((A,))
    line.reading = line.current()
    assert line.leave(A, corrupt=False, reason="")
    line.gave()
    assert not line.begin_again()
    assert line.leave(A, corrupt=False, reason="")
    assert line.begin_again()


def test_who_is_banned_is_passed_over_in_every_line() -> None:
    known = Known()
    line, other = Line(known), Line(known)
    line.replace((A, B))
    other.replace((A,))
    line.leave(A, corrupt=True, reason="")
    assert line.current() is B
    assert other.current() is None
    assert other.hopeless()
    other.replace((A, C))
    assert other.current() is C


def test_who_is_banned_is_pardoned_when_nobody_gives_anything_and_only_so_often() -> None:
    line = Line(Known())
    line.replace((A, B))
    for _ in range(MOST_PARDONS):
        line.leave(A, corrupt=True, reason="rubbish")
        assert line.current() is B
        line.gave()
        line.leave(B, corrupt=False, reason="gone")
        line.begin_again()
        assert line.current() is B  # it gave something
        line.leave(B, corrupt=False, reason="gone")
        line.begin_again()
        assert line.current() is A
    line.leave(A, corrupt=True, reason="rubbish")
    line.leave(B, corrupt=False, reason="gone")
    line.begin_again()
    assert line.current() is B
    assert line.verdict() == ""
    line.replace((A,))
    assert "(a: rubbish)" in line.verdict()
    line.replace(())
    assert line.verdict() == ""


def test_a_connection_is_kept_when_its_parent_comes_first_again() -> None:
    line = Line(Known())
    line.replace((A, B))
    line.reading = line.current()
    epoch = line.epoch
    assert line.replace((Parent("a", "host", 1, bytes(32), (Ticket(9, bytes(32)),)), C))
    assert line.epoch == epoch
    assert not line.replace((C, A))
    assert line.epoch > epoch
    assert not line.replace(())


def test_a_ticket_is_used_once_whoever_uses_it() -> None:
    known = Known()
    papers = Ticket(1, bytes(32)), Ticket(2, bytes(32))
    parent = Parent("a", "host", 1, b"", papers)
    assert [known.ticket(parent) for _ in range(3)] == [*papers, None]
    assert known.ticket(Parent("b", "host", 1, b"", papers)) == papers[0]


def test_a_bucket_lets_its_rate_through_and_a_short_burst() -> None:
    bucket = Bucket(rate=1000.0, now=0.0)
    assert bucket.take(100, 0.0) == pytest.approx(0.1)
    assert bucket.take(100, 0.1) == pytest.approx(0.1)
    assert bucket.take(int(1000 * BURST_S), 60.0) == 0.0  # what ran in while nobody took is not all kept
    assert bucket.take(100, 60.0) == pytest.approx(0.1)
    now, sent = 100.0, 0
    while now < 110.0:
        now += bucket.take(300, now)
        sent += 300
    assert sent == pytest.approx(10_000, rel=0.06)
