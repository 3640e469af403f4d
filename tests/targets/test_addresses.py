"""The controller listens where nodes can call, and says so when a wish names no such place."""

from __future__ import annotations

import pytest
from phalanx.controller.targets.addresses import AddressError, listen_addresses, machine_interfaces

LOGIN = {
    "lo": ["127.0.0.1", "::1"],
    "eno1": ["10.0.0.4", "fe80::1%eno1", "2001:db8::4"],
    "ib0": ["10.9.0.4"],
    "docker0": ["172.17.0.1"],
    "br-0123456789ab": ["172.18.0.1"],
    "usb0": ["169.254.3.4"],
}


def test_every_network_is_offered_but_loopback_link_local_and_bridges() -> None:
    assert listen_addresses(LOGIN) == ("10.0.0.4", "10.9.0.4", "2001:db8::4")


@pytest.mark.parametrize(
    ("wish", "addresses"),
    [
        ("ib0", ("10.9.0.4",)),
        ("10.0.0.4", ("10.0.0.4",)),
        ("10.0.0.0/8", ("10.0.0.4", "10.9.0.4")),
        ("docker0", ("172.17.0.1",)),
        ("2001:db8::/32", ("2001:db8::4",)),
        ("lo", ("127.0.0.1", "::1")),
    ],
)
def test_a_wish_narrows_the_choice_by_interface_address_or_network(
    wish: str, addresses: tuple[str, ...]
) -> None:
    assert listen_addresses(LOGIN, [wish]) == addresses


def test_two_wishes_add_up_in_their_order() -> None:
    assert listen_addresses(LOGIN, ["ib0", "10.0.0.0/8"]) == ("10.9.0.4", "10.0.0.4")


@pytest.mark.parametrize("wish", ["10.1.1.1", "hsn0", "not an address", "192.168.0.0/16"])
def test_a_wish_for_what_this_machine_has_not_is_refused_with_what_it_has(wish: str) -> None:
    with pytest.raises(AddressError, match=r"cannot listen on .*ib0 10\.9\.0\.4"):
        listen_addresses(LOGIN, ["ib0", wish])


def test_a_machine_with_bridges_only_offers_them() -> None:
    assert listen_addresses({"lo": ["127.0.0.1"], "virbr0": ["192.168.122.1"]}) == ("192.168.122.1",)


def test_a_machine_without_networks_says_that() -> None:
    with pytest.raises(AddressError, match="beside loopback"):
        listen_addresses({"lo": ["127.0.0.1"]})


def test_the_interfaces_of_this_machine_are_found() -> None:
    assert "127.0.0.1" in machine_interfaces()["lo"]
