from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import signal
import socket
import subprocess
import sys
import time
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

import pytest

from overlay.errors import HostError
from overlay.host.netlink.routes import METRIC
from overlay.host.netlink.routing import Routing
from overlay.host.netlink.rtnetlink import RTM_DELROUTE, RTM_NEWROUTE
from overlay.host.netlink.watch import RTMGRP_IPV4_ROUTE
from overlay.host.ownership import PROTOCOL, number_of
from overlay.host.plan import HostPlan
from overlay.host.tun import open_tun
from overlay.linux import NETLINK_HEADER
from tests.netns.topology import wait_until

pytestmark = pytest.mark.netns

MARK = 0x51820


def networks(*texts):
    return tuple(ip_network(text) for text in texts)


def plan(
    routes=(),
    policy_routes=(),
    addresses=("10.244.1.0/32", "fd00:244:1::/128"),
    mtu=1420,
    fwmark=None,
    far=(),
    on_link=(),
):
    return HostPlan(
        mtu,
        tuple(ip_interface(address) for address in addresses),
        networks(*routes),
        networks(*policy_routes),
        fwmark,
        tuple(ip_address(each) for each in far),
        on_link=networks(*on_link),
    )


OVERLAY = plan(["10.244.0.0/16", "192.168.77.0/24", "fd00:244::/48"])
FULL = plan(["10.244.0.0/16", "fd00:244::/48"], ["0.0.0.0/0", "::/0", "198.51.100.0/24"], fwmark=MARK)

ANSWERING = dataclasses.replace(
    OVERLAY,
    held=(ip_interface("203.0.113.80/32"), ip_interface("2001:db8:9::80/128")),
    returned=(ip_address("203.0.113.80"), ip_address("203.0.113.81"), ip_address("2001:db8:9::80")),
    inside=networks("10.244.1.0/24", "fd00:244:1::/64"),
)


class Agent:
    """A tun and its routing in a namespace that the calling thread has entered."""

    def __init__(self, interface="overlay0", *, is_tap=False):
        self.tun = open_tun(interface, is_tap=is_tap)
        self.routing = Routing(interface, self.tun.index)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.routing.close()
        self.tun.close()

    def destinations(self):
        """Return where the packets that are waiting in the tun want to go."""
        found = []
        while True:
            try:
                import os

                packet = os.read(self.tun.descriptor, 65600)[10:]
            except BlockingIOError:
                return found
            found.append(str(ip_address(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])))


@pytest.fixture
def host(lab):
    """A host with an underlay, a default route, and things of others that must stay as they are."""
    host, underlay = lab.namespace("host"), lab.namespace("underlay")
    lab.veth(
        host.end("eth0", "192.0.2.1/24", "2001:db8::1/64"),
        underlay.end("eth0", "192.0.2.254/24", "2001:db8::fe/64"),
    )
    lab.bridge(host, "br0", "10.244.1.1/24", "fd00:244:1::1/64")
    for route in (
        "default via 192.0.2.254",
        "default via 2001:db8::fe",
        "192.168.77.0/24 via 192.0.2.254 metric 6000",  # one of our prefixes, worse
        "192.168.78.0/24 via 192.0.2.254",
        "unreachable 172.16.0.0/12 metric 1000",
        "203.0.113.0/24 via 192.0.2.254 table 99",
    ):
        host.run("ip", *("-6" if "::" in route else "-4", "route", "add", *route.split()))
    host.run("ip", "rule", "add", "from", "192.0.2.1", "lookup", "99", "priority", "500")
    # The kernel makes rules of its own visible with the first that anybody adds.
    host.run("ip", "-6", "rule", "add", "from", "2001:db8::1", "lookup", "99", "priority", "500")
    for gateway in ("192.0.2.254", "2001:db8::fe"):  # neighbours are known: nothing waits for them later
        wait_until(
            lambda gateway=gateway: "1 received" in host.run("ping", "-c1", "-W1", gateway, check=False)
        )
    wait_until(lambda: "tentative" not in host.run("ip", "-6", "address"))
    return host


def our_routes(host, version=4):
    return host.run("ip", f"-{version}", "route", "show", "table", "all", "proto", str(PROTOCOL)).splitlines()


def start_and_kill(host, expression, interface="overlay0"):
    """Have another process apply the plan *expression*, and kill it so that it cannot clean up."""
    code = (
        "import sys, time; from tests.overlay.host.netlink.test_routing import *\n"
        f"agent = Agent({interface!r}); agent.routing.read_back(); agent.routing.apply({expression})\n"
        "print('ready', flush=True); time.sleep(100)"
    )
    process = host.popen(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: interface not in host.run("ip", "link"))


def test_interface_is_up_with_its_addresses_and_nothing_else(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)

        link = host.run("ip", "-o", "link", "show", "overlay0")
        addresses = host.run("ip", "-o", "address", "show", "overlay0")
        filters = host.run("sysctl", "-n", "net.ipv4.conf.overlay0.rp_filter").strip()

    assert re.search(r"<.*\bUP\b.*> mtu 1420 .* qlen 1000", link)
    assert re.findall(r"inet6? (\S+)", addresses) == ["10.244.1.0/32", "fd00:244:1::/128"]
    assert "tentative" not in addresses
    assert filters == "2"


MAC = bytes([2, 0, 0, 0, 0, 7])


def test_a_tap_has_its_ethernet_address_and_asks_from_a_link_local_one(host):
    with host.entered(), Agent(is_tap=True) as agent:
        agent.routing.apply(dataclasses.replace(OVERLAY, mac=MAC))

        link = host.run("ip", "-o", "link", "show", "overlay0")
        addresses = host.run("ip", "-o", "address", "show", "overlay0")

    assert "link/ether 02:00:00:00:00:07" in link
    assert "fe80::ff:fe00:7/64" in addresses


def test_a_tap_without_addresses_has_no_link_local_one(host):
    with host.entered(), Agent(is_tap=True) as agent:
        agent.routing.apply(HostPlan(1404, mac=MAC))

        link = host.run("ip", "-o", "link", "show", "overlay0")
        addresses = host.run("ip", "-o", "address", "show", "overlay0")

    assert re.search(r"<.*\bUP\b.*> mtu 1404", link)
    assert "inet" not in addresses


def test_another_ethernet_address_is_given_at_once(host):
    with host.entered(), Agent(is_tap=True) as agent:
        agent.routing.apply(dataclasses.replace(OVERLAY, mac=MAC))
        agent.routing.apply(dataclasses.replace(OVERLAY, mac=bytes([2, 0, 0, 0, 0, 8])))

        assert "link/ether 02:00:00:00:00:08" in host.run("ip", "-o", "link", "show", "overlay0")


def test_each_route_has_an_unreachable_twin_and_the_own_source(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(plan(["10.244.0.0/16", "fd00:244::/48"]))

        number = number_of("overlay0")
        assert [line.split() for line in our_routes(host)] == [
            f"10.244.0.0/16 dev overlay0 scope link src 10.244.1.0 metric {METRIC}".split(),
            f"unreachable 10.244.0.0/16 metric {number}".split(),
        ]
        assert [line.split()[:8] for line in our_routes(host, 6)] == [
            f"fd00:244::/48 dev overlay0 src fd00:244:1:: metric {METRIC} pref".split(),
            f"unreachable fd00:244::/48 dev lo metric {number} pref medium".split(),
        ]


def route_of(host, to, *options):
    return (
        host.run("ip", *("-6" if ":" in to else "-4", "route", "get", to, *options))
        .split(" dev ")[1]
        .split()[0]
    )


def test_answers_from_a_held_address_go_into_the_tun_but_to_what_is_behind_the_host(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(ANSWERING)

        for to, answering in (("198.51.100.7", "203.0.113.80"), ("2001:db8:7::7", "2001:db8:9::80")):
            assert route_of(host, to) == "eth0"
            assert route_of(host, to, "from", answering) == "overlay0"
            assert route_of(host, to, "mark", str(number_of("overlay0"))) == "overlay0"
        assert route_of(host, "192.0.2.7", "from", "203.0.113.80") == "overlay0"  # on the LAN all the same
        assert route_of(host, "10.244.1.9", "from", "203.0.113.80") == "br0"
        assert route_of(host, "fd00:244:1::9", "from", "2001:db8:9::80") == "br0"
        # What is translated has another source, and what comes out of the tun on a director is on its way to clients.
        assert "from 203.0.113.81" not in host.run("ip", "rule")


def test_answers_go_the_way_of_everything_again_when_nothing_is_returned(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        before = host.dump()
        agent.routing.apply(ANSWERING)
        agent.routing.apply(OVERLAY)

        assert host.dump() == before


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


def test_routes_of_others_stay_while_ours_are_there(host):
    before = {line for lines in host.dump().values() for line in lines}

    with host.entered(), Agent() as agent:
        agent.routing.apply(FULL)

        assert before <= {line for lines in host.dump().values() for line in lines}


def test_route_of_somebody_else_for_the_same_prefix_goes_on_to_win(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(plan(["192.168.78.0/24", "192.168.77.0/24"]))

        assert "dev eth0" in host.run("ip", "route", "get", "192.168.78.1")
        assert "dev overlay0" in host.run("ip", "route", "get", "192.168.77.1")


def test_route_with_our_metric_is_not_replaced_and_named(host):
    host.run("ip", "route", "add", "10.250.0.0/16", "via", "192.0.2.254", "metric", str(METRIC))
    before = host.run("ip", "route")

    with host.entered(), Agent() as agent:
        with pytest.raises(
            HostError, match=r"10\.250\.0\.0/16 has a route with our metric already"
        ) as raised:
            agent.routing.apply(plan(["10.250.0.0/16", "10.251.0.0/16"]))
        agent.routing.withdraw()

    assert isinstance(raised.value.__cause__, OSError)
    assert host.run("ip", "route") == before


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


def test_everything_but_marked_datagrams_goes_into_the_tunnel(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(FULL)
        sniffer = host.sniff("eth0")
        agent.destinations()

        for target in ("203.0.113.9", "2001:db8:9::9", "192.0.2.254", "10.244.2.2", "198.51.100.7"):
            send(target)
            send(target, MARK)

        inside, outside = agent.destinations(), destinations_of(sniffer.frames())

    assert inside == ["203.0.113.9", "2001:db8:9::9", *["10.244.2.2"] * 2, "198.51.100.7"]
    assert outside == ["203.0.113.9", "2001:db8:9::9", *["192.0.2.254"] * 2, "198.51.100.7"]


def test_main_table_wins_where_it_is_more_specific_than_a_policy_route(host):
    host.run("ip", "route", "add", "198.51.0.0/16", "via", "192.0.2.254")
    host.run("ip", "route", "add", "198.51.100.128/25", "via", "192.0.2.254")
    host.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.254")

    with host.entered(), Agent() as agent:
        agent.routing.apply(FULL)

        assert "dev eth0" in host.run("ip", "route", "get", "198.51.1.1")  # longer than 0.0.0.0/0
        assert "dev eth0" in host.run("ip", "route", "get", "198.51.100.129")  # longer than 198.51.100.0/24
        assert "dev overlay0" in host.run("ip", "route", "get", "198.51.100.1")
        assert "dev overlay0" in host.run("ip", "route", "get", "203.0.113.1")
        assert "dev eth0" in host.run("ip", "route", "get", "198.51.100.1", "mark", str(MARK))
        assert "dev br0" in host.run("ip", "route", "get", "10.244.1.7")


LAN = ("192.0.2.0/24", "2001:db8::/64")


@pytest.mark.parametrize("gateway", ["198.51.100.0/24", "2001:db8:1::/64"])
def test_own_network_of_the_host_wins_over_a_policy_route_and_no_route_by_a_gateway_does(host, gateway):
    via = "2001:db8::fe" if ":" in gateway else "192.0.2.254"
    host.run("ip", "route", "add", gateway, "via", via)
    wanted = plan([], [*LAN, gateway, "0.0.0.0/0", "::/0"], fwmark=MARK, on_link=LAN)

    with host.entered(), Agent() as agent:
        assert set(LAN) <= {str(link.network) for link in agent.routing.links()}
        assert gateway not in {str(link.network) for link in agent.routing.links()}
        agent.routing.apply(wanted)

        assert "dev eth0" in host.run("ip", "route", "get", "192.0.2.9")
        assert "dev eth0" in host.run("ip", "route", "get", "2001:db8::9")
        assert "dev overlay0" in host.run("ip", "route", "get", gateway.replace("0/", "7/").partition("/")[0])
        assert "dev overlay0" in host.run("ip", "route", "get", "203.0.113.9")


def test_network_of_the_host_that_comes_and_goes_changes_one_rule(host):
    by_policy = plan([], [LAN[0], "0.0.0.0/0"], fwmark=MARK)
    with host.entered(), Agent() as agent:
        agent.routing.apply(by_policy)
        before = host.dump()

        agent.routing.apply(dataclasses.replace(by_policy, on_link=networks(LAN[0])))
        assert "lookup main suppress_prefixlength 23" in host.run("ip", "rule")
        assert "lookup main suppress_prefixlength 24" not in host.run("ip", "rule")
        agent.routing.read_back()
        agent.routing.apply(by_policy)

        assert host.dump() == before


def test_links_are_networks_without_a_gateway_and_not_the_default_by_one(host):
    host.run(
        "ip", "route", "add", "10.99.0.0/16", "nexthop", "via", "192.0.2.253", "nexthop", "via", "192.0.2.252"
    )
    host.run("ip", "route", "add", "10.98.0.0/16", "dev", "eth0", "metric", "7")
    host.run("ip", "route", "add", "10.97.0.0/16", "via", "inet6", "2001:db8::fe", "dev", "eth0")
    host.run("ip", "route", "add", "10.96.0.0/16", "dev", "eth0", "table", "99")

    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        found = {str(link.network): link.metric for link in agent.routing.links()}

    assert found == {
        "192.0.2.0/24": 0,
        "10.244.1.0/24": 0,
        "10.98.0.0/16": 7,
        "2001:db8::/64": 256,
        "fd00:244:1::/64": 256,
    }


def test_links_of_a_host_without_routes_are_none(lab):
    bare = lab.namespace("bare")
    with bare.entered(), contextlib.closing(Routing("overlay0", None)) as routing:
        assert routing.links() == []


def test_second_apply_changes_nothing(host):
    with host.entered(), Agent() as agent, Events() as events:
        agent.routing.apply(OVERLAY)
        events.read()

        agent.routing.apply(OVERLAY)

        assert events.read() == []


def test_apply_changes_only_the_difference_and_adds_before_it_removes(host):
    with host.entered(), Agent() as agent, Events() as events:
        agent.routing.apply(plan(["10.244.0.0/16", "10.250.0.0/16"]))
        events.read()

        agent.routing.apply(plan(["10.244.0.0/16", "10.251.0.0/16"]))

        assert events.read() == [RTM_NEWROUTE] * 2 + [RTM_DELROUTE] * 2


def test_new_own_address_becomes_the_source_without_a_moment_without_route(host):
    with host.entered(), Agent() as agent, Events() as events:
        agent.routing.apply(plan(["10.244.0.0/16"]))
        events.read()

        agent.routing.apply(plan(["10.244.0.0/16"], addresses=["10.244.9.0/32"]))

        assert "src 10.244.9.0" in host.run("ip", "route", "get", "10.244.2.2")
        assert "10.244.1.0" not in host.run("ip", "address")
        assert RTM_DELROUTE not in events.read(table=254)


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


PAIRS = r"inet6? (\S+) (?:peer (\S+) )?.*scope global"


def test_point_to_point_link_has_the_far_end_beside_each_address(host):
    """As ``ip address add A peer B`` does, but for the route, which is ours."""
    with host.entered(), Agent() as agent:
        agent.routing.apply(plan(["10.244.0.0/16"], far=["10.244.2.0", "fd00:244:2::"]))

        shown = host.run("ip", "-o", "address", "show", "overlay0")
        assert re.findall(PAIRS, shown) == [
            ("10.244.1.0", "10.244.2.0/32"),
            ("fd00:244:1::", "fd00:244:2::/128"),
        ]
        assert "10.244.2.0" not in host.run("ip", "route")

        agent.routing.withdraw()
        assert host.run("ip", "-o", "address", "show", "overlay0") == ""


def test_new_own_address_of_a_link_outlives_the_old_one(host):
    """The kernel takes a second address with the same far end for a secondary, which goes with the first."""
    with host.entered(), Agent() as agent, Events() as events:
        agent.routing.apply(plan(["10.244.0.0/16"], addresses=["10.244.1.0/32"], far=["10.244.2.0"]))
        events.read()

        agent.routing.apply(plan(["10.244.0.0/16"], addresses=["10.244.9.0/32"], far=["10.244.2.0"]))

        shown = host.run("ip", "-o", "address", "show", "overlay0")
        assert re.findall(PAIRS, shown) == [("10.244.9.0", "10.244.2.0/32")]
        assert "src 10.244.9.0" in host.run("ip", "route", "get", "10.244.2.2")
        assert RTM_DELROUTE not in events.read(table=254)


def test_kernels_route_to_an_ipv6_far_end_outlives_another_own_address(host):
    with host.entered(), Agent() as agent:
        for own in ("fd00:244:1::/128", "fd00:244:9::/128"):
            agent.routing.apply(plan(["fd00:244::/32"], addresses=[own], far=["fd00:244:2::"]))

            assert "fd00:244:2:: dev overlay0 proto kernel" in host.run("ip", "-6", "route")
            assert f"src {own[:-4]}" in host.run("ip", "-6", "route", "get", "fd00:244:3::")

        agent.routing.apply(plan(["fd00:244::/32"], addresses=["fd00:244:9::/128"]))
        assert "fd00:244:2:: dev" not in host.run("ip", "-6", "route")


def test_family_of_which_the_far_end_has_no_address_goes_without(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(plan(["10.244.0.0/16"], far=["10.244.2.0"]))

        shown = host.run("ip", "-o", "address", "show", "overlay0")
        assert re.findall(PAIRS, shown) == [("10.244.1.0", "10.244.2.0/32"), ("fd00:244:1::/128", "")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ("10.244.2.0", "fd00:244:2::")),
        (("10.244.2.0", "fd00:244:2::"), ()),
        (("10.244.2.0", "fd00:244:2::"), ("10.244.3.0", "fd00:244:3::")),
    ],
)
def test_another_far_end_leaves_everything_else_as_it_was(host, before, after):
    routes = ["10.244.0.0/16", "fd00:244::/32"]
    with host.entered(), Agent() as agent:
        agent.routing.apply(plan(routes, far=after))
        expected = without_ages(host.dump())
        agent.routing.apply(plan(routes, far=before))
        assert without_ages(host.dump()) != expected

        agent.routing.apply(plan(routes, far=after))

        assert without_ages(host.dump()) == expected
        assert "src 10.244.1.0" in host.run("ip", "route", "get", "10.244.2.2")
        assert "src fd00:244:1::" in host.run("ip", "-6", "route", "get", "fd00:244:2::2")


def test_changed_mark_leaves_one_rule(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(plan([], ["0.0.0.0/0"], fwmark=1))
        agent.routing.apply(plan([], ["0.0.0.0/0"], fwmark=2))

        assert re.findall(r"not from all fwmark (\S+)", host.run("ip", "rule")) == ["0x2"]


def test_any_sequence_of_plans_ends_like_its_last(host):
    prefixes = [
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.0.0.0/8",
        "fd01::/48",
        "fd01:0:0:1::/64",
        "0.0.0.0/0",
        "::/0",
    ]
    addresses = ["10.244.1.0/32", "10.244.2.0/32", "fd00:244:1::/128", "fd00:244:2::/128"]

    def any_plan():
        chosen = random.sample(prefixes, random.randrange(len(prefixes)))
        split = random.randrange(len(chosen) + 1)
        return plan(
            chosen[:split],
            chosen[split:],
            random.sample(addresses, random.randrange(len(addresses))),
            random.choice([1280, 1420]),
            random.choice([1, 2]),
            random.choice([(), ("10.244.77.1", "fd00:244:77::1"), ("10.244.78.1",)]),
            [each for each in chosen[split:] if not each.endswith("/0") and random.random() < 0.5],
        )

    with host.entered():
        for _ in range(10):
            with Agent() as agent:
                for _ in range(6):
                    last = any_plan()
                    agent.routing.apply(last)
                    if random.random() < 0.3:
                        agent.routing.read_back()
                result = without_ages(host.dump())
                agent.routing.withdraw()
            with Agent() as agent:
                agent.routing.apply(last)
                expected = without_ages(host.dump())
                agent.routing.withdraw()
            assert result == expected


def test_link_taken_down_by_somebody_is_noticed_and_repaired(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        watch = agent.routing.watch()
        before = without_ages(host.dump())

        host.run("ip", "link", "set", "overlay0", "down")
        assert watch.drain()
        agent.routing.read_back()
        agent.routing.apply(OVERLAY)

        assert without_ages(host.dump()) == before
        assert not our_flush(watch)
        watch.close()


def our_flush(watch):
    """Drain twice: the repair of addresses the kernel reports like somebody else's doing, but only once."""
    watch.drain()
    return watch.drain()


def test_watch_tells_changes_of_others_from_our_own(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        watch = agent.routing.watch()

        agent.routing.apply(FULL)
        assert not watch.drain()

        host.run("ip", "route", "add", "10.9.0.0/16", "via", "192.0.2.254")
        assert watch.drain()

        host.run("ip", "address", "add", "192.0.2.9/24", "dev", "eth0")
        assert watch.drain()

        host.run("ip", "link", "set", "eth0", "mtu", "1400")
        assert watch.drain()

        assert not watch.drain()
        watch.close()


@pytest.mark.parametrize(
    "change",
    [["mtu", "9000"], ["mtu", "1300"], ["down"], ["name", "vpn7"]],
    ids=lambda change: change[0],
)
def test_watch_tells_that_our_own_interface_is_not_as_it_was_set_up(host, change):
    """An MTU by hand stayed until something else changed, and a new name was found out as late."""
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        watch = agent.routing.watch()
        agent.routing.apply(dataclasses.replace(OVERLAY, mtu=1400))
        host.run("ip", "link", "set", "overlay0", "txqueuelen", "500")  # nobody's business
        assert not watch.drain()

        host.run("ip", "link", "set", "overlay0", *change)

        assert watch.drain()
        if change[0] == "mtu":
            agent.routing.read_back()
            agent.routing.apply(OVERLAY)
            assert "mtu 1420" in host.run("ip", "link", "show", "overlay0")
            assert not watch.drain()
        watch.close()


def test_watch_tells_that_somebody_took_what_keeps_packets_from_leaving(host):
    """Only what leaves the host open is in a hurry: of any other route of ours the unreachable twin stands."""
    with host.entered(), Agent() as agent:
        agent.routing.apply(FULL)
        watch = agent.routing.watch()
        agent.routing.apply(OVERLAY)
        agent.routing.apply(FULL)
        host.run("ip", "route", "add", "unreachable", "10.9.0.0/16")
        host.run("ip", "route", "delete", "unreachable", "10.9.0.0/16")
        host.run("ip", "route", "flush", "dev", "overlay0")
        assert (watch.drain(), watch.take_loss()) == (True, False)

        for command in (
            ("ip", "-4", "route", "flush", "table", "all", "type", "unreachable"),
            ("ip", "-6", "route", "flush", "table", "all", "type", "unreachable"),
            ("ip", "rule", "flush"),
        ):
            host.run(*command)
            assert (watch.drain(), watch.take_loss(), watch.take_loss()) == (True, True, False), command
        watch.close()


def test_route_mtu_is_that_of_the_route_or_of_its_device(host):
    host.run("ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.254", "mtu", "1300")
    host.run("ip", "link", "set", "eth0", "mtu", "1400")

    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)

        assert agent.routing.route_mtu(ip_address("203.0.113.1")) == 1300
        assert agent.routing.route_mtu(ip_address("198.51.100.1")) == 1400
        assert agent.routing.route_mtu(ip_address("2001:db8:9::1")) == 1400


def test_route_mtu_is_not_what_icmp_has_taught_the_kernel_for_one_address(host, lab):
    router, far = lab.namespace("router"), lab.namespace("far")
    lab.veth(
        host.end("eth7", "192.0.7.1/24", "2001:db8:7::1/64"),
        router.end("eth0", "192.0.7.2/24", "2001:db8:7::2/64"),
    )
    lab.veth(
        router.end("eth1", "198.51.7.1/24", "2001:db8:8::1/64"), far.end("eth0", "198.51.7.2/24"), mtu=1400
    )
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.run("ip", "route", "add", "198.51.7.0/24", "via", "192.0.7.2")
    host.run("ip", "route", "add", "2001:db8:8::/64", "via", "2001:db8:7::2")
    for address in ("198.51.7.2", "2001:db8:8::2"):
        host.run("ping", "-c1", "-W1", "-M", "do", "-s", "1410", address, check=False)
        wait_until(lambda: "mtu 1400" in host.run("ip", "route", "get", address), 5)  # noqa: B023

    with host.entered(), Agent() as agent:
        assert agent.routing.route_mtu(ip_address("198.51.7.2")) == 1500
        assert agent.routing.route_mtu(ip_address("2001:db8:8::2")) == 1500


def test_route_mtu_knows_no_answer_for_what_is_unreachable_or_in_the_tunnel(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(FULL)

        assert agent.routing.route_mtu(ip_address("172.16.1.1")) is None
        assert agent.routing.route_mtu(ip_address("10.244.2.2")) is None
        assert agent.routing.route_mtu(ip_address("198.51.100.1")) is None
        assert agent.routing.route_mtu(ip_address("198.51.100.1"), MARK) == 1500


def test_host_with_ipv6_disabled_by_default_still_gets_it_on_the_tun(host):
    host.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")

    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)

        assert len(our_routes(host, 6)) == 2


def test_many_routes_are_quick(host):
    many = (
        *(IPv4Network((0x0B000000 + number * 256, 24)) for number in range(10_000)),
        *(IPv6Network(((0xFD01 << 112) + (number << 64), 64)) for number in range(10_000)),
    )
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        start = time.monotonic()

        agent.routing.apply(HostPlan(1420, OVERLAY.addresses, many))
        assert agent.routing.read_back() == 40_000
        agent.routing.withdraw()

        assert time.monotonic() - start < 8  # seconds; about 0.8 on the slowest machine so far
        assert not our_routes(host)


def test_refusal_for_want_of_privilege_says_so(host):
    code = (
        "from tests.overlay.host.netlink.test_routing import *; from overlay.host.privileges import drop_all\n"
        "agent = Agent(); drop_all(65520)\n"
        "try: agent.routing.apply(OVERLAY)\nexcept HostError as error: print(error, repr(error.__cause__))"
    )

    assert re.search(r"overlay0 .*: run as root with CAP_NET_ADMIN PermissionError", host.python(code))


class Events:
    """The route messages that the kernel sends to everybody."""

    def __enter__(self):
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self.socket.bind((0, RTMGRP_IPV4_ROUTE))
        return self

    def __exit__(self, *_):
        self.socket.close()

    def read(self, table=None):
        kinds = []
        while True:
            try:
                message = self.socket.recv(65536)
            except BlockingIOError:
                return kinds
            if table in {None, message[20]}:
                kinds.append(NETLINK_HEADER.unpack_from(message)[1])


def send(target, mark=0):
    with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        udp.sendto(b"test", (target, 9))


def destinations_of(frames):
    """Return the destinations of the UDP datagrams to port 9 in *frames*."""
    found = []
    for frame in frames:
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\x00\x09":
            found.append(str(ip_address(frame[30:34])))
        elif frame[12:14] == b"\x86\xdd" and frame[20] == 17 and frame[56:58] == b"\x00\x09":
            found.append(str(ip_address(frame[38:54])))
    return found


def without_ages(state):
    """Return *state* without what differs between two devices of one name: its index, and counters."""
    return {
        kind: sorted(re.sub(r"^\d+: |fe80::\S+", "", line) for line in lines) for kind, lines in state.items()
    }


@pytest.mark.netns
@pytest.mark.parametrize("mtu", [576, 1279, 1280])
def test_any_mtu_can_be_had_also_where_there_is_no_ipv6(host, mtu):
    addresses = (ip_interface("10.244.1.0/32"),)
    with (
        host.entered(),
        contextlib.closing(open_tun("overlay0")) as device,
        contextlib.closing(Routing("overlay0", device.index)) as routing,
    ):
        routing.apply(HostPlan(mtu, addresses))
        low = host.run("ip", "link", "show", "overlay0")
        routing.apply(HostPlan(1420, addresses))
        routing.apply(HostPlan(mtu, addresses))

    assert f"mtu {mtu} " in low
