"""Peers that are heard from the endpoint of another."""

from __future__ import annotations

import pytest

from overlay.roster import Remote
from overlay.troubles.misplaced import find_misplaced
from tests.peers.examples import peer

TOKYO, ROME, ELSEWHERE = ("192.0.2.2", 51820), ("192.0.2.3", 51820), ("203.0.113.9", 51820)


def found(tokyo=TOKYO, rome=ROME, *, silent=(), tokyo_is_at=TOKYO, rome_is_at=ROME):
    """Return what is found where the two are heard from these places, and have these endpoints."""
    remotes = []
    for number, (name, heard_at, resolved) in enumerate(
        (("tokyo", tokyo, tokyo_is_at), ("rome", rome, rome_is_at)), 1
    ):
        remote = Remote(number, peer(name), None)
        remote.heard_at, remote.resolved = heard_at, () if resolved is None else (resolved,)
        remotes.append(remote)
    return find_misplaced(remotes, lambda each: each.peer.name not in silent)


def test_two_that_are_in_each_others_place_have_one_finding_with_both_causes():
    told = found(ROME, TOKYO)

    assert set(told) == {"tokyo", "rome"}
    (finding,) = set(told.values())
    assert str(finding) == (
        "tokyo is heard from 192.0.2.3:51820 and rome from 192.0.2.2:51820, each of which the peers file here has as "
        "the endpoint of the other: exchange the endpoints of tokyo and rome in the peers file here, or their public "
        "keys if those are in each other's place: `overlay pubkey` at tokyo prints its own"
    )


def test_one_that_is_heard_where_another_should_be_is_named_with_it():
    told = found(ROME, None)

    assert set(told) == {"tokyo"}
    assert told["tokyo"].problem == (
        "tokyo is heard from 192.0.2.3:51820, which the peers file here has as the endpoint of rome"
    )
    assert found(ROME, TOKYO, silent={"rome"}) == told


@pytest.mark.parametrize(
    "situation",
    [
        {},
        {"tokyo": ELSEWHERE},  # it roams
        {"tokyo": ROME, "silent": {"tokyo"}},  # a while ago
        {"tokyo": ROME},  # both are behind one NAT now
        {"tokyo": ROME, "rome": None, "tokyo_is_at": None},  # it has no endpoint
        # Two ports of one NAT, which has lent one of them to the other peer
        {"tokyo": ROME, "rome": None, "tokyo_is_at": (ROME[0], 51821)},
    ],
)
def test_peer_may_be_anywhere_else(situation):
    assert found(**situation) == {}
