from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from overlay.host.neighbours import Neighbours
from overlay.host.netlink.lan_interfaces import LanInterfaces
from overlay.host.sockets.neighbour_filters import MOST_INSTRUCTIONS
from overlay.wire.ethernet import ARP, ARP_ETHERNET_IPV4, ARP_REQUEST, ETHERNET, ETHERTYPE_ARP
from overlay.wire.neighbours import BROADCAST
from tests.netns.topology import wait_until

VIP = ip_address("10.50.2.200").packed
CLIENT = ip_address("10.50.2.2").packed
MAC = bytes.fromhex("020000000002")


@pytest.fixture
def ends(lab):
    one, other = lab.namespace("one"), lab.namespace("other")
    lab.veth(one.end("eth0"), other.end("eth0"))
    return one, other


def question(target, operation=ARP_REQUEST, source=CLIENT):
    body = ARP.pack(*ARP_ETHERNET_IPV4, operation, MAC, source, bytes(6), target)
    return ETHERNET.pack(BROADCAST, MAC, ETHERTYPE_ARP) + body


@pytest.mark.parametrize(
    "others", [0, MOST_INSTRUCTIONS], ids=["alone", "with more than the kernel sorts out"]
)
def test_only_those_are_answered_who_ask_for_an_address_that_is_here(ends, others):
    one, other = ends
    with one.entered():
        interfaces = LanInterfaces()
        neighbours = Neighbours(interfaces.read("eth0"), 4)
    more = {bytes((10, 60, number >> 8, number & 255)) for number in range(others)}
    neighbours.set_addresses(frozenset({VIP, *more}))
    with other.entered():
        asking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP))
        asking.bind(("eth0", ETHERTYPE_ARP))
    asking.settimeout(60)

    for frame in (
        question(CLIENT),
        question(VIP, 2),
        question(VIP, source=bytes(4)),
        question(VIP)[:30],
        question(VIP),
    ):
        asking.send(frame)
    answers = []

    def is_answered():
        neighbours.answer()
        asking.setblocking(False)
        try:
            answers.append(asking.recv(100))
        except BlockingIOError:
            return bool(answers)
        return False

    wait_until(is_answered, 60, "an answer")
    neighbours.close()
    interfaces.close()
    asking.close()
    assert len(answers) == 1
    assert ARP.unpack_from(answers[0], ETHERNET.size)[-4:] == (neighbours.mac, VIP, MAC, CLIENT)
    assert not neighbours.is_open
