"""Handshakes for other public keys than this node's."""

from __future__ import annotations

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.diagnosis.finding import Finding
from overlay.session.sessions import Sessions
from overlay.troubles.misdirected import MOST, TOLD_TIME, WORTH_TELLING, Misdirected
from peers.peer import format_public_key
from tests.overlay.session.pair import seeded
from tests.peers.examples import peer

NOW = 1000.0
PRIVATE, ROME_PRIVATE = PrivateKey.generate(seeded("paris")), PrivateKey.generate(seeded("rome"))
PARIS = peer("paris", public_key=PRIVATE.public)
OTHERS = [
    peer("tokyo", public_key=PrivateKey.generate(seeded("tokyo")).public),
    peer("rome", public_key=ROME_PRIVATE.public),
]
AT = ("192.0.2.2", 51820)


def initiation_for(public_key):
    sessions = Sessions(PrivateKey.generate(seeded("x")), entropy=seeded("x"), wall_ns=lambda: 0)
    sessions.add_peer(1, public_key)
    return sessions.want(1, 0.0)[0].datagram


MISTYPED = initiation_for(PrivateKey.generate(seeded("mistyped")).public)


def called(times, datagram=MISTYPED, source=AT):
    misdirected = Misdirected()
    news = [misdirected.note(datagram, source, NOW) for _ in range(times)]
    return misdirected, news


def described(misdirected, names=None, own=PARIS, now=NOW + 5):
    return misdirected.describe({} if names is None else names, own, OTHERS, now)


def test_host_that_keeps_calling_another_key_is_told_with_what_to_compare():
    misdirected, news = called(5)

    assert news == [False] * (WORTH_TELLING - 1) + [True] + [False] * (5 - WORTH_TELLING)
    assert described(misdirected, {"192.0.2.2": "tokyo"}) == {
        "192.0.2.2": Finding(
            "wrong_key_there",
            "handshakes for a public key other than this node's arrive from 192.0.2.2:51820, the address of tokyo "
            "(the last 5 s ago)",
            f"compare the public_key of paris in the peers file there with {format_public_key(PRIVATE.public)}, which "
            "is this node's",
            "tokyo",
        )
    }


def test_of_an_address_that_is_no_peers_just_that_is_said():
    misdirected, _ = called(WORTH_TELLING)

    (finding,) = described(misdirected, now=NOW).values()

    assert finding.peer is None
    assert "arrive from 192.0.2.2:51820, which is not the address of a known peer: compare" in str(finding)


def test_handshakes_for_a_key_of_the_peers_file_name_whose_it_is():
    misdirected, _ = called(WORTH_TELLING, initiation_for(ROME_PRIVATE.public))

    (finding,) = described(misdirected, {"192.0.2.2": "tokyo"}).values()

    assert finding.name == "wrong_place_there"
    assert str(finding) == (
        "handshakes for the public key of rome arrive from 192.0.2.2:51820, the address of tokyo (the last 5 s ago): "
        "see whether the peers file there has this node's address as the endpoint of rome, or the key of rome for paris"
    )


def test_few_messages_are_not_worth_a_word():
    assert described(called(WORTH_TELLING - 1)[0]) == {}


def test_what_was_long_ago_is_told_no_more():
    misdirected, _ = called(WORTH_TELLING)

    assert described(misdirected, now=NOW + TOLD_TIME - 1)
    assert not described(misdirected, now=NOW + TOLD_TIME)


def test_host_from_which_a_handshake_is_completed_is_forgotten():
    misdirected, _ = called(WORTH_TELLING)

    misdirected.forget("192.0.2.2")
    misdirected.forget("192.0.2.3")

    assert not misdirected


def test_a_port_that_changes_is_the_same_host():
    misdirected = Misdirected()
    for port in range(WORTH_TELLING):
        misdirected.note(MISTYPED, ("192.0.2.2", 1 + port), NOW)

    (finding,) = described(misdirected).values()
    assert f"192.0.2.2:{WORTH_TELLING}" in finding.problem


def test_flood_from_made_up_addresses_is_bounded_and_does_not_displace_who_calls_again():
    misdirected, _ = called(WORTH_TELLING)
    for number in range(1000):
        misdirected.note(MISTYPED, (f"203.0.{number // 250}.{number % 250}", 1), NOW + number)

    assert len(misdirected._by_host) == MOST
    assert set(described(misdirected)) == {"192.0.2.2"}


@pytest.mark.parametrize("datagram", [b"", bytes(32), b"\x01" * 148])
def test_any_bytes_are_for_nobody_that_is_known(datagram):
    misdirected, _ = called(WORTH_TELLING, datagram)

    assert "a public key other than this node's" in described(misdirected)["192.0.2.2"].problem


def test_a_node_without_a_key_has_nothing_to_compare():
    assert described(called(WORTH_TELLING)[0], own=peer("paris", public_key=None)) == {}
