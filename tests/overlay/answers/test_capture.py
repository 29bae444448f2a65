"""What the agent tells a capture."""

from __future__ import annotations

from types import SimpleNamespace

import trio

from overlay.answers import capture
from overlay.reasons import REASONS
from overlay.roster import Roster
from tests.overlay.answers.test_peer import NODE


def ask(**request):
    roster = Roster()
    roster.change_to(NODE)
    roster.by_name["tokyo"].endpoint = ("192.0.2.2", 51820)
    socket = SimpleNamespace(port=51820, has_port=True)
    raw = SimpleNamespace(port=0, has_port=False, protocol=47)
    host = SimpleNamespace(interface="overlay0", underlay=[socket, socket, raw])
    running = SimpleNamespace(
        roster=roster, node=lambda: NODE, host=host, options=SimpleNamespace(peers="peers.toml")
    )
    told = []

    async def tell(rows):
        told.extend(rows)

    return trio.run(capture.answer, running, request, tell), told


def test_peers_are_told_with_their_prefixes_and_endpoints():
    answer, rows = ask()

    assert answer["capture"] == {
        "schema": 1,
        "node": "paris",
        "interface": "overlay0",
        "is_tap": False,
        "ports": [51820],
        "protocols": [47],
        "peer": None,
        "reasons": list(REASONS),
    }
    tokyo = next(row for row in rows if row["name"] == "tokyo")
    assert {"10.244.2.0/24", "fd00:244:2::/64", "10.244.2.0/32"} <= set(tokyo["prefixes"])
    assert tokyo["endpoint"] == ["192.0.2.2", 51820]


def test_peer_that_is_asked_for_by_an_address_is_told_by_its_name():
    answer, _ = ask(name="10.244.2.7")

    assert answer["capture"]["peer"] == "tokyo"


def test_peer_that_is_not_known_is_refused():
    answer, rows = ask(name="berlin")

    assert answer["kind"] == "unknown_peer"
    assert not rows
