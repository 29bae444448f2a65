from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.forwarding import counters
from overlay.forwarding.counters import PEERS_PER_MESSAGE
from overlay.forwarding.path.search import PathMtu
from overlay.forwarding.peer import LivePeer
from overlay.link.messages import PeerCounters


@pytest.mark.parametrize("count", [0, 1, PEERS_PER_MESSAGE, PEERS_PER_MESSAGE + 1, 5 * PEERS_PER_MESSAGE])
def test_the_batches_are_all_peers_and_the_last_alone_says_that_it_is(count):
    peers = [LivePeer(number) for number in range(count)]

    batches = list(counters.batches(peers))

    assert [peer for batch, _ in batches for peer in batch] == peers
    assert [is_last for _, is_last in batches] == [False] * (len(batches) - 1) + [True]
    assert max(len(batch) for batch, _ in batches) <= PEERS_PER_MESSAGE


def test_a_row_is_a_copy_of_what_was_counted():
    peer = LivePeer(3)
    peer.drops["loop"] = 2
    peer.traffic.rx_bytes, peer.traffic.tx_packets, peer.contact.last_received = 5, 7, 9.0

    row = counters.row(peer, 1420, 0, 4)
    peer.drops["loop"] = 8

    assert (row.peer, row.rx_bytes, row.tx_packets, row.last_received) == (3, 5, 7, 9.0)
    assert (row.drops, row.learnt_macs) == ({"loop": 2}, 4)


def test_a_path_of_which_nothing_is_known_is_zero():
    peer = LivePeer(1)
    peer.path.search = PathMtu(1420)

    assert counters.row(LivePeer(1), 1420, 0, 0).path_mtu == counters.row(peer, 1420, 0, 0).path_mtu == 0


def test_what_the_kernel_knows_of_a_path_is_no_more_than_the_device_takes():
    peer = LivePeer(1)
    peer.path.is_known = True

    assert counters.row(peer, 1434, 14, 0).path_mtu == 1420
    peer.path.mtu = 1300
    assert counters.row(peer, 1434, 14, 0).path_mtu == 1286


def test_what_a_probe_found_is_told_without_the_frame_around_the_packet():
    peer = LivePeer(1)
    peer.path.search = PathMtu(1434)
    peer.path.search.is_confirmed, peer.path.search.size = True, 1300

    assert counters.row(peer, 1434, 14, 0).path_mtu == 1286


def test_a_row_tells_everything():
    peer = LivePeer(3)
    peer.endpoint = ("192.0.2.1", 51820)
    peer.traffic.tx_bytes, peer.traffic.rx_bytes, peer.traffic.tx_packets, peer.traffic.rx_packets = (
        10,
        11,
        12,
        13,
    )
    peer.contact.last_received, peer.traffic.tx_units, peer.traffic.rx_units = 14.5, 15, 16
    peer.drops["loop"] = 17

    assert counters.row(peer, 1420, 0, 18) == PeerCounters(
        peer=3, endpoint=("192.0.2.1", 51820), tx_bytes=10, rx_bytes=11, tx_packets=12, rx_packets=13,
        last_received=14.5, drops={"loop": 17}, tx_units=15, rx_units=16, path_mtu=0, learnt_macs=18,
    )  # fmt: skip


def test_lanes_are_told_where_the_node_has_several():
    peer = LivePeer(7)
    peer.traffic.tx_packets, peer.traffic.rx_bytes = 3, 100

    told = counters.row(peer, 1420, 0, 0, 2)

    assert told.by_lane == [(0, 100, 3, 0), (0, 0, 0, 0)]
    assert (told.session_lanes, told.open_lanes) == (1, 1)
    assert counters.row(peer, 1420, 0, 0).by_lane == []


def test_size_of_units_is_told_while_units_go_and_not_where_plain_messages_do():
    peer = LivePeer(7)
    size = SimpleNamespace(limit=32, is_plain=False)
    bulk = SimpleNamespace(key="key", size=size)
    peer.keypairs = SimpleNamespace(current=SimpleNamespace(lanes=None, bulk=bulk))

    assert counters.row(peer, 1420, 0, 0).unit_segments == 32
    size.is_plain = True
    assert counters.row(peer, 1420, 0, 0).unit_segments == 0
    size.is_plain, bulk.key = False, None
    assert counters.row(peer, 1420, 0, 0).unit_segments == 0
