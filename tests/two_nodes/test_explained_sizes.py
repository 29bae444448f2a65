"""`overlay explain --size` predicts what the packet path does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.link.messages import AskCounters, Counters
from tests import packets
from tests.overlay.explaining.test_size import THERE, make_bench
from tests.overlay.wire.test_mss import mss_of, syn
from tests.sim import World
from tests.two_nodes.test_mtu import CIPHERS, df, free, icmp_mtus, narrow, put, udp


@pytest.fixture
def world():
    return World(ciphers=CIPHERS)


def explained(node, version, size):
    """Return the explanation of a packet by what the forwarder of *node* reports about its peer."""
    node.tell(AskCounters(1))
    node.world.run(0.1)
    told = [report for report in node.reported if isinstance(report, Counters)][-1]
    bench = make_bench(told.peers[0].path_mtu or None)
    bench.plan = replace(bench.plan, mtu=node.mtu)
    return bench.explain(THERE[version], size=size).fit


def sent(world, a, b, packet):
    """Return what arrives of *packet*, and what its sender is told."""
    a.received.clear()
    b.received.clear()
    put(a, packet)
    world.run(1)
    return list(b.received), icmp_mtus(a, packet[0] >> 4)


SIZES = {4: (100, 1200, 1201, 1280, 1344, 1345, 1420), 6: (100, 1200, 1201, 1280, 1281, 1344, 1345, 1420)}


@pytest.mark.parametrize("path", [1420, 1350, 1200])
@pytest.mark.parametrize("version", [4, 6])
def test_what_is_explained_of_a_size_is_what_happens(world, version, path):
    a, b = narrow(world, path)
    for size in SIZES[version]:
        found = explained(a, version, size)
        packet = udp(a, b, size, version)
        packet = df(packet) if version == 4 else packet

        arrived, told = sent(world, a, b, packet)

        is_whole = found["fate"] in {"whole", "outer_fragmented"}
        assert arrived == ([packet] if is_whole else []), (size, found)
        assert told == ([] if found["icmp_mtu_bytes"] is None else [found["icmp_mtu_bytes"]])
        assert is_whole == (size <= found["largest_bytes"])
        if version == 4:
            pieces, told = sent(world, a, b, free(packet))
            assert (len(pieces) > 1, told) == (found["fate_without_df"] == "fragmented", []), (size, found)


@pytest.mark.parametrize("path", [1420, 1350, 1200])
@pytest.mark.parametrize("version", [4, 6])
def test_the_mss_that_is_explained_is_what_syns_announce(world, version, path):
    a, b = narrow(world, path)

    (there,), _ = sent(world, a, b, syn(1460, version, source=a.inner(version), destination=b.inner(version)))

    assert mss_of(there) == explained(a, version, 100)["mss_bytes"]
    assert packets.is_l4_checksum_right(there)
