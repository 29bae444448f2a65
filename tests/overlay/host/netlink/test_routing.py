from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import time
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface

import pytest

from overlay.errors import HostError
from overlay.host.netlink.routes import METRIC
from overlay.host.netlink.routing import Routing
from overlay.host.netlink.rtnetlink import RTM_DELROUTE, RTM_NEWROUTE
from overlay.host.ownership import number_of
from overlay.host.plan import HostPlan
from overlay.host.tun import open_tun
from tests.netns.topology import wait_until
from tests.overlay.host.netlink.agents import (
    ANSWERING,
    FULL,
    LAN,
    MAC,
    MARK,
    OVERLAY,
    PAIRS,
    Agent,
    Events,
    destinations_of,
    networks,
    our_routes,
    plan,
    route_of,
    send,
    without_ages,
)

pytestmark = pytest.mark.netns


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


def test_neighbours_of_a_tap_stay_known_when_its_link_is_set_up_again(host):
    """Even the Ethernet address that a device has, set again, makes the kernel forget its neighbours."""
    with host.entered(), Agent(is_tap=True) as agent:
        agent.routing.apply(dataclasses.replace(OVERLAY, mac=MAC))
        neighbour = ["10.244.0.9", "dev", "overlay0"]
        host.run("ip", "neighbour", "add", *neighbour, "lladdr", "02:00:00:00:00:09", "nud", "reachable")

        agent.routing.read_back()
        agent.routing.apply(dataclasses.replace(OVERLAY, mac=MAC))

        assert "02:00:00:00:00:09" in host.run("ip", "neighbour", "show", *neighbour)


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


def test_answers_from_a_held_address_go_into_the_tun_but_to_what_is_behind_the_host(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(ANSWERING)

        for to, answering in (("198.51.100.7", "203.0.113.80"), ("2001:db8:7::7", "2001:db8:9::80")):
            assert route_of(host, to) == "eth0"
            assert route_of(host, to, "from", answering) == "overlay0"
            assert route_of(host, to, "mark", str(number_of("overlay0"))) == "overlay0"
        assert route_of(host, "192.0.2.7", "from", "203.0.113.80") == "overlay0"  # on the LAN nevertheless
        assert route_of(host, "10.244.1.9", "from", "203.0.113.80") == "br0"
        assert route_of(host, "fd00:244:1::9", "from", "2001:db8:9::80") == "br0"
        # Translated packets have another source, and packets from the tun at a director are on their way to clients.
        assert "from 203.0.113.81" not in host.run("ip", "rule")


def test_answers_go_the_way_of_everything_again_when_nothing_is_returned(host):
    with host.entered(), Agent() as agent:
        agent.routing.apply(OVERLAY)
        before = host.dump()
        agent.routing.apply(ANSWERING)
        agent.routing.apply(OVERLAY)

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
            HostError, match=r"10\.250\.0\.0/16 already has a route with our metric"
        ) as raised:
            agent.routing.apply(plan(["10.250.0.0/16", "10.251.0.0/16"]))
        agent.routing.withdraw()

    assert isinstance(raised.value.__cause__, OSError)
    assert host.run("ip", "route") == before


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


def test_point_to_point_link_has_the_far_end_beside_each_address(host):
    """As ``ip address add A peer B`` does, except for the route, which is ours."""
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
    """The kernel treats a second address with the same far end as secondary, which is removed with the first."""
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

    def has_learnt(address):
        host.run("ping", "-c1", "-W1", "-M", "do", "-s", "1410", address, check=False)
        return "mtu 1400" in host.run("ip", "route", "get", address)

    for address in ("198.51.7.2", "2001:db8:8::2"):
        wait_until(lambda address=address: has_learnt(address))

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
        start = time.process_time()

        agent.routing.apply(HostPlan(1420, OVERLAY.addresses, many))
        assert agent.routing.read_back() == 40_000
        agent.routing.withdraw()

        assert (
            time.process_time() - start < 8
        )  # seconds of processor time; about 0.8 on the slowest machine so far
        assert not our_routes(host)


def test_refusal_for_want_of_privilege_says_so(host):
    code = (
        "from overlay.errors import HostError; from overlay.host.process.privileges import drop_all\n"
        "from tests.overlay.host.netlink.agents import *\n"
        "agent = Agent(); drop_all(65520)\n"
        "try: agent.routing.apply(OVERLAY)\nexcept HostError as error: print(error, repr(error.__cause__))"
    )

    assert re.search(r"overlay0 .*: run as root with CAP_NET_ADMIN PermissionError", host.python(code))


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
