from __future__ import annotations

from overlay.roster import Remote
from overlay.troubles import SHOWN, notes_of, troubles_of
from tests.peers.examples import peer

NOW = 1000.0


def test_peer_that_is_heard_from_two_places_in_turn_is_a_trouble():
    tokyo = Remote(1, peer("tokyo"), None)
    tokyo.whereabouts.moved(("192.0.2.1", 1), ("192.0.2.1", 2), 100, NOW)

    (sentence,) = troubles_of(tokyo, NOW)

    assert sentence.startswith("tokyo is heard from 192.0.2.1:1 and 192.0.2.1:2 in turn, 100 times")


def test_peer_in_order_has_no_troubles():
    assert troubles_of(Remote(1, peer("tokyo"), None), NOW) == []


def test_notes_tell_of_few_peers_and_how_many_more_there_are():
    rows = [{"notes": []}, *({"notes": [f"note {number}"]} for number in range(SHOWN + 3))]

    notes = notes_of(rows)

    assert notes[:SHOWN] == [f"note {number}" for number in range(SHOWN)]
    assert notes[SHOWN:] == ["there are notes on 3 more peers: `overlay status --json` has them"]
