"""Any fragments, any bytes, any weather."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.bulk.reassembly import (
    UNITS_FROM_ELSEWHERE,
    UNITS_PER_SESSION,
)
from tests import packets, units
from tests.hypothesis_profiles import examples
from tests.overlay.forwarding.bulk.bench import ELSEWHERE, PIECE, Bench, changed


@pytest.fixture(scope="module")
def shared():
    """One bench for many examples: refused datagrams may not change it."""
    return Bench()


@examples(150)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 255),
            st.integers(0, 255),
            st.integers(0, 3),
            st.booleans(),
            st.integers(0, 30) | st.integers(0, 2**64 - 1),
            st.binary(max_size=60),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_any_fragments_are_survived_within_the_bounds(shared, rows):
    for number, count, cipher, is_known, counter, piece, is_elsewhere in rows:
        index = shared.key.receiver_index if is_known else 7
        datagram = units.fragment(number, count, cipher, index, 2**30 + counter % 2**60, piece)
        shared.arrive(datagram, source=ELSEWHERE if is_elsewhere else None)

        assert len(shared.reassembly) <= UNITS_PER_SESSION + UNITS_FROM_ELSEWHERE
    assert shared.b.tun.writes == []
    assert shared.peer.endpoint == shared.source


@examples(150)
@given(st.lists(st.binary(max_size=80).map(lambda tail: b"\5" + tail), max_size=30))
def test_any_bytes_behind_the_type_are_survived(shared, datagrams):
    shared.arrive(*datagrams)

    assert shared.b.tun.writes == []


@pytest.mark.slow
@examples(100)
@given(st.randoms(use_true_random=False), st.booleans())
def test_in_any_weather_each_unit_arrives_once_and_unchanged_or_not_at_all(chance, has_gro):
    bench = Bench(has_gro=has_gro)
    flights, wanted = [], []
    for number in range(12):
        datagrams, segments = bench.unit(size=chance.randrange(1400, 9000), piece=chance.choice([300, PIECE]))
        wanted.append(segments)
        for position, datagram in enumerate(datagrams):
            for _ in range(chance.choice([0] + [1] * 30 + [2] * 5)):
                damaged = changed(datagram, chance.randrange(len(datagram)), chance.randrange(256))
                when = number * 6 + position + chance.choice([0, 0, 0, 20]) * chance.random()
                flights.append((when, damaged if chance.random() < 0.01 else datagram))
    flights.sort()
    at = 0
    while at < len(flights):
        step = chance.randrange(1, 30)
        bench.arrive(*[datagram for _, datagram in flights[at : at + step]])
        at += step

    got = bench.b.received
    for segments in wanted:
        if segments[0] in got:
            start = got.index(segments[0])
            assert got[start : start + len(segments)] == segments
            del got[start : start + len(segments)]
    assert got == []


def in_order(flights):
    """Return the units that arrive: each is in the flight of its last datagram, whatever else is missing."""
    there, done, arrives = {}, set(), []
    for name, number, count, segments in flights:
        there.setdefault(name, set()).add(number)
        is_whole = len(there[name]) == count and name not in done
        arrives.append(segments if is_whole else [])
        if is_whole:
            done.add(name)
    return arrives


@pytest.mark.slow
@examples(150)
@given(st.randoms(use_true_random=False), st.booleans())
def test_in_any_weather_packets_leave_as_their_datagrams_arrive_and_wait_for_no_others(chance, has_gro):
    bench = Bench(has_gro=has_gro)
    flights = []
    for name in range(14):
        if chance.random() < 0.4:
            packet = packets.udp(
                chance.randbytes(chance.choice([0, 700, 1392])),
                source=bench.a.inner(),
                destination=bench.b.inner(),
            )
            datagrams, segments = [bench.message(packet)], [packet]
        else:
            protocol, version = chance.choice([packets.TCP, packets.UDP]), chance.choice([4, 6])
            size, piece = chance.randrange(1400, 9000), chance.choice([300, PIECE, PIECE])
            datagrams, segments = bench.unit(piece=piece, size=size, protocol=protocol, version=version)
        for number, datagram in enumerate(datagrams):
            for _ in range(chance.choice([0] + [1] * 20 + [2] * 3)):
                when = len(flights) + chance.choice([0] * 9 + [12]) * chance.random()
                flights.append((when, datagram, (name, number, len(datagrams), segments)))
    flights.sort(key=lambda flight: flight[0])
    wanted = in_order([flight for *_, flight in flights])
    at = 0
    while at < len(flights):
        step = chance.choice([1, 1, 2, chance.randrange(1, 40)])
        bench.arrive(*[datagram for _, datagram, _ in flights[at : at + step]])
        at += step

        assert bench.b.received == [segment for segments in wanted[:at] for segment in segments]
