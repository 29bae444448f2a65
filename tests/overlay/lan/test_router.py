"""One virtual router with a real socket, in a namespace; tests/netns/test_vrrp.py has whole groups of them."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address

import pytest

from overlay.host.netlink.lan_interfaces import Interface
from overlay.lan.memberships import Membership, Tracked
from overlay.lan.router import Router
from overlay.services.vrrp import RouterState
from peers.service import Vrrp
from tests.netns.topology import _requirements, lab

__all__ = ["_requirements", "lab"]

VIP, VIP6 = ip_address("10.50.2.200"), ip_address("fd50:2::200")
MEMBER = Membership(Vrrp("lan", 51, "eth0"), "eth0", 100, (VIP, VIP6))
DOWN = Interface("eth0", 2, False, bytes(6), (ip_address("10.50.2.1"),))
BARE = Interface("eth0", 2, True, bytes(6), ())


def changed_to(member, version, interface):
    said = []
    one = Router(member, version, lambda each: said.append((each.state, each.reason)), lambda *_: None, 0.0)
    one.look(member, interface, Tracked(), 0.0)
    return said


@pytest.mark.parametrize(
    ("settings", "version", "interface", "reason"),
    [
        ({}, 4, None, "eth0 does not exist"),
        ({}, 4, DOWN, "eth0 is down"),
        ({}, 4, BARE, "eth0 has no IPv4 address"),
        ({}, 6, BARE, "eth0 has no link-local IPv6 address"),
        ({"version": 2}, 6, BARE, "version 2 of VRRP does not support IPv6"),
        (
            {"unicast": (ip_address("10.50.2.1"),)},
            4,
            dataclasses.replace(DOWN, is_up=True),
            "`unicast` names no other router by an IPv4 address",
        ),
    ],
)
def test_router_that_cannot_take_part_says_why(settings, version, interface, reason):
    member = dataclasses.replace(MEMBER, vrrp=dataclasses.replace(MEMBER.vrrp, **settings))

    assert changed_to(member, version, interface) == [(RouterState.INITIALIZE, reason)]
