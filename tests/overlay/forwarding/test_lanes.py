"""Several lanes of one forwarder: threads of the extension at work, and Python next to them."""

from __future__ import annotations

import array
import errno
import gc
import os
import random
import select
import socket
import weakref
from functools import partial
from ipaddress import ip_address

import pytest

from overlay.encap.encapsulation import Role
from overlay.forwarding import native
from overlay.forwarding.lane import trial
from overlay.forwarding.underlay.udp_socket import UdpSocket
from overlay.host import clock
from overlay.host.sockets.reuseport import INDEX_MARK
from overlay.host.sockets.underlay import open_underlay
from overlay.link import messages as link
from overlay.session.outputs import InstallKeypair
from tests import packets
from tests.overlay.forwarding.loop_bench import PATIENCE, Running, make_room, socket_pair, until

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")

LOOPBACK = ip_address("127.0.0.1")
LANES = 4
BUFFER = 4 * 1024 * 1024
SESSION = 120.0  # seconds


class Forwarder(Running):
    """A loop with lanes: `queues` are the far ends of the queues of its tun; everything that it writes arrives at the
    first.
    """

    def _queues(self, device):
        pairs = [socket_pair(BUFFER) for _ in range(LANES - 1)]
        self.queues = [self.tun, *(ours for ours, _ in pairs)]
        for end in (self.tun, device):
            make_room(end, BUFFER)
        writer = os.dup(device.fileno())
        return [device.detach(), *(theirs.detach() for _, theirs in pairs), writer]

    @staticmethod
    def _bound():
        return open_underlay([LOOPBACK], 0, lanes=LANES)

    @property
    def address(self):
        return "127.0.0.1", self.udp[-1][0].port

    def use_sockets(self):
        opened = self.udp[-1]
        rows = [link.SocketRow(each.family, each.port, int(each.role), lane=each.lane) for each in opened]
        self.tell(link.Sockets("wireguard", rows), [each.fileno() for each in opened])

    def close(self):
        groups, self.udp = self.udp, []
        super().close()
        os.close(self.loop._tun.writer)
        for lane in self.loop._lanes._lanes:
            lane._queue._file.close()
        for each in (*self.queues, *(udp for group in groups for udp in group)):
            each.close()


def index(lane, number=0):
    """Return the index of a session whose messages are received in *lane*."""
    return INDEX_MARK << 24 | number << 8 | lane


def connect(one, other, lanes, number=0, keys=(b"1" * 32, b"2" * 32)):
    """Make a session, which *other* knows first; *lanes* are those in which each of both receives.

    Sessions follow each other as if it were time for new keys.
    """
    made_at = clock.now() + number * SESSION
    indices = [index(lane, number) for lane in lanes]
    for place, (end, far) in reversed(list(enumerate(((one, other), (other, one))))):
        made = InstallKeypair(
            1, indices[place], indices[1 - place], keys[place], keys[1 - place], True, made_at, made_at, far.address
        )  # fmt: skip
        end.tell(made)
        end.counters()


@pytest.fixture
def forwarders(monkeypatch):
    # On a busy machine, answers to probes take seconds; a lane that is then given up changes the order of its flows.
    monkeypatch.setattr(trial, "PATIENCE", PATIENCE)
    pair = Forwarder(), Forwarder()
    for one, other in (pair, pair[::-1]):
        one.tell(link.SetPeer(1, 0.0))
        one.tell(link.SetEndpoint(1, other.address, "configuration"))
        one.tell(link.Routes([(bytes([10, 0, 0, 0]), 8, 1)], [], is_last=True))
        one.tell(link.Begin())
        one.counters()
    yield pair
    for each in pair:
        each.close()
    assert [each.error for each in pair] == [None, None]


def payload(flow, number, size=40):
    return packets.udp(flow.to_bytes(4, "big") + number.to_bytes(4, "big") + bytes(size))


def read_all(end, count):
    """Return the packets that come out of a tun until there are *count*, cut as the kernel would."""
    heard = []
    while len(heard) < count and select.select([end.tun], [], [], PATIENCE)[0]:
        try:
            data = end.tun.recv(70_000)
        except BlockingIOError:
            continue
        heard += packets.kernel_segments(data[10:], data[:10])
    return heard


def numbers(heard):
    """Return the numbers that payload() wrote, in the order of arrival, by flow."""
    by_flow = {}
    for packet in heard:
        flow, number = (int.from_bytes(packet[at : at + 4], "big") for at in (28, 32))
        by_flow.setdefault(flow, []).append(number)
    return by_flow


def open_lanes(end):
    keypair = end.loop._core.peers[1].keypairs.current
    return 1 if keypair is None or keypair.lanes is None else sum(keypair.lanes.are_open())


def meet(one, other, lanes):
    """Make the first session, and wait until its lanes are open: earlier flows may then switch to theirs."""
    connect(one, other, lanes)
    one.tun.send(packets.PLAIN + payload(99, 0))
    assert read_all(other, 1)
    until(lambda: open_lanes(one) == LANES)


def test_collector_frees_a_forwarder_with_its_lanes():
    forwarder = Forwarder()
    until(partial(hasattr, forwarder.loop, "_core"))
    core = weakref.ref(forwarder.loop._core)
    forwarder.close()
    assert forwarder.error is None

    del forwarder
    gc.collect()

    assert core() is None


def test_a_forwarder_has_a_lane_for_each_queue_of_its_tun(forwarders):
    assert forwarders[0].loop._lanes.count == LANES


def test_flows_of_a_peer_without_lanes_share_its_session(forwarders):
    a, b = forwarders
    b.loop._core.lanes.count = 1  # as its hello says
    connect(a, b, (0, 2))
    for number in range(200):
        for lane, queue in enumerate(a.queues):
            queue.send(packets.PLAIN + payload(lane, number))

    heard = read_all(b, 200 * LANES)

    assert numbers(heard) == {lane: list(range(200)) for lane in range(LANES)}
    assert open_lanes(a) == 1
    assert a.loop._core.peers[1].keypairs.current.counter >= 200 * LANES


@pytest.mark.parametrize("receiving", range(LANES))
def test_what_goes_by_any_lane_arrives_in_its_order(forwarders, receiving):
    a, b = forwarders
    meet(a, b, (0, receiving))
    for number in range(200):
        for lane, queue in enumerate(a.queues):
            queue.send(packets.PLAIN + payload(lane, number))

    heard = read_all(b, 200 * LANES)

    assert numbers(heard) == {lane: list(range(200)) for lane in range(LANES)}
    row = b.counters().peers[0]
    assert row.rx_packets == a.counters().peers[0].tx_packets == 200 * LANES + 1
    assert row.drops == {}


def test_super_packets_go_by_any_lane(forwarders):
    a, b = forwarders
    meet(a, b, (0, 1))
    packet, virtio = packets.as_super_packet(packets.tcp(bytes(60_000)), 1360)
    expected = packets.kernel_segments(packet, virtio)
    for queue in a.queues:
        queue.send(virtio + packet)

    heard = read_all(b, LANES * len(expected))

    assert sorted(heard) == sorted(LANES * expected)
    assert b.counters().peers[0].drops == {}


def test_no_counter_is_used_twice_while_all_lanes_send_under_one_key(forwarders):
    a, b = forwarders
    b.loop._core.lanes.count = 1  # as its hello says
    connect(a, b, (0, 1))
    for number in range(300):
        for lane, queue in enumerate(a.queues):
            queue.send(packets.PLAIN + payload(lane, number))
            if number % 10 == lane:
                virtio_packet = packets.as_super_packet(packets.tcp(bytes(9000)), 1000)
                queue.send(virtio_packet[1] + virtio_packet[0])

    heard = read_all(b, 300 * LANES + 120 * 9)

    assert len(heard) == 300 * LANES + 120 * 9
    assert "replay" not in b.counters().peers[0].drops
    keypair = a.loop._core.peers[1].keypairs.current
    assert keypair.counter >= len(heard)


def test_lanes_with_keys_of_their_own_bring_every_flow_in_its_order(forwarders):
    a, b = forwarders
    meet(a, b, (0, 1))

    for number in range(1, 500):
        for lane, queue in enumerate(a.queues):
            queue.send(packets.PLAIN + payload(lane, number))
            if number % 10 == lane:
                packet, virtio = packets.as_super_packet(packets.tcp(bytes(9000), ports=(lane, 80)), 1000)
                queue.send(virtio + packet)
    heard = read_all(b, 499 * LANES + (50 * LANES - 1) * 9)  # number 0 was not sent

    ours = [packet for packet in heard if packet[9] == 17]
    assert numbers(ours) == {lane: list(range(1, 500)) for lane in range(LANES)}
    keypairs = a.loop._core.peers[1].keypairs.current.all()
    assert all(each.counter >= 499 for each in keypairs)
    assert b.counters().peers[0].drops == {}


def test_a_new_session_under_load_loses_and_reorders_nothing(forwarders):
    a, b = forwarders
    meet(a, b, (2, 3))
    heard, sent = [], 0

    def send(count):
        for number in range(sent, sent + count):
            for lane, queue in enumerate(a.queues):
                queue.send(packets.PLAIN + payload(lane, number))
        return sent + count

    for session in range(1, 12):
        sent = send(10)
        heard += read_all(b, 10 * LANES)  # it is in use at both ends
        sent = send(40)
        keys = bytes([session] * 32), bytes([99 - session] * 32)
        connect(a, b, (2, 3), session, keys)
        heard += read_all(b, 40 * LANES)

    assert numbers(heard) == {lane: list(range(sent)) for lane in range(LANES)}
    assert open_lanes(a) == LANES


def test_garbage_at_a_lane_is_counted(forwarders):
    a, _ = forwarders
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for number in range(300):
            stranger.sendto(
                b"\x04\0\0\0" + index(1, 77).to_bytes(4, "little") + bytes(60 + number), a.address
            )
        until(lambda: a.counters().drops.get("unknown_index") == 300)


def test_a_lane_reads_its_queue_no_more_once_the_device_is_gone_and_the_others_go_on(forwarders):
    a, b = forwarders
    meet(a, b, (0, 2))
    asked = []

    def fail(*_):
        asked.append(1)
        raise OSError(errno.EBADFD, os.strerror(errno.EBADFD))

    a.loop._lanes._lanes[0].see_to_tun = fail
    a.queues[1].send(packets.PLAIN + bytes(20))  # for Python to examine
    until(lambda: a.counters() and asked)

    a.queues[1].send(packets.PLAIN + payload(1, 0))
    for number in range(20):
        a.queues[2].send(packets.PLAIN + payload(2, number))

    assert numbers(read_all(b, 20)) == {2: list(range(20))}
    assert asked == [1]


@pytest.mark.parametrize("lane", [0, LANES])
def test_a_socket_for_a_lane_that_there_is_not_is_watched_by_none(forwarders, lane):
    lanes = forwarders[0].loop._lanes
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        udp = UdpSocket(raw, socket.AF_INET, role=Role.LANE, lane=lane)

        assert not lanes.watch(udp)
        assert not lanes.forget(udp)


def test_sockets_of_lanes_are_replaced_and_the_old_ones_read_until_they_are_closed(forwarders):
    a, b = forwarders
    connect(a, b, (1, 1))
    old = a.address
    a.move()
    a.counters()
    b.queues[2].send(packets.PLAIN + payload(0, 0))
    assert read_all(a, 1) == [payload(0, 0)]
    assert a.address != old

    a.later += link.REPLACED_TIME + 1
    a.counters()
    until(lambda: {udp.closes_at for udp in a.loop._core.sender.sockets} == {float("inf")})

    a.queues[1].send(packets.PLAIN + payload(0, 1))
    assert read_all(b, 1) == [payload(0, 1)]
    b.queues[3].send(packets.PLAIN + payload(0, 2))
    assert read_all(a, 1) == [payload(0, 2)]
    lanes = {udp.lane for udp in a.loop._core.sender.sockets if udp.role == Role.LANE}
    assert lanes == set(range(1, LANES))


@pytest.mark.slow
def test_lanes_and_python_share_the_state_through_whatever_happens(forwarders):
    """Everything that Python does while lanes work: commands, counters, garbage collections, odd packets."""
    a, b = forwarders
    chance = random.Random(1)
    meet(a, b, (2, 3))
    sent = 0
    for round_ in range(60):
        for number in range(round_ * 20, round_ * 20 + 20):
            for lane, queue in enumerate(a.queues):
                queue.send(packets.PLAIN + payload(lane, number))
                sent += 1
                if chance.random() < 0.05:
                    queue.send(packets.PLAIN + bytes(chance.randrange(1, 60)))
        kind = chance.randrange(4)
        if kind == 0:
            a.tell(link.Routes([(bytes([11, round_, 0, 0]), 16, 1)], [], is_last=True))
        elif kind == 1:
            b.tell(link.SetEndpoint(1, a.address, "configuration"))
        elif kind == 2:
            a.counters()
        else:
            array.array("B", bytes(1000))
            a.tell(link.SetNode(1420 - round_ % 2, False, []))
    heard = read_all(b, sent)

    by_flow = numbers(heard)
    assert {flow: len(each) for flow, each in by_flow.items()} == dict.fromkeys(range(LANES), sent // LANES)
    assert all(each == sorted(each) for each in by_flow.values())
