"""What requests mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest
from phalanx.agent.workload_calls import Barrier, Get, Help, Metric, Put, Ready, Refused, read_call

ONE, FOUR = (3,), (4, 5, 6, 7)


def test_a_node_with_one_rank_needs_no_rank() -> None:
    assert read_call("POST", "/barrier/go", "", b"", ONE) == Barrier("go", 3, 0, None, 3600.0)


def test_the_rank_comes_by_parameter_or_by_header_and_the_parameter_wins() -> None:
    assert read_call("POST", "/ready", "5", b"", FOUR) == Ready(5)
    assert read_call("POST", "/ready?rank=6", "5", b"", FOUR) == Ready(6)


def test_a_barrier_takes_count_generation_and_timeout() -> None:
    call = read_call("GET", "/barrier/warm%20up/a?rank=4&count=2&generation=7&timeout=1.5", "", b"", FOUR)
    assert call == Barrier("warm up/a", 4, 2, 7, 1.5)


def test_keys_may_hold_slashes() -> None:
    assert read_call("PUT", "/kv/router/0/address", "", b"\x00v", FOUR) == Put("router/0/address", b"\x00v")
    assert read_call("GET", "/kv/router/0/address?wait=2", "", b"", FOUR) == Get("router/0/address", 2.0)


def test_a_metric_comes_as_parameter_or_as_body() -> None:
    assert read_call("POST", "/metric/loss?value=0.5&unit=nat", "", b"", ONE) == Metric(3, "loss", 0.5, "nat")
    assert read_call("PUT", "/metric/loss", "", b" 1e3\n", ONE) == Metric(3, "loss", 1000.0, "")


def test_the_root_is_help() -> None:
    assert read_call("GET", "/", "", b"", FOUR) == Help()


@pytest.mark.parametrize(
    ("method", "target", "status", "words"),
    [
        ("POST", "/barrier/go", 400, "this node has the ranks 4, 5, 6, 7: say which one calls"),
        ("POST", "/barrier/go?rank=0", 400, "'0' is no rank of this node; it has 4, 5, 6, 7"),
        ("POST", "/barrier/go?rank=-4", 400, "is no rank of this node"),
        ("POST", "/barrier/go?rank=٤", 400, "is no rank of this node"),
        ("POST", "/barrier/?rank=4", 400, "the barrier has no name"),
        ("POST", "/barrier/a%0ab?rank=4", 400, "printable"),
        ("POST", f"/barrier/{'x' * 256}?rank=4", 400, "at most 255"),
        ("POST", "/barrier/go?rank=4&count=0", 400, "count must be a whole number from 1"),
        ("POST", "/barrier/go?rank=4&generation=1.0", 400, "generation must be a whole number"),
        ("POST", "/barrier/go?rank=4&timeout=nan", 400, "timeout must be seconds"),
        ("POST", "/barrier/go?rank=4&timeout=-1", 400, "timeout must be seconds"),
        ("POST", "/barrier/go?rank=4&time=5", 400, "'time' means nothing here; known are rank, count"),
        ("DELETE", "/barrier/go?rank=4", 405, "use POST"),
        ("GET", "/ready?rank=4", 405, "use POST"),
        ("GET", "/kv/", 400, "the key has no name"),
        ("GET", "/kv/a?wait=forever", 400, "wait must be seconds"),
        ("POST", "/metric/loss?rank=4", 400, "must be a finite number"),
        ("POST", "/metric/loss?rank=4&value=inf", 400, "must be a finite number"),
        ("POST", f"/metric/loss?rank=4&value=1&unit={'u' * 65}", 400, "unit is longer"),
        ("GET", "/barriers/go", 404, "there is no /barriers"),
        ("GET", "/ready/4", 404, "there is no /ready"),
        ("GET", "//[", 400, "cannot read the request target"),
        ("GET", "/kv/a?" + "&".join(f"a{i}=1" for i in range(17)), 400, "cannot read the request target"),
    ],
)
def test_a_request_that_means_nothing_is_told_why(method: str, target: str, status: int, words: str) -> None:
    with pytest.raises(Refused) as caught:
        read_call(method, target, "", b"", FOUR)
    assert caught.value.status == status
    assert words in str(caught.value)
