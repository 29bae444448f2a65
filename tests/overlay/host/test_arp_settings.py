from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

from overlay.host.arp_settings import keep_to_tun
from overlay.host.netlink.fib import Link

LO = socket.if_nametoindex("lo")


def link(network, index=LO):
    return Link(ip_network(network), index, 0)


def settings(address, *links):
    return keep_to_tun([ip_address(address)], links)


def test_links_that_an_address_is_on_are_quiet_about_it():
    assert settings("192.0.2.100", link("192.0.2.0/24"), link("198.51.100.0/24", 2)) == [
        ("ipv4/conf/lo/arp_ignore", 1),
        ("ipv4/conf/lo/arp_announce", 2),
    ]


def test_other_links_are_left_alone():
    assert settings("203.0.113.80", link("192.0.2.0/24"), link("0.0.0.0/0")) == []
    assert settings("2001:db8::80", link("2001:db8::/64")) == []
    assert settings("192.0.2.100", link("192.0.2.0/24", 999_999)) == []
