"""What a table requires of the host."""

from __future__ import annotations

import pytest

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.provisioning.planning import plan
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))
PARIS = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
TOKYO = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2")
AT = {("tokyo", ("192.0.2.2", 51820))}


def planned(mtu=1500):
    return plan(Node(PRIVATE, table(PARIS, TOKYO), PARIS, {}), AT, {"192.0.2.2": mtu}, "overlay0")


def test_mtu_is_what_fits_the_narrowest_way():
    found = planned()

    assert (found.plan.mtu, found.room) == (1420, 1420)
    assert found.mtu_reason.startswith("1500 on the way to tokyo at 192.0.2.2, less 80")


def test_mtu_of_the_peers_file_is_taken_as_it_is():
    found = plan(Node(PRIVATE, table(PARIS, TOKYO, mtu=1400), PARIS, {}), AT, {"192.0.2.2": 1500}, "overlay0")

    assert (found.plan.mtu, found.mtu_reason, found.room) == (1400, "as the peers file says", 1420)


@pytest.mark.parametrize("room", [1220, 1279])
def test_mtu_is_never_too_small_for_ipv6(room):
    found = planned(mtu=room + 80)

    assert (found.plan.mtu, found.room) == (1280, room)
    assert found.mtu_reason.endswith("but at least 1280")


@pytest.mark.parametrize("room", [1280, 1281])
def test_mtu_that_is_enough_for_ipv6_is_what_fits(room):
    found = planned(mtu=room + 80)

    assert (found.plan.mtu, found.room) == (room, room)
    assert "at least" not in found.mtu_reason
