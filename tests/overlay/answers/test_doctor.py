from __future__ import annotations

from overlay.answers.doctor import count_floods
from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.link.messages import PeerCounters
from overlay.roster import Roster
from overlay.supervision.counters import Counted
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))
MANY = 30


def test_every_peer_of_which_packets_were_dropped_early_is_told_of():
    """What grows is not what is large: the survey and the second look must have the same peers."""
    paris = peer("paris", "10.244.250.0/24", public_key=PRIVATE.public)
    others = [peer(f"peer{number}", f"10.244.{number}.0/24") for number in range(MANY)]
    roster = Roster()
    roster.change_to(Node(PRIVATE, table(paris, *others), paris, {}))
    rows = {
        each.number: PeerCounters(each.number, None, 0, 0, 0, 7, 0.0, {"crowded": count} if count else {})
        for count, each in enumerate(roster.by_number.values())
    }

    told = count_floods(roster, Counted(rows, {}, True))

    assert sorted(told.values()) == [[count, 7] for count in range(1, MANY)]
