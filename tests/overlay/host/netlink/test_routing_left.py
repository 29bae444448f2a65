"""What is left of agents that were killed, or runs next to others."""

from __future__ import annotations

import dataclasses

import pytest

from overlay.host.netlink.routing import Routing
from overlay.host.ownership import PROTOCOL
from overlay.host.tun import open_tun
from tests.overlay.host.netlink.agents import (
    ANSWERING,
    FULL,
    MAC,
    MARK,
    OVERLAY,
    Agent,
    our_routes,
    plan,
    route_of,
    start_and_kill,
)

pytestmark = pytest.mark.netns


def test_rules_for_answers_of_a_killed_agent_are_taken_over(host):
    start_and_kill(host, "ANSWERING")
    assert "from 203.0.113.80 lookup" in host.run("ip", "rule")
    before = host.run("ip", "rule"), host.run("ip", "-6", "rule")
    with host.entered(), Agent() as agent:
        agent.routing.read_back()
        agent.routing.apply(ANSWERING)
        assert (host.run("ip", "rule"), host.run("ip", "-6", "rule")) == before
        assert route_of(host, "198.51.100.7", "from", "203.0.113.80") == "overlay0"
        agent.routing.apply(OVERLAY)
        assert "203.0.113.80" not in host.run("ip", "rule")
        assert "throw" not in host.run("ip", "route", "show", "table", "all")


@pytest.mark.parametrize("wanted", [OVERLAY, FULL, ANSWERING], ids=["overlay", "full", "answering"])
def test_host_is_as_before_after_a_clean_stop(host, wanted):
    before = host.dump()

    with host.entered(), Agent() as agent:
        agent.routing.apply(wanted)
        assert host.dump() != before
        agent.routing.withdraw()

    assert host.dump() == before


def test_killed_agent_leaves_unreachable_routes_and_no_packet_gets_out(lab, host):
    container = lab.container(
        host, "web", "10.244.1.2/24", "fd00:244:1::2/64", gateways=("10.244.1.1", "fd00:244:1::1")
    )
    sniffer = host.sniff("eth0")

    start_and_kill(host, "FULL")

    targets = ("10.244.2.2", "fd00:244:2::2", "203.0.113.9", "2001:db8:9::9")
    answers = [container.run("ping", "-c1", "-W1", target, check=False) for target in targets]
    assert all("nreachable" in answer for answer in answers), answers
    assert all(line.startswith("unreachable") for version in (4, 6) for line in our_routes(host, version))
    assert not [
        frame
        for frame in sniffer.frames()
        if (frame[12:14] == b"\x08\x00" and frame[23] == 1)
        or (frame[12:14] == b"\x86\xdd" and frame[54] == 128)
    ]


def test_next_start_takes_over_what_a_killed_agent_left(host):
    before = host.dump()
    start_and_kill(host, "FULL")
    left = {line for version in (4, 6) for line in our_routes(host, version)}

    with host.entered(), Agent() as agent:
        assert agent.routing.read_back() == 5 + 3 + 3  # unreachable routes; rules of each kind
        agent.routing.apply(FULL)
        assert left < {line for version in (4, 6) for line in our_routes(host, version)}
        agent.routing.withdraw()

    assert host.dump() == before


def test_leftovers_that_the_next_start_does_not_want_are_removed(host):
    start_and_kill(host, "FULL")

    with host.entered(), Agent() as agent:
        agent.routing.read_back()
        agent.routing.apply(plan(["10.250.0.0/16"]))

        assert len(our_routes(host)) == 2
        assert not our_routes(host, 6)
        assert f"proto {PROTOCOL}" not in host.run("ip", "rule") + host.run("ip", "-6", "rule")


def test_leftovers_can_be_removed_without_a_tun(host):
    before = host.dump()
    start_and_kill(host, "FULL")

    with host.entered():
        routing = Routing("overlay0", None)
        routing.read_back()
        routing.withdraw()
        routing.close()

    assert host.dump() == before


def test_leftovers_of_another_interface_stay(host):
    start_and_kill(host, "FULL", "overlay1")
    left = host.dump()

    with host.entered(), Agent() as agent:
        assert agent.routing.read_back() == 0
        agent.routing.apply(plan(["10.250.0.0/16"], ["0.0.0.0/0"], fwmark=MARK))
        agent.routing.withdraw()

    assert host.dump() == left


def test_two_agents_side_by_side_keep_out_of_each_others_way(host):
    before = host.dump()
    one_plan = plan(["10.244.0.0/16"], ["0.0.0.0/0", "198.51.100.0/24"], fwmark=1)
    other_plan = plan(["10.250.0.0/16"], ["0.0.0.0/0"], addresses=("10.250.1.0/32",), fwmark=1)

    with host.entered(), Agent("overlay0") as one:
        one.routing.apply(one_plan)
        with_one = host.dump()
        with Agent("overlay1") as other:
            assert other.routing.read_back() == 0
            other.routing.apply(other_plan)
            other.routing.withdraw()
        assert host.dump() == with_one
        assert one.routing.read_back() == 6 + 4
        one.routing.withdraw()

    assert host.dump() == before


def test_persistent_tap_gets_its_ethernet_address_back(host):
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tap")
    host.run("ip", "link", "set", "overlay0", "address", "02:00:00:00:00:01")
    with host.entered():
        device = open_tun("overlay0", is_tap=True)
        routing = Routing("overlay0", device.index, is_persistent=True)
        routing.apply(dataclasses.replace(OVERLAY, mac=MAC))
        during = host.run("ip", "link", "show", "overlay0")
        routing.withdraw()
        routing.close()
        device.close()

    assert "02:00:00:00:00:07" in during
    assert "02:00:00:00:00:01" in host.run("ip", "link", "show", "overlay0")


def test_persistent_device_that_may_have_no_ipv6_has_it_for_as_long_as_it_is_ours(host):
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")
    host.run("sysctl", "-qw", "net.ipv6.conf.overlay0.disable_ipv6=1")
    with host.entered():
        device = open_tun("overlay0")
        routing = Routing("overlay0", device.index, is_persistent=True)

        routing.apply(OVERLAY)
        assert "fd00:244:1::" in host.run("ip", "address", "show", "overlay0")
        routing.withdraw()

        assert host.run("sysctl", "-n", "net.ipv6.conf.overlay0.disable_ipv6") == "1\n"
        routing.close()
        device.close()


@pytest.mark.parametrize("value", [0, 1])
def test_filter_of_a_persistent_device_is_left_to_its_administrator(host, value):
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")
    host.run("sysctl", "-qw", f"net.ipv4.conf.overlay0.rp_filter={value}")
    with host.entered():
        device = open_tun("overlay0")
        routing = Routing("overlay0", device.index, is_persistent=True)

        routing.apply(OVERLAY)

        assert host.run("sysctl", "-n", "net.ipv4.conf.overlay0.rp_filter") == f"{value}\n"
        routing.close()
        device.close()
