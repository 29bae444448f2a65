from __future__ import annotations

import json

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.host.netlink.path_mtu_exceptions import LearntMtu
from overlay.link.messages import PeerCounters
from overlay.roster import Remote
from overlay.session.constants import REJECT_AFTER_TIME
from overlay.session.peer import HandshakeStatus
from overlay.status import age, lane_traffic, peer_status, state_of
from peers.peer import Endpoint
from tests.peers.examples import key_text, peer

NOW = 10_000.0


def handshake(completed_at=None, is_running=False, is_given_up=False, **doubts):
    return HandshakeStatus(is_running, 0, is_given_up, completed_at, **doubts)


def row(handshakes=None, counters=None, remote=None):
    remote = remote or Remote(1, peer("tokyo", "10.244.2.0/24", "fd00:244:2::/64", keepalive=25), b"secret")
    return peer_status(remote, handshakes or handshake(), counters, NOW, REJECT_AFTER_TIME)


@pytest.mark.parametrize(
    ("handshakes", "state"),
    [
        (handshake(), "idle"),
        (handshake(is_running=True), "connecting"),
        (handshake(is_given_up=True), "unreachable"),
        (handshake(completed_at=NOW), "up"),
        (handshake(completed_at=NOW - 179.9), "up"),
        (handshake(completed_at=NOW - 180), "idle"),
        (handshake(completed_at=NOW - 100, is_running=True), "up"),
        (handshake(completed_at=NOW - 100, is_given_up=True), "unreachable"),
        (handshake(completed_at=NOW - 200, is_running=True), "connecting"),
        (handshake(completed_at=NOW - 200, is_given_up=True), "unreachable"),
        (handshake(completed_at=NOW + 1), "up"),
        (handshake(unconfirmed=3, doubted_at=NOW - 179), "unconfirmed"),
        (handshake(unconfirmed=2, doubted_at=NOW), "idle"),
        (handshake(refused=1, doubted_at=NOW - 5, is_running=True), "unconfirmed"),
        (handshake(refused=1, doubted_at=NOW - 5, is_given_up=True), "unconfirmed"),
        (handshake(refused=1, doubted_at=NOW - 181, is_given_up=True), "unreachable"),
        (handshake(completed_at=NOW - 100, unconfirmed=3, doubted_at=NOW), "up"),
    ],
)
def test_peer_is_up_while_its_last_keypair_may_be_used_unless_it_was_given_up(handshakes, state):
    assert state_of(handshakes, NOW, REJECT_AFTER_TIME) == state


def test_peer_that_answers_nothing_is_silent_as_long_as_it_would_be_up():
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24"), None, is_silent=True)

    states = [row(each, remote=tokyo)["state"] for each in (handshake(NOW - 100), handshake(NOW - 200))]

    assert states == ["silent", "idle"]


@pytest.mark.parametrize("handshakes", [handshake(), handshake(is_running=True), handshake(is_given_up=True)])
def test_peer_whose_endpoint_was_not_resolved_is_called_so_and_noted(handshakes):
    endpoint = Endpoint.parse("tokyo.example.net", 51820)
    error = "tokyo.example.net was not resolved (Name or service not known)"
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24"), None, configured=endpoint, resolve_error=error)

    shown = row(handshakes, remote=tokyo)

    assert (shown["state"], shown["endpoint"]) == ("unresolved", None)
    (note,) = shown["notes"]
    assert note.startswith(f"tokyo cannot be reached, because its endpoint {error}: ")


def test_peer_that_is_still_called_where_it_was_is_noted_with_that_place():
    endpoint = Endpoint.parse("new.example.net", 51820)
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24"), None, configured=endpoint, resolve_error="it rains")
    counters = PeerCounters(1, ("203.0.113.9", 4500), 11, 22, 3, 4, NOW - 2.5, {}, 5, 6, 1344, 7)

    shown = row(handshake(completed_at=NOW), counters, tokyo)

    assert (shown["state"], shown["endpoint"]) == ("up", "203.0.113.9:4500")
    assert shown["notes"][0].startswith(
        "tokyo is still contacted at 203.0.113.9:4500, its last known address"
    )


def test_replayed_initiations_are_counted_at_their_peer():
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24"), None, replays=3)

    assert row(remote=tokyo)["drops"] == {"initiation_replayed": 3}


def test_row_of_a_peer_in_use():
    counters = PeerCounters(1, ("203.0.113.9", 4500), 11, 22, 3, 4, NOW - 2.5, {"replayed": 1}, 5, 6, 1344, 7)

    assert row(handshake(completed_at=NOW - 61.23456), counters) == {
        "name": "tokyo",
        "public_key": key_text("tokyo"),
        "encapsulation": "wireguard",
        "is_encrypted": True,
        "endpoint": "203.0.113.9:4500",
        "addresses": ["10.244.2.0", "fd00:244:2::"],
        "subnets": ["10.244.2.0/24", "fd00:244:2::/64"],
        "mac": None,
        "own_mac": None,
        "keepalive": 25,
        "changed_by_wg": False,
        "last_handshake": 61.235,
        "last_received": 2.5,
        "rx_bytes": 22,
        "tx_bytes": 11,
        "rx_packets": 4,
        "tx_packets": 3,
        "rx_units": 6,
        "tx_units": 5,
        "path_mtu": 1344,
        "kernel_path_mtu": None,
        "kernel_path_mtu_expires": None,
        "learnt_macs": 7,
        "session_lanes": 1,
        "open_lanes": 1,
        "unit_segments": 0,
        "state": "up",
        "drops": {"replayed": 1},
        "clock_behind": None,
        "unconfirmed": 0,
        "responses_refused": 0,
        "notes": [],
    }


def test_row_without_the_forwarders_counters_has_the_agents_endpoint_and_nothing_that_is_not_known():
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24"), None, endpoint=("2001:db8::1", 51820, 0, 0))

    shown = row(remote=tokyo)

    assert shown["endpoint"] == "[2001:db8::1]:51820"
    names = (
        "rx_bytes",
        "tx_bytes",
        "rx_packets",
        "tx_packets",
        "rx_units",
        "tx_units",
        "learnt_macs",
        "session_lanes",
        "open_lanes",
        "unit_segments",
        "drops",
    )
    assert {name: shown[name] for name in names} == dict.fromkeys(names)
    assert (shown["last_handshake"], shown["last_received"]) == (None, None)


def test_what_lanes_carried_is_summed_over_all_peers():
    told = [
        PeerCounters(1, None, 0, 0, 0, 0, 0.0, {}, by_lane=[(1, 2, 3, 4), (5, 6, 7, 8)]),
        PeerCounters(2, None, 0, 0, 0, 0, 0.0, {}, by_lane=[(10, 20, 30, 40), (50, 60, 70, 80)]),
        PeerCounters(3, None, 0, 0, 0, 0, 0.0, {}),  # reported by a forwarder with one lane
    ]

    assert lane_traffic(told, 2) == [
        {"tx_bytes": 11, "rx_bytes": 22, "tx_packets": 33, "rx_packets": 44},
        {"tx_bytes": 55, "rx_bytes": 66, "tx_packets": 77, "rx_packets": 88},
    ]


def test_nothing_is_said_of_a_single_lane():
    assert lane_traffic([PeerCounters(1, None, 1, 1, 1, 1, 0.0, {})], 1) == []


def test_peer_never_heard_has_no_age():
    counters = PeerCounters(1, None, 0, 0, 0, 0, 0.0, {})

    shown = row(counters=counters)

    assert (shown["endpoint"], shown["last_received"], shown["path_mtu"]) == (None, None, None)


def test_row_is_json_and_shows_no_secret():
    assert "secret" not in json.dumps(row())


def test_age_is_never_negative():
    assert age(NOW + 5, NOW) == 0.0
    assert age(None, NOW) is None


def test_row_of_a_peer_in_the_clear_has_no_handshake_and_no_key():
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24", public_key=None), None, ENCAPSULATIONS["udp"])

    shown = peer_status(tokyo, None, None, NOW, REJECT_AFTER_TIME)

    assert (shown["state"], shown["encapsulation"], shown["is_encrypted"]) == ("unencrypted", "udp", False)
    assert (shown["public_key"], shown["last_handshake"]) == (None, None)


def test_row_of_a_vxlan_peer_has_the_ethernet_addresses_of_both_ends():
    ends = Ends(1, own_mac=bytes.fromhex("02005e100001"), mac=bytes.fromhex("02005e100002"))
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24"), None, ENCAPSULATIONS["vxlan"], ends)

    shown = peer_status(tokyo, None, None, NOW, REJECT_AFTER_TIME)

    assert (shown["mac"], shown["own_mac"]) == ("02:00:5e:10:00:02", "02:00:5e:10:00:01")


@pytest.mark.parametrize("host", ["192.0.2.2", "fe80::1%eth0"])
def test_row_tells_what_the_kernel_was_told_of_the_path(host):
    endpoint = (host, 51820) if "." in host else (host, 51820, 0, 2)
    tokyo = Remote(1, peer("tokyo", "10.244.2.0/24"), None, endpoint=endpoint)
    learnt = {
        "192.0.2.2": LearntMtu(552, 598.0),
        "fe80::1": LearntMtu(552, 598.0),
        "192.0.2.3": LearntMtu(1400, 1),
    }

    shown = peer_status(tokyo, None, None, NOW, REJECT_AFTER_TIME, learnt)

    assert (shown["kernel_path_mtu"], shown["kernel_path_mtu_expires"]) == (552, 598.0)
    (note,) = shown["notes"]
    assert (
        "the path to tokyo carries packets of at most 552 bytes, and the kernel uses this for 9 min 58 s more"
        in note
    )
