from __future__ import annotations

import pytest

from overlay.forwarding.owners import Owners
from overlay.forwarding.peer import LivePeer
from overlay.forwarding.table import Prefixes
from overlay.link.messages import OWN
from overlay.link.service_messages import VIRTUAL


@pytest.fixture
def table():
    """A table of this node, of the peer 1 and of a virtual address."""
    owners = Owners()
    owners.stage(
        [
            (bytes([10, 0, 0, 0]), 24, owners.own),
            (bytes([10, 0, 1, 0]), 24, LivePeer(1)),
            (bytes([10, 0, 2, 0]), 24, LivePeer(VIRTUAL)),
        ]
    )
    owners.commit()
    return owners


@pytest.mark.parametrize(
    ("place", "number", "is_peer"), [(0, OWN, False), (1, 1, True), (2, None, False), (3, None, False)]
)
def test_an_address_belongs_to_this_node_to_a_peer_or_to_nobody(table, place, number, is_peer):
    address = bytes([10, 0, place, 7])

    assert table.number_of(address) == number
    assert table.is_own(address) == (number == OWN)
    assert table.peer_of(address) is (table.find(address) if is_peer else None)


@pytest.mark.parametrize(("length", "may_send"), [(23, False), (24, True), (25, True), (None, False)])
def test_a_source_that_another_peer_has_by_a_longer_prefix_is_excluded(table, length, may_send):
    peer = LivePeer(2)
    if length is not None:
        peer.unsealed.sources = Prefixes()
        peer.unsealed.sources.insert(bytes([10, 0, 0, 0]), length, True)

    assert table.has_source(peer, bytes([10, 0, 0, 7])) == may_send
