"""What only the cluster can fill in: a fixed set of names, filled once, in phalanx's own text alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.fleet.hardware import Hardware
from phalanx.controller.plan.launch_table import BY_NAME, ROWS, SHARED, UNNAMED
from phalanx.controller.plan.templates import NAMES, names_in, node_values, render, shown

ADDRESSES = ("10.0.0.1", "10.0.0.2")
#: Names of the table whose values are text of users: never beside a name that is filled in later.
OF_USERS = {"PRIMUS_CONFIG_PATH", "PRIMUS_CLI_EXTRA", "PRIMUS_BACKEND", "IMAGE", "BACKEND", "EXECUTOR"}


def texts() -> list[str]:
    rows = [*ROWS, UNNAMED]
    variables = [*SHARED, *(one for row in rows for one in (*row.variables, row.runner) if one)]
    return [text for one in variables for text in (one.one, one.many) if text]


def test_every_node_has_its_own_values_and_all_have_the_masters() -> None:
    text = "{NODE_RANK}/{NNODES} {NODE_ADDR} {MASTER_ADDR}:{MASTER_PORT} {NODE_ADDRS} {ON_FIRST_NODE}"
    assert [render(text, node_values(rank, ADDRESSES, "10.0.0.1", "29500")) for rank in (0, 1)] == [
        "0/2 10.0.0.1 10.0.0.1:29500 10.0.0.1,10.0.0.2 true",
        "1/2 10.0.0.2 10.0.0.1:29500 10.0.0.1,10.0.0.2 false",
    ]


def test_an_endpoint_of_ipv6_has_its_brackets() -> None:
    assert node_values(0, ("fd00::1",), "fd00::1", "1")["MASTER_ENDPOINT"] == "[fd00::1]:1"


def test_what_is_filled_in_is_not_looked_at_again_and_unknown_names_stay() -> None:
    assert render("{A} {B} ${C} {{A}} {a}", {"A": "{B}", "B": "b"}) == "{B} b ${C} {{B}} {a}"


@given(st.text(), st.dictionaries(st.sampled_from(sorted(NAMES)), st.text()))
def test_rendering_never_fails(text: str, values: dict[str, str]) -> None:
    assert isinstance(render(text, values), str)


def test_all_names_can_be_filled_in_and_shown() -> None:
    assert {*node_values(0, ADDRESSES, "a", "1"), *Hardware().values()} == set(NAMES)
    assert shown("{NNODES} {MASTER_PORT} {NODE_RANK}", 4, 0) == "4 <port> <per node>"
    assert shown("{MASTER_PORT} {MASTER_ENDPOINT}", 4, 7) == "7 <first node>:7"


def test_text_of_users_never_stands_in_a_template() -> None:
    assert any(names_in(text) & NAMES.keys() for text in texts())
    assert [text for text in texts() if names_in(text) & NAMES.keys() and names_in(text) & OF_USERS] == []


def test_every_name_of_a_launcher_is_one_launcher() -> None:
    names = [name for row in ROWS for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names)) == len(BY_NAME)
