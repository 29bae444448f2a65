from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from overlay.host.claims import BATCH, Claims
from overlay.host.netlink.lan_interfaces import LanInterfaces
from overlay.host.sockets.neighbour_filters import MOST_INSTRUCTIONS
from overlay.wire.neighbours import Claim, announcement
from tests.netns.topology import wait_until

VIPS = {4: ip_address("10.50.2.200").packed, 6: ip_address("fd50:2::200").packed}
OTHERS = {4: ip_address("10.50.2.201").packed, 6: ip_address("fd50:2::201").packed}
MAC = bytes.fromhex("020000000002")


@pytest.fixture(params=[4, 6], ids=["ARP", "neighbour discovery"])
def ends(lab, request):
    """Return a listener for claims, a socket of another host that can send any frame, that host, and the IP version."""
    one, other = lab.namespace("one"), lab.namespace("other")
    for each in (one, other):
        each.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    lab.veth(
        one.end("eth0", "10.50.2.1/24", "fd50:2::1/64"), other.end("eth0", "10.50.2.2/24", "fd50:2::2/64")
    )
    with one.entered():
        interfaces = LanInterfaces()
        claims = Claims(interfaces.read("eth0"), request.param)
        interfaces.close()
    with other.entered():
        saying = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        saying.bind(("eth0", 0))
    yield claims, saying, other, request.param
    claims.close()
    saying.close()


def hear(claims):
    heard = []

    def is_heard():
        heard.extend(claims.heard())
        return heard

    wait_until(is_heard, 60, "a claim")
    return heard


@pytest.mark.parametrize("many", [0, MOST_INSTRUCTIONS], ids=["alone", "with more than the kernel sorts out"])
def test_claims_of_what_is_here_are_heard_and_no_others(ends, many):
    claims, saying, _, version = ends
    size = len(VIPS[version])
    more = {b"\x0b" + number.to_bytes(size - 1, "big") for number in range(many)}
    claims.set_addresses(frozenset({VIPS[version], *more}))

    for frame in (
        announcement(OTHERS[version], MAC),
        announcement(VIPS[version], MAC)[:30],
        announcement(VIPS[version], MAC),
    ):
        saying.send(frame)

    assert hear(claims) == [Claim(VIPS[version], MAC)]


def test_host_that_has_the_address_quietly_is_found_by_asking(ends):
    claims, _, other, version = ends
    other.run("ip", "address", "add", str(ip_address(VIPS[version])), "dev", "eth0")
    mac = bytes.fromhex(other.run("cat", "/sys/class/net/eth0/address").strip().replace(":", ""))
    claims.set_addresses(frozenset({VIPS[version]}))

    claims.ask()

    assert hear(claims) == [Claim(VIPS[version], mac)]


def test_flood_is_read_in_turns(ends):
    claims, saying, _, version = ends
    claims.set_addresses(frozenset({VIPS[version]}))

    for _ in range(4 * BATCH):
        saying.send(announcement(VIPS[version], MAC))

    assert len(hear(claims)) <= BATCH


def test_closed_socket_says_so(ends):
    claims, *_ = ends
    claims.close()

    assert not claims.is_open
