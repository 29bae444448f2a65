from __future__ import annotations

import socket

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.host.modules import beside, is_up

IPIP, GRE, UDP = (ENCAPSULATIONS[name] for name in ("ipip", "gre", "udp"))


@pytest.mark.parametrize(
    ("encapsulations", "names", "expected"),
    [
        ([IPIP], {"ipip"}, {"ipip": {4}}),
        ([IPIP], {"tunl0"}, {"ipip": {4}}),  # built into the kernel
        ([IPIP], {"sit0", "ipip"}, {"ipip": {4}, "sit": {4, 41}}),
        ([IPIP], {"ip6_tunnel"}, {"ip6_tunnel": {4, 41}}),
        ([IPIP], {"tunnel4"}, {"tunnel4": {4, 41}}),  # with nothing to pass packets on to, it answers
        ([IPIP], {"ip_gre", "gre"}, {}),
        ([GRE], {"gre0"}, {"ip_gre": {47}}),
        ([GRE], {"ip6_gre", "ipip"}, {"ip6_gre": {47}}),
        ([GRE], {"gre"}, {}),  # it does not answer by itself
        ([UDP, IPIP, GRE], {"ipip", "ip_gre"}, {"ipip": {4}, "ip_gre": {47}}),
        ([UDP], {"ipip", "ip_gre", "fou"}, {}),
        ([UDP, IPIP], {"lo", "eth0"}, {}),
    ],
)
def test_the_kernel_s_tunnels_are_found_with_the_protocols_that_they_share_with_ours(
    encapsulations, names, expected
):
    found = beside(encapsulations, names)

    assert {tunnel.module: protocols for tunnel, protocols in found.items()} == expected


def test_this_host_is_asked_by_default():
    found = {tunnel.device for tunnel in beside([IPIP, GRE])}

    assert found >= {name for _, name in socket.if_nameindex()} & {"tunl0", "sit0", "gre0"}


def test_the_loopback_is_up_and_what_is_not_there_is_not():
    assert is_up("lo")
    assert not is_up("no-such-device")


def test_where_no_encapsulation_has_a_protocol_of_its_own_nobody_looks():
    class Unseen:
        def __contains__(self, name):
            raise AssertionError(name)

    assert beside([ENCAPSULATIONS["wireguard"], ENCAPSULATIONS["udp"]], Unseen()) == {}
