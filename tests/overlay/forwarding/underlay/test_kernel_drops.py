from __future__ import annotations

import socket
from collections import Counter

import pytest

from overlay.encap.encapsulation import Role
from overlay.forwarding.underlay.kernel_drops import count_kernel_drops
from overlay.forwarding.underlay.udp_socket import UdpSocket
from overlay.link.messages import AskCounters
from tests.sim import World


class Queue:
    def __init__(self, dropped=0):
        self.number = dropped

    def dropped(self):
        return self.number


def made(role=Role.ALL, dropped=0):
    return UdpSocket(None, socket.AF_INET, role=role, queue=Queue(dropped))


@pytest.mark.parametrize(
    ("role", "drops"),
    [
        (Role.ALL, {"receive_full": 5}),
        (Role.RECEIVES, {"receive_full": 5}),
        (Role.HANDSHAKES, {"udp_filtered": 5}),
        (Role.SENDS, {}),  # what arrives there is for nobody
        (Role.SENDS_WHOLE, {}),
    ],
)
def test_what_a_socket_dropped_is_counted_by_what_it_is_for(role, drops):
    counted = Counter()

    count_kernel_drops(counted, [made(role, 5)])

    assert counted == drops


def test_each_is_counted_once_also_where_the_kernel_s_counter_begins_anew():
    counted, udp = Counter(), made(dropped=2**32 - 2)
    count_kernel_drops(counted, [udp])
    counted.clear()

    udp.queue.number = 3
    count_kernel_drops(counted, [udp])
    count_kernel_drops(counted, [udp])

    assert counted == {"receive_full": 5}


def test_a_socket_of_which_nothing_is_known_is_left_out():
    counted = Counter()

    count_kernel_drops(counted, [UdpSocket(None, socket.AF_INET), made(Role.SENDS, 3), made(dropped=5)])

    assert counted == {"receive_full": 5}


def test_a_node_tells_it_with_its_counters_also_of_sockets_it_had_before():
    world = World()
    a, _ = world.pair()
    a.sockets[0].dropped = 4
    a.port += 1
    a.open_sockets()
    world.run(20)
    a.sockets[0].dropped = 2

    a.commands._tell_counters(AskCounters(1))
    world.run(1)

    assert a.drops["receive_full"] == 6
