"""Where the kernel sends a packet, according to a real one."""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_address, ip_network

import pytest

from overlay.host.netlink.route_lookup import RouteLookup, RouteOutcome, RouteQuery
from tests.netns.topology import _requirements, lab

__all__ = ["_requirements", "lab"]
pytestmark = pytest.mark.netns


@pytest.fixture
def host(lab):
    """A host between two networks, with a route of each kind."""
    host = lab.namespace("host")
    host.ip(
        "link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up",
        "address add 192.0.2.1/24 dev eth0", "address add 198.51.100.1/24 dev eth1",
        "route add 10.1.0.0/16 via 192.0.2.9 mtu 1300 metric 77", "route add unreachable 10.2.0.0/16",
        "route add blackhole 10.3.0.0/16", "route add prohibit 10.4.0.0/16", "route add 10.5.0.0/16 dev eth1 table 99",
        "rule add fwmark 7 lookup 99",
    )  # fmt: skip
    host.sysctl("net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.eth1.rp_filter=1", "net.ipv4.ip_forward=1")
    return host


def ask(host, destination, source=None, **fields):
    with host.entered(), closing(RouteLookup()) as ways:
        return ways.of(
            RouteQuery(ip_address(destination), None if source is None else ip_address(source), **fields)
        )


def test_a_route_is_told_whole(host):
    way = ask(host, "10.1.2.3")

    assert (way.outcome, way.interface, way.network) == (RouteOutcome.OUT, "eth0", ip_network("10.1.0.0/16"))
    assert (way.table, way.metric, way.mtu) == (254, 77, 1300)
    assert (way.gateway, way.source) == (ip_address("192.0.2.9"), ip_address("192.0.2.1"))


@pytest.mark.parametrize(
    ("destination", "outcome"),
    [
        ("192.0.2.1", RouteOutcome.HERE),
        ("10.2.0.1", RouteOutcome.UNREACHABLE),
        ("10.3.0.1", RouteOutcome.DISCARDED),
        ("10.4.0.1", RouteOutcome.PROHIBITED),
        ("203.0.113.1", RouteOutcome.NOWHERE),
        ("2001:db8::1", RouteOutcome.NOWHERE),
        ("192.0.2.255", RouteOutcome.OUT),
        ("10.1.255.255", RouteOutcome.OUT),
    ],
)
def test_what_becomes_of_a_packet_is_told(host, destination, outcome):
    assert ask(host, destination).outcome is outcome


def test_rules_and_marks_count(host):
    assert ask(host, "10.5.0.1").outcome is RouteOutcome.NOWHERE
    assert ask(host, "10.5.0.1", fwmark=7).table == 99


def test_a_packet_that_comes_in_is_forwarded_unless_the_reverse_path_check_drops_it(host):
    assert ask(host, "10.1.0.1", "198.51.100.7", enters="eth1").interface == "eth0"
    assert ask(host, "192.0.2.1", "198.51.100.7", enters="eth1").outcome is RouteOutcome.HERE
    assert ask(host, "10.1.0.1", "192.0.2.7", enters="eth1").outcome in {
        RouteOutcome.DISCARDED,
        RouteOutcome.REVERSE_PATH,
    }
    host.sysctl("net.ipv4.ip_forward=0")
    assert ask(host, "10.1.0.1", "198.51.100.7", enters="eth1").outcome is RouteOutcome.UNREACHABLE
