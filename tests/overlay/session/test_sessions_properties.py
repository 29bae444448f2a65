"""What holds for any input and any weather."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.cookies import CookieHolder
from overlay.errors import PacketError
from overlay.session.outputs import InstallKeypair
from tests.hypothesis_profiles import examples
from tests.overlay.session.pair import START, Flight, Pair, match, snapshot

SOURCE = ("203.0.113.9", 9)


def exactly(size):
    return st.binary(min_size=size, max_size=size)


def typed(kind, size):
    return exactly(size - 4).map(lambda rest: bytes([kind, 0, 0, 0]) + rest)


garbage = st.one_of(
    st.binary(max_size=200),
    typed(1, 148),
    typed(2, 92),
    typed(3, 64),
    typed(4, 32),
)


@given(garbage)
def test_any_bytes_are_refused_with_nothing_changed(datagram):
    pair = Pair()
    pair.a.want()
    before = snapshot(pair.a.sessions)

    with pytest.raises(PacketError):
        pair.a.sessions.receive(datagram, SOURCE, START)

    assert snapshot(pair.a.sessions) == before


@given(st.one_of(typed(1, 148), typed(2, 92)), st.booleans())
def test_any_bytes_with_a_right_mac1_and_index_are_refused_with_nothing_changed(datagram, is_for_our_index):
    pair = Pair()
    pair.a.want()
    if is_for_our_index and datagram[0] == 2:
        datagram = datagram[:8] + pair.flights[0].datagram[4:8] + datagram[12:]
    datagram = CookieHolder(pair.a.key.public).add_macs(datagram, START)
    before = snapshot(pair.a.sessions)

    with pytest.raises(PacketError):
        pair.a.sessions.receive(datagram, SOURCE, START)

    assert snapshot(pair.a.sessions) == before


def flipped(datagram, bit):
    changed = bytearray(datagram)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(st.integers(0, 132 * 8 - 1))
def test_a_flipped_bit_of_an_initiation_is_refused_with_nothing_changed(bit):
    pair = Pair()
    pair.a.want()
    flight = pair.flights[0]
    before = snapshot(pair.b.sessions)

    with pytest.raises(PacketError):
        pair.b.sessions.receive(flipped(flight.datagram, bit), SOURCE, START)

    assert snapshot(pair.b.sessions) == before
    pair.settle()
    assert pair.is_connected()


# Past the type and the sender's index, which only the MAC and the response's addressee protect.
@given(st.integers(8 * 8, 116 * 8 - 1))
def test_a_flipped_bit_under_a_right_mac1_is_refused_with_nothing_changed(bit):
    pair = Pair()
    pair.a.want()
    flight = pair.flights[0]
    before = snapshot(pair.b.sessions)
    forged = CookieHolder(pair.b.key.public).add_macs(flipped(flight.datagram, bit), START)

    with pytest.raises(PacketError):
        pair.b.sessions.receive(forged, SOURCE, START)

    assert snapshot(pair.b.sessions) == before
    pair.settle()
    assert pair.is_connected()


@given(st.integers(0, 76 * 8 - 1), st.booleans())
def test_a_flipped_bit_of_a_response_is_refused_with_nothing_changed(bit, is_mac_right):
    pair = Pair()
    pair.a.want()
    pair.deliver(pair.flights.pop())
    flight = pair.flights[0]
    before = snapshot(pair.a.sessions)
    forged = flipped(flight.datagram, bit)
    if is_mac_right and not 4 * 8 <= bit < 8 * 8 and bit < 60 * 8:
        forged = CookieHolder(pair.a.key.public).add_macs(forged, START)

    with pytest.raises(PacketError):
        pair.a.sessions.receive(forged, SOURCE, START)

    assert snapshot(pair.a.sessions) == before
    pair.settle()
    assert pair.is_connected()


@examples(60)
@given(st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.3), st.floats(0, 0.5))
def test_two_nodes_meet_through_any_weather(seed, loss, duplication, disorder):
    dice = random.Random(seed)
    pair = Pair(seed=seed)
    for _ in range(40):
        chosen = dice.choice(pair.nodes)
        chosen.want()
        chosen.is_loaded = dice.random() < 0.2
        _storm(pair, dice, loss, duplication, disorder)
        for node in pair.nodes:
            for index in [index for index in node.keypairs if dice.random() < 0.1]:
                node.sessions.retired(index)
                del node.keypairs[index]
        pair.clock.advance(dice.choice([0.01, 1.0, 6.0]))
        for node in pair.nodes:
            node.carry_out(node.sessions.handle_deadline(pair.clock.now))

    # The network recovers: within two retries (one may fetch a cookie), both have the same session.
    pair.flights.clear()
    pair.a.is_loaded = pair.b.is_loaded = False
    pair.advance(200)
    pair.a.want()
    pair.advance(12)

    newest = pair.a.of(InstallKeypair)[-1]
    assert any(match(newest, theirs) for theirs in pair.b.of(InstallKeypair))
    for node in pair.nodes:
        assert set(node.refused) <= {"initiation_replayed", "initiation_flood", "response_index", "cookie_index",
                                     "cookie_seal", "cookie_unexpected"}  # fmt: skip
        live = len(node.keypairs) + node.sessions.status(1).is_running
        assert len(node.sessions._indices) == live


def _storm(pair, dice, loss, duplication, disorder):
    for _ in range(30):
        if not pair.flights:
            break
        position = dice.randrange(len(pair.flights)) if dice.random() < disorder else 0
        flight: Flight = pair.flights.pop(position)
        if dice.random() < loss:
            continue
        if dice.random() < duplication:
            pair.flights.append(flight)
        pair.deliver(flight)


@given(st.integers(0, 2**32))
def test_every_keypair_of_an_initiator_has_its_other_side(seed):
    dice = random.Random(seed)
    pair = Pair(seed=seed)
    for _ in range(15):
        dice.choice(pair.nodes).want()
        _storm(pair, dice, 0.2, 0.1, 0.3)
        pair.clock.advance(5.5)
        for node in pair.nodes:
            node.carry_out(node.sessions.handle_deadline(pair.clock.now))

    for here, there in (pair.nodes, pair.nodes[::-1]):
        for mine in here.of(InstallKeypair):
            if mine.is_initiator:
                assert sum(match(mine, theirs) for theirs in there.of(InstallKeypair)) == 1
