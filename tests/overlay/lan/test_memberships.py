from __future__ import annotations

import dataclasses
from ipaddress import ip_address, ip_network

import pytest

from overlay.host.netlink.fib import Link
from overlay.lan.memberships import Membership, Tracked, effective_priority, memberships_of, on_link
from peers.service import Service, Vrrp

VIP, OTHER = ip_address("10.50.2.200"), ip_address("fd50:2::200")
GROUP = Vrrp("lan", 51, "eth0")


def service(name, *addresses, directors=("lb1", "lb2"), vrrp=GROUP):
    return Service(name, addresses, directors=directors, vrrp=vrrp)


def member(priority=150, **settings):
    return Membership(dataclasses.replace(GROUP, **settings), "eth0", priority, (VIP,))


def test_services_that_share_a_group_share_a_membership():
    (found,) = memberships_of([service("web", VIP), service("dns", OTHER, VIP)], "lb2")

    assert (found.interface, found.priority, found.addresses) == ("eth0", 140, (VIP, OTHER))
    assert (found.of_version(4), found.of_version(6)) == ((VIP,), (OTHER,))


@pytest.mark.parametrize(
    "strange",
    [
        service("web", VIP, directors=("lb3",)),
        service("web", VIP, directors=None),
        service("web", VIP, vrrp=None),
        service("web", VIP, vrrp=Vrrp("lan", 51, interfaces={"lb2": "eth0"})),
    ],
    ids=["of others", "of everybody", "without VRRP", "by no interface of this node"],
)
def test_node_takes_part_only_in_groups_that_it_is_in(strange):
    assert not memberships_of([strange], "lb1")


@pytest.mark.parametrize(
    ("settings", "tracked", "expected"),
    [
        ({}, Tracked(frozenset({"eth1"}), frozenset({"web"}), False), (150, "")),
        ({"track_interfaces": ("eth1",)}, Tracked(frozenset({"eth1"})), (0, "eth1 is down")),
        ({"track_overlay": True}, Tracked(is_overlay_up=False), (0, "the overlay is not up")),
        (
            {"track_services": ("web",), "track_weight": 30},
            Tracked(services_without_quorum=frozenset({"web"})),
            (120, "the service web lacks its quorum"),
        ),
        (
            {"track_overlay": True, "track_interfaces": ("eth1",), "track_weight": 200},
            Tracked(frozenset({"eth1"}), is_overlay_up=False),
            (1, "eth1 is down"),
        ),
    ],
)
def test_what_is_tracked_lowers_the_priority_once_or_to_nothing(settings, tracked, expected):
    assert effective_priority(member(**settings), tracked) == expected


def test_owner_is_not_lowered_but_may_take_no_part():
    tracked = Tracked(is_overlay_up=False)

    assert effective_priority(member(255, track_overlay=True, track_weight=9), tracked) == (255, "")
    assert effective_priority(member(255, track_overlay=True), tracked) == (0, "the overlay is not up")


def link(network, index):
    return Link(ip_network(network), index, 0)


def test_address_is_on_the_links_with_the_longest_network_around_it():
    links = [link("10.0.0.0/8", 1), link("10.50.2.0/24", 2), link("10.50.2.0/24", 3), link("fd50:2::/64", 4)]

    assert on_link([VIP, OTHER], links) == {2: {VIP}, 3: {VIP}, 4: {OTHER}}


def test_address_is_not_on_a_link_that_is_a_route_to_it_alone():
    assert on_link([VIP, OTHER], [link("10.50.2.200/32", 1), link("192.0.2.0/24", 2)]) == {}
