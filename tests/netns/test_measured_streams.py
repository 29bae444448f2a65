"""scripts/bench compare --congestion: the congestion control of the streams from their first packet on."""

from __future__ import annotations

import socket

import pytest

from scripts.benchmarks.congestion import controlled
from tests.netns.network import connect

ADDRESS = "192.0.2.2"


@pytest.fixture
def ends(lab):
    one, other = lab.namespace("one"), lab.namespace("other")
    lab.veth(one.end("eth0", "192.0.2.1/24"), other.end("eth0", f"{ADDRESS}/24"))
    return one, other


def controls(one, other):
    """Return the congestion control that both ends of a new connection report."""
    near, far = connect(one, other, ADDRESS)
    with near, far:
        return [
            each.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
            for each in (near, far)
        ]


def test_connections_are_under_the_wanted_control_at_both_ends_and_afterwards_as_before(ends):
    before = controls(*ends)
    wanted = "reno" if "reno" not in before else "cubic"

    with controlled(*ends, ADDRESS, wanted):
        during = controls(*ends)

    assert during == [wanted, wanted]
    assert controls(*ends) == before


def test_what_the_route_says_of_the_path_stays(ends):
    one, other = ends
    one.run("ip", "route", "change", "192.0.2.0/24", "dev", "eth0", "src", "192.0.2.1", "mtu", "1300")

    with controlled(one, other, ADDRESS, "reno"):
        during = one.run("ip", "route", "get", ADDRESS)

    assert "mtu 1300" in during
    assert one.run("ip", "route", "show", ADDRESS) == ""


def test_a_route_whose_gateway_is_the_address_itself_will_do(ends):
    one, other = ends
    one.run(
        "ip", "route", "change", "192.0.2.0/24", "via", ADDRESS, "dev", "eth0", "src", "192.0.2.1", "onlink"
    )

    with controlled(one, other, ADDRESS, "reno"):
        assert controls(one, other) == ["reno", "reno"]
