"""Questions to the agent about a flow."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from overlay.answers.explain import _flow, answer
from tests.peers.examples import peer, table

TABLE = table(peer("paris", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24"))


@pytest.fixture
def running():
    return SimpleNamespace(node=lambda: SimpleNamespace(table=TABLE), services={})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("tokyo", "fd00::1"), "tokyo (10.244.2.0) and fd00::1 are not of the same family"),
        (("fd00::1", "tokyo"), "fd00::1 and tokyo (10.244.2.0) are not of the same family"),
        (("10.244.2.7", "fd00::1"), "10.244.2.7 and fd00::1 are not of the same family"),
    ],
)
def test_two_families_are_refused_with_the_address_that_a_name_stands_for(running, asked, told):
    with pytest.raises(ValueError, match=r"are not of the same family") as refused:
        _flow(running, {"name": asked[0], "source": asked[1]})

    assert str(refused.value) == f"{told}: name two IPv4 addresses, or two IPv6 addresses"


@pytest.mark.parametrize(
    ("name", "size", "least"), [("10.244.2.7", 19, 20), ("fd00::1", 39, 40), ("fd00::1", 65_536, 40)]
)
def test_no_packet_is_smaller_than_its_header_or_larger_than_its_length_can_say(running, name, size, least):
    with pytest.raises(
        ValueError, match=rf"^{size} is not the size of an IPv[46] packet, .* bytes from {least} to 65535$"
    ):
        _flow(running, {"name": name, "size": size})

    assert _flow(running, {"name": name, "size": least}).size == least


@pytest.mark.parametrize("name", ["ff:ff:ff:ff:ff:ff", "01-00-5E-00-00-01", "00:00:00:00:00:00"])
def test_an_ethernet_address_of_many_is_refused_as_what_it_is(running, name):
    told = trio.run(answer, running, {"name": name}, None)

    assert told["error"].startswith(
        f"{name} is not the address of a single device; write that of the device itself"
    )


def test_address_with_a_zone_is_not_one_of_the_overlay(running):
    with pytest.raises(
        ValueError, match=r"^fe80::1%eth0 is link-local, and the overlay does not carry it: write"
    ):
        _flow(running, {"name": "fe80::1%eth0"})


def test_name_without_an_address_is_refused_with_what_to_write():
    hub = peer("hub")
    running = SimpleNamespace(
        node=lambda: SimpleNamespace(table=SimpleNamespace(peers={"hub": hub})), services={}
    )

    with pytest.raises(ValueError, match=r"^hub has no address on the overlay: write an address in place of"):
        _flow(running, {"name": "hub"})
