"""Peers that a node knows and has no tunnel with."""

from __future__ import annotations

import pytest

from overlay.amending import amend
from overlay.troubles.absent import absent
from overlay.uapi.language import DeviceChange, PeerChange
from tests.overlay.test_amending import node_of
from tests.overlay.uapi.test_amendments import OSLO, PARIS, file

TAKEN = DeviceChange(takes_key=True)


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        ((), "no other peers"),
        ((TAKEN,), "no tunnels: 3 peers wait for the private key of this node"),
        ((DeviceChange(replaces_peers=True),), "no tunnels: wg removed 3 peers"),
        (
            (
                TAKEN,
                DeviceChange(peers=(PeerChange(PARIS, is_removed=True), PeerChange(OSLO, is_removed=True))),
            ),
            "no tunnels: 1 peer waits for the private key of this node; wg removed 2 peers",
        ),
    ],
)
def test_a_node_without_tunnels_says_whom_it_knows(changes, described):
    node = node_of(file())
    for change in changes:
        node = amend(node, change)

    assert absent(node).describe() == described
