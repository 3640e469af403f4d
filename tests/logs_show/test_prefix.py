"""What ``--prefix`` takes: modes, and templates that can be filled in for every line."""

from __future__ import annotations

import pytest
from phalanx.controller.logs.prefix import MODES, filled, prefix_error
from phalanx.controller.logs.sources import Source


@pytest.mark.parametrize(
    "prefix",
    [
        *MODES,
        "{node}/{rank}",
        "[{case}:{step}] {lrank} {stream} ",
        "{rank:04d} ",
        "{node:>12}",
        "{node!r}",
        "{{{rank}}}",
        "{{}}",
    ],
)
def test_what_can_be_filled_in_is_taken(prefix: str) -> None:
    assert prefix_error(prefix) == ""


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("zz", "expected auto, host, rank, both, none or a text with {node}, {rank}"),
        ("hosts", "did you mean 'host'?"),
        ("", "expected auto"),
        ("{foo}", "'foo' is no field of a line; expected {node}, {rank}, {lrank}, {case}, {step}, {stream}"),
        ("{nodes}", "did you mean 'node'?"),
        ("{node", "its braces do not match"),
        ("node}", "its braces do not match"),
        ("{}", "'' is no field"),
        ("{0}", "'0' is no field"),
        ("{node.__class__}", "'node.__class__' is no field"),
        ("{node[0]}", "'node[0]' is no field"),
        ("{rank:zz}", "it cannot be filled in ("),
        ("{node:d}", "it cannot be filled in ("),
        ("{rank:c}", "it cannot be filled in ("),
        ("{node!x}", "it cannot be filled in ("),
        ("{node:{rank}}", "'{rank}' is no format of node"),
        ("{node:>9999999999}", "a width has up to three digits"),
    ],
)
def test_what_cannot_be_filled_in_says_why(prefix: str, why: str) -> None:
    assert why in prefix_error(prefix)


def test_fields_are_those_of_the_line() -> None:
    source = Source("", "node1", "demo", "main", 5, "err")
    text = filled("{case} {step} {node} {rank} {lrank} {stream}", source, 1)
    assert text == "demo main node1 5 1 stderr"
