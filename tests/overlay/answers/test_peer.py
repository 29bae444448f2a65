from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from overlay.amending import amend
from overlay.answers.peer import (
    describe_peer,
    endpoint_origin,
    find_peer,
    misdirected_notes,
    refuse_peer,
)
from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.diagnosis.finding import Finding
from overlay.encap import gre
from overlay.encap.encapsulation import Ends
from overlay.roster import Remote, Roster
from overlay.uapi.language import DeviceChange
from peers.peer import Endpoint
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))
PARIS = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public, endpoint="192.0.2.1")
TOKYO = peer("tokyo", "10.244.2.0/24", "fd00:244:2::/64", "0.0.0.0/0", endpoint="tokyo.example.net")
ROME = peer("rome", "10.244.3.0/24", "10.244.2.128/25")
NODE = Node(PRIVATE, table(PARIS, TOKYO, ROME), PARIS, {})


def running_at(roster, node):
    options = SimpleNamespace(peers="peers.toml", interface="ov1")
    return SimpleNamespace(roster=roster, options=options, node=lambda: node)


@pytest.fixture
def roster():
    made = Roster()
    made.change_to(NODE)
    return made


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("tokyo", "tokyo"),
        ("10.244.2.0", "tokyo"),
        ("10.244.2.7", "tokyo"),
        ("10.244.2.129", "rome"),  # the longest prefix decides
        ("fd00:244:2::77", "tokyo"),
        ("203.0.113.1", "tokyo"),
    ],
)
def test_peer_is_found_by_its_name_and_by_any_address_that_is_its(roster, asked, name):
    assert find_peer(asked, roster).peer.name == name


@pytest.mark.parametrize(
    "asked", ["berlin", "", None, 7, "10.244.1.3", "2001:db8::1", "fe80::1%eth0", "1.2.3"]
)
def test_what_is_no_peer_and_no_address_of_one_is_not_found(roster, asked):
    assert find_peer(asked, roster) is None


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("berlin", "there is no peer berlin in peers.toml"),
        ("", "there is no peer with an empty name in peers.toml"),
        ("paris", "paris is this node itself; name another peer"),
        ("10.244.1.0", "10.244.1.0 is this node itself; name another peer"),
        (
            "10.244.1.3",
            "10.244.1.3 is in a subnet of this node, so no tunnel leads to it: use `ping 10.244.1.3`, or name another peer",
        ),
        ("2001:db8::1", "no peer in peers.toml has the address 2001:db8::1"),
    ],
)
def test_refusal_says_what_is_wrong_with_what_was_asked(roster, asked, error):
    refused = refuse_peer(asked, running_at(roster, NODE))

    assert refused["error"] == error
    assert refused.get("known") == (None if refused["kind"] == "own" else ["tokyo", "rome"])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            DeviceChange(takes_key=True),
            (
                "there is no tunnel with tokyo, because this node has no private key: give it one with "
                "`wg set ov1 private-key FILE`"
            ),
        ),
        (
            DeviceChange(replaces_peers=True),
            (
                "wg removed tokyo from this node: it comes back when its section in the peers file changes, or when "
                "the agent is restarted"
            ),
        ),
    ],
)
def test_peer_that_is_known_and_has_no_tunnel_is_refused_with_the_reason(change, error):
    changed, roster = amend(NODE, change), Roster()
    roster.change_to(changed)

    refused = refuse_peer("tokyo", running_at(roster, changed))

    assert (refused["kind"], refused["error"]) == ("absent", error)
    assert refuse_peer("berlin", running_at(roster, changed))["kind"] == "unknown_peer"


def test_description_has_what_explains_a_silence(roster):
    tokyo = roster.by_name["tokyo"]
    tokyo.resolve_error = "tokyo.example.net was not resolved"
    strangers = [{"public_key": "a", "peer": "tokyo"}, {"public_key": "b", "peer": None}]

    described = describe_peer("10.244.2.7", tokyo, {"name": "tokyo"}, NODE, strangers)

    assert described["name"] == "tokyo"
    assert described["own_addresses"] == ["10.244.1.0"]
    assert described["has_own_endpoint"]
    assert described["is_configured"]
    assert described["resolve_error"] == "tokyo.example.net was not resolved"
    assert described["strangers"] == ["a"]
    assert described["asked_address"] == "10.244.2.7"
    assert (described["own_name"], described["carried_by"], described["identified_by"]) == (
        "paris",
        "UDP",
        None,
    )


def test_description_has_what_carries_a_tunnel_in_the_clear_and_what_came_of_another():
    remote = Remote(1, TOKYO, None, gre.ENCAPSULATION, Ends(7))

    described = describe_peer("tokyo", remote, {"drops": {"gre_key": 3}}, NODE, [])
    unknown = describe_peer("tokyo", remote, {"drops": None}, NODE, [])

    assert (described["carried_by"], described["identified_by"]) == ("IP protocol 47", "the GRE key 7")
    assert (described["mismatched"], unknown["mismatched"]) == (3, 0)


def test_a_question_by_name_asks_for_no_address(roster):
    rome = roster.by_name["rome"]

    described = describe_peer("rome", rome, {}, SimpleNamespace(own=ROME, is_bare=False), [])

    assert (described["asked_address"], described["is_configured"], described["has_own_endpoint"]) == (
        None,
        False,
        False,
    )


def test_owner_of_an_address_of_nobody_is_none():
    assert Roster().owner(ip_address("10.244.2.1")) is None


@pytest.mark.parametrize(
    ("name", "last_handshake", "notes"),
    [("tokyo", None, ["one", "three"]), ("tokyo", 600.0, []), ("rome", None, [])],
)
def test_handshakes_for_another_key_explain_a_peer_at_their_address_that_was_never_reached(
    name, last_handshake, notes
):
    told = [
        Finding("wrong_key_there", *each) for each in (("one", "", "tokyo"), ("two",), ("three", "", "tokyo"))
    ]

    assert misdirected_notes({"name": name, "last_handshake": last_handshake}, told) == notes


@pytest.mark.parametrize(
    ("configured", "endpoint", "origin"),
    [
        ("192.0.2.2:51820", "192.0.2.2:51820", "configured"),
        ("tokyo.example.net:51820", "192.0.2.2:51820", "resolved"),
        ("192.0.2.2:51820", "203.0.113.9:4500", "heard"),
        (None, "203.0.113.9:4500", "heard"),
        (None, None, None),
    ],
)
def test_origin_of_an_endpoint_is_told(configured, endpoint, origin):
    remote = Remote(1, TOKYO, None, resolved=(("192.0.2.2", 51820),) if configured else ())
    remote.configured = None if configured is None else Endpoint.parse(configured, 51820)

    assert endpoint_origin(remote, endpoint) == origin
