"""The agent's answers to a capture."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
import trio

from overlay.answers import capture
from overlay.questions import Request
from overlay.reasons import REASONS
from overlay.roster import Roster
from peers.service import Service
from tests.overlay.answers.test_peer import NODE


def ask(*descriptors, in_force=NODE, **values):
    request = Request(values)
    request.descriptors = descriptors
    roster = Roster()
    roster.change_to(NODE)
    roster.node = in_force
    roster.by_name["tokyo"].endpoint = ("192.0.2.2", 51820)
    socket = SimpleNamespace(port=51820, has_port=True)
    raw = SimpleNamespace(port=0, has_port=False, protocol=47)
    host = SimpleNamespace(interface="overlay0", underlay=[socket, socket, raw])
    begun = []

    async def begin(opened, snaplen):
        begun.append(snaplen)
        opened.close()
        return len(descriptors) == 1

    captures = SimpleNamespace(begin=begin, begun=begun)
    running = SimpleNamespace(
        supervisor=SimpleNamespace(captures=captures),
        roster=roster,
        node=lambda: NODE,
        host=host,
        options=SimpleNamespace(peers="peers.toml"),
    )
    told = []

    async def tell(rows):
        told.extend(rows)

    return trio.run(capture.answer, running, request, tell), told, begun


def test_peers_are_told_with_their_prefixes_and_endpoints():
    answer, rows, _ = ask()

    assert answer["capture"] == {
        "schema": 1,
        "table": 1,
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


def test_table_that_the_capture_knows_is_not_told_again():
    answer, rows, _ = ask(table=1)

    assert answer["capture"]["table"] == 1
    assert not rows
    assert ask(table=0)[1]


def test_services_are_told_with_their_virtual_addresses():
    service = Service("shop", (ip_address("10.99.0.1"), ip_address("fd00:99::1")))
    in_force = SimpleNamespace(table=SimpleNamespace(services={"shop": service}))

    _, rows, _ = ask(in_force=in_force)

    assert rows[-1] == {"service": "shop", "addresses": ["10.99.0.1", "fd00:99::1"]}


def test_peer_that_is_asked_for_by_an_address_is_told_by_its_name():
    answer, *_ = ask(name="10.244.2.7")

    assert answer["capture"]["peer"] == "tokyo"


def test_peer_that_is_not_known_is_refused():
    answer, rows, begun = ask(name="berlin")

    assert answer["kind"] == "unknown_peer"
    assert not rows
    assert not begun


@pytest.fixture
def pair():
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(each).fileno()
            for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ]


def test_dropped_packets_are_told_on_the_socket_beside_the_question(pair):
    answer, rows, begun = ask(pair[0], snaplen=96)

    assert answer["ok"]
    assert rows
    assert begun == [96]


@pytest.mark.parametrize("snaplen", [None, 0, -1, "96", 1 << 20, 0.5])
def test_capture_without_a_snaplen_is_refused(pair, snaplen):
    answer, _, begun = ask(pair[0], snaplen=snaplen)

    assert "needs a snaplen" in answer["error"]
    assert not begun


def test_too_many_captures_are_refused(pair):
    answer, rows, _ = ask(*pair, snaplen=96)

    assert answer["error"] == "16 captures are running already: end one of them"
    assert not rows


def test_what_is_not_such_a_socket_is_refused(tmp_path):
    with (tmp_path / "x").open("wb") as file, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        for each in (file, other):
            answer, _, begun = ask(each.fileno(), snaplen=96)
            assert answer["error"].startswith("the descriptor that came with the request is not a ")
            assert not begun
