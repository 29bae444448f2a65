"""Peers that are removed and return, and what was recorded about them before."""

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.errors import ReplayedInitiationError
from overlay.session.outputs import Transmit
from overlay.session.remembered import MOST, NONE, Remembered
from tests.overlay.session.pair import Pair

OTHER = PrivateKey(bytes(range(32)))


def test_timestamp_is_kept_for_the_peer_that_comes_back():
    kept = Remembered()

    kept.keep(b"a", b"\x01" * 12)
    kept.keep(b"b", NONE)

    assert (kept.take(b"a"), kept.take(b"a"), kept.take(b"b")) == (b"\x01" * 12, NONE, NONE)


def test_only_the_most_recent_are_kept():
    kept = Remembered()

    for number in range(MOST + 10):
        kept.keep(number.to_bytes(32, "big"), b"\x01" * 12)

    assert len(kept._kept) == MOST
    assert kept.take((9).to_bytes(32, "big")) == NONE
    assert kept.take((10).to_bytes(32, "big")) != NONE


@pytest.mark.parametrize("how", ["removed", "given another key"])
def test_recorded_initiation_is_refused_from_a_peer_that_went_and_came_back(how):
    """Before, it was answered, and moved the peer's endpoint to its source."""
    pair = Pair()
    pair.handshake()
    recorded = pair.a.of(Transmit)[0].datagram
    sessions = pair.b.sessions
    if how == "removed":
        pair.b.carry_out(sessions.remove_peer(1))
        sessions.add_peer(1, pair.a.key.public)
    else:
        sessions.change_public_keys({1: (OTHER.public, None)})
        sessions.change_public_keys({1: (pair.a.key.public, None)})

    with pytest.raises(ReplayedInitiationError):
        sessions.receive(recorded, ("192.0.2.66", 6), pair.clock.now)

    pair.advance(6)
    pair.handshake()
    assert pair.is_connected()
