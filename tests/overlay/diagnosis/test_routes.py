from __future__ import annotations

import contextlib
from ipaddress import ip_network

import pytest

from overlay.diagnosis.routes import QUESTIONS, SAMPLES
from overlay.provisioning.setup import HostSetup
from tests.overlay.provisioning.setup_bench import TOKYO, host, node, set_up

__all__ = ["host"]

pytestmark = pytest.mark.netns


def found(setup, node):
    """Return the findings about routes, each as its name and its sentence."""
    names = {"route_taken", "route_refused", "address_taken", "gateway_taken", "unknown"}
    return [(each.name, str(each)) for each in setup.findings(node) if each.name in names]


def command(sentence):
    return sentence.rpartition(": ")[2].partition("`")[2].partition("`")[0]


def add_bridge(host, name, *addresses):
    host.run("ip", "link", "add", "name", name, "type", "bridge")
    for address in addresses:
        host.run("ip", "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
    host.run("ip", "link", "set", name, "up")


def test_a_host_whose_routes_are_its_own_has_no_findings(host):
    add_bridge(host, "br0", "10.244.1.1/24")
    subnets = "10.244.2.0/24", "203.0.113.0/24", "224.0.0.0/4"
    with set_up(host, *subnets) as setup:
        assert found(setup, node(*subnets)) == []


@pytest.mark.parametrize(
    ("subnets", "address", "prefix"),
    [
        (("10.244.2.0/24",), "10.244.0.1/16", "10.244.2.0/24"),  # the overlay's own prefix
        (("10.244.2.0/24",), "10.244.2.1/24", "10.244.2.0/24"),  # the peer's subnet
        (("172.17.0.0/16",), "172.17.0.1/16", "172.17.0.0/16"),  # a subnet outside the overlay's prefix
        (("fd00:244:2::/64",), "fd00:244:2::1/64", "fd00:244:2::/64"),
    ],
)
def test_bridge_that_takes_a_peer_s_packets_is_named_with_the_remedy(host, subnets, address, prefix):
    add_bridge(host, "docker0", address)
    with set_up(host, *subnets) as setup:
        ((name, sentence),) = found(setup, node(*subnets))

    network = ip_network(address, strict=False)
    assert name == "route_taken"
    assert sentence.startswith(
        f"docker0 of this host has {network}, so packets to {prefix} of tokyo do not go"
    )
    assert '"bip" in /etc/docker/daemon.json' in sentence


def test_bridge_with_a_part_of_a_peer_s_subnet_is_named(host):
    add_bridge(host, "br-0123456789ab", "10.244.2.129/25")
    with set_up(host) as setup:
        ((_, sentence),) = found(setup, node())

    assert (
        "br-0123456789ab of this host has 10.244.2.128/25, so packets to that part of 10.244.2.0/24 of tokyo"
        in sentence
    )
    assert "docker network rm" in sentence


PARTS = {
    "10.244.2.64/26 via 192.0.2.254": "10.244.2.64/26, by 192.0.2.254 on eth0, so packets to that part of 10.244.2.0/24",
    "10.244.2.64/26 dev eth1": "10.244.2.64/26, by eth1, so packets to that part of 10.244.2.0/24 of tokyo",
    "10.244.2.64/26 via inet6 2001:db8::fe dev eth0": "by 2001:db8::fe on eth0, so packets to that part",
    "10.244.2.64/26 nexthop via 192.0.2.254 nexthop via 198.51.100.254": "by several gateways, so packets to that",
    "blackhole 10.244.2.64/26": "rejects packets to 10.244.2.64/26, which is part of 10.244.2.0/24 of tokyo",
    "10.244.2.64/26 via 192.0.2.254 table 99": "10.244.2.64/26, by 192.0.2.254 on eth0",
    "fd00:244:2:0:8000::/66 via 2001:db8::fe": "by 2001:db8::fe on eth0, so packets to that part of fd00:244:2::/64",
}


def test_route_to_a_part_of_a_peer_s_subnet_is_found_and_goes_with_the_command(host):
    subnets = ("10.244.2.0/24", "fd00:244:2::/64")
    host.run("ip", "rule", "add", "lookup", "99", "priority", "600")
    host.run(
        "ip", "route", "add", "10.244.2.128/26", "via", "192.0.2.254", "table", "98"
    )  # no rule leads there
    with set_up(host, *subnets) as setup:
        for route, part in PARTS.items():
            host.run("ip", "route", "add", *route.split())
            ((name, sentence),) = found(setup, node(*subnets))
            assert name == ("route_refused" if "blackhole" in route else "route_taken")
            assert part in sentence

            host.run(*command(sentence).split())

            assert found(setup, node(*subnets)) == []


def test_route_to_a_part_that_the_agent_made_or_that_is_another_s_is_not_named(host):
    """Of a subnet of this node inside a peer's, of an address of this host, and of a peer inside another's."""
    host.run("ip", "route", "add", "10.244.1.64/26", "via", "192.0.2.254")
    host.run("ip", "address", "add", "10.244.1.1/32", "dev", "lo")
    with set_up(host, "10.244.0.0/16", "10.244.2.0/24", "10.244.2.9/32") as setup:
        assert found(setup, node("10.244.0.0/16", "10.244.2.0/24", "10.244.2.9/32")) == []


def test_network_of_the_host_inside_a_peer_s_larger_one_is_meant(host):
    """For example a peer that has everything, or all of a company, behind it."""
    everything = ("10.244.2.0/24", "192.0.0.0/8", "0.0.0.0/0")
    with set_up(host, *everything) as setup:
        assert found(setup, node(*everything)) == []


def test_route_by_a_gateway_is_found_and_goes_with_the_command(host):
    host.run("ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.254")
    with set_up(host) as setup:
        ((name, sentence),) = found(setup, node())
        assert name == "route_taken"
        assert "its own route for 10.244.2.0/24, by 192.0.2.254 on eth0" in sentence

        host.run(*command(sentence).split())

        assert found(setup, node()) == []


def test_route_that_refuses_is_found(host):
    host.run("ip", "route", "add", "blackhole", "10.244.2.0/24")
    with set_up(host) as setup:
        ((name, sentence),) = found(setup, node())

    assert (name, "10.244.2.0/24 of tokyo" in sentence) == ("route_refused", True)
    assert "`ip route show match 10.244.2.1`" in sentence


def test_routing_rule_that_leads_elsewhere_is_found(host):
    host.run("ip", "route", "add", "default", "via", "192.0.2.254", "table", "52")
    host.run("ip", "rule", "add", "lookup", "52", "priority", "5270")
    with set_up(host) as setup:
        ((name, sentence),) = found(setup, node())

    assert name == "route_taken"
    assert "to eth0 by table 52" in sentence


def test_address_of_a_peer_that_this_host_has_is_found(host):
    host.run("ip", "address", "add", "10.244.2.7/32", "dev", "lo")
    with set_up(host, "10.244.2.7/32") as setup:
        ((name, sentence),) = found(setup, node("10.244.2.7/32"))

    assert name == "address_taken"
    assert "10.244.2.7/32 on lo" in sentence


def test_lan_of_the_host_that_holds_a_peer_s_endpoint_is_left_to_it_and_named(host):
    """Before, it was accepted, and packets of this host or its neighbours found no route any more."""
    lan, inside = node("10.244.2.0/24", "192.0.2.0/24"), {TOKYO}
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(lan, inside)

        assert "dev eth0" in host.run("ip", "route", "get", "192.0.2.9")
        ((_, sentence),) = found(setup, lan)
        assert "eth0 of this host has 192.0.2.0/24" in sentence


@pytest.mark.parametrize(
    ("subnet", "own", "neighbour"),
    [
        ("203.0.113.0/24", "203.0.113.1/24", "203.0.113.7"),
        ("2001:db8:7::/64", "2001:db8:7::1/64", "2001:db8:7::7"),
    ],
)
def test_lan_that_appears_later_wins_for_as_long_as_it_is_there(host, subnet, own, neighbour):
    host.run("ip", "-6", "route", "add", "default", "via", "2001:db8::fe")
    endpoint = (neighbour, 51820, 0, 0) if ":" in neighbour else (neighbour, 51820)
    wanted, endpoints = node("10.244.2.0/24", subnet), {("tokyo", endpoint)}
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, endpoints)
        assert "dev overlay0" in host.run("ip", "route", "get", neighbour)

        host.run("ip", "address", "add", own, "dev", "eth1")
        setup.adopt(wanted, endpoints)
        assert "dev eth1" in host.run("ip", "route", "get", neighbour)
        assert [name for name, _ in found(setup, wanted)] == ["route_taken"]

        host.run("ip", "address", "delete", own, "dev", "eth1")
        setup.adopt(wanted, endpoints)
        assert "dev overlay0" in host.run("ip", "route", "get", neighbour)
        assert found(setup, wanted) == []


def test_endpoint_that_moves_into_the_lan_does_not_take_it(host):
    wanted = node("10.244.2.0/24", "198.51.100.0/24")
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {TOKYO})
        assert "dev eth1" in host.run("ip", "route", "get", "198.51.100.7")

        setup.adopt(wanted, {("tokyo", ("198.51.100.9", 51820))})

        assert "dev eth1" in host.run("ip", "route", "get", "198.51.100.7")


def test_shorter_and_longer_prefixes_are_routed_by_their_length(host):
    subnets = ("192.0.2.128/25", "192.0.0.0/16")
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(node("10.244.2.0/24", *subnets), {("tokyo", ("192.0.2.130", 51820))})

        assert "dev overlay0" in host.run("ip", "route", "get", "192.0.2.131")
        assert "dev eth0" in host.run("ip", "route", "get", "192.0.2.9")
        assert "dev overlay0" in host.run("ip", "route", "get", "192.0.7.7")


def test_gateway_inside_a_peer_s_subnet_is_found_and_reached_after_the_command(host):
    """The host is on 192.0.2.0/24, a peer has a longer prefix in it, and the gateway is inside that prefix."""
    wanted = node("10.244.2.0/24", "192.0.2.240/28")
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {("tokyo", ("203.0.113.9", 51820))})
        ((name, sentence),) = found(setup, wanted)
        assert name == "gateway_taken"
        assert (
            "the gateway 192.0.2.254 of this host lies in the tunnel with tokyo, which has 192.0.2.240/28"
            in sentence
        )

        host.run(*command(sentence).split())

        assert found(setup, wanted) == []
        assert "dev eth0" in host.run("ip", "route", "get", "192.0.2.254")


def test_default_route_by_a_point_to_point_link_is_no_lan(host):
    host.run("ip", "route", "replace", "default", "dev", "eth1")
    host.run("ip", "route", "add", "0.0.0.0/1", "dev", "eth1")
    with set_up(host, "10.244.2.0/24", "0.0.0.0/0", "0.0.0.0/1") as setup:
        assert setup.plan.on_link == ()
        assert "dev overlay0" in host.run("ip", "route", "get", "203.0.113.9")
        assert "dev overlay0" in host.run("ip", "route", "get", "11.0.0.1")


def test_questions_to_the_kernel_are_bounded_whatever_the_number_of_prefixes(host):
    many = [str(each) for each in ip_network("10.244.128.0/17").subnets(new_prefix=28)]
    add_bridge(host, "docker0", "10.244.0.1/16")
    with set_up(host, *many) as setup:
        wanted, asked = node(*many), []
        routing = setup._routing
        match = routing.match
        routing.match = lambda *arguments: asked.append(arguments) or match(*arguments)
        ((_, sentence),) = found(setup, wanted)

    assert len(asked) <= (SAMPLES + 1) * QUESTIONS
    assert "docker0 of this host has 10.244.0.0/16" in sentence
    assert " more do not go into the tunnel" in sentence
