"""Samples of traffic: rates between two counts, nothing that is unknown, and a bounded number of series."""

from __future__ import annotations

import pytest

from overlay.link.messages import PeerCounters
from overlay.records.history import INTERVAL, QUIET, SAMPLES, SERIES, VALUES, History

FORWARDER, ANOTHER = object(), object()


def counters(number=1, tx=0, rx=0, tx_packets=0, rx_packets=0, **drops):
    return PeerCounters(number, None, tx, rx, tx_packets, rx_packets, 0.0, drops)


class Sampled:
    """A history of which samples are taken, ten seconds apart."""

    def __init__(self):
        self.history = History()
        self.now = 1000.0

    def take(self, *rows, forwarder=FORWARDER, after=INTERVAL, peers=(1, 2)):
        self.now += after
        self.history.begin(self.now, set(peers))
        return [self.history.count(row.peer, row, forwarder, self.now) for row in rows]

    def told(self, name, number=1):
        row = self.history.row(number, range(max(0, self.history.taken - SAMPLES), self.history.taken))
        return None if row is None else row[name]


@pytest.fixture
def sampled():
    return Sampled()


def test_rates_are_what_passed_between_two_counts_by_the_time_between_them(sampled):
    sampled.take(counters(tx=500, rx=0))
    sampled.take(counters(tx=1500, rx=30, source=5))
    sampled.take(counters(tx=1500, rx=60, source=5), after=20.0)

    assert sampled.told("sent_bytes_per_second") == [None, 100.0, 0.0]
    assert sampled.told("received_bytes_per_second") == [None, 3.0, 1.5]
    assert sampled.told("drops_per_second") == [None, 0.5, 0.0]
    assert sampled.told("round_trip_seconds") == sampled.told("loss_ratio") == [None, None, None]
    assert sampled.history.times() == [1010.0, 1020.0, 1040.0]


def test_a_count_that_did_not_come_is_not_known_and_the_next_is_spread_over_both(sampled):
    sampled.take(counters(tx=0))
    sampled.take()
    sampled.take(counters(tx=400))

    assert sampled.told("sent_bytes_per_second") == [None, None, 20.0]


@pytest.mark.parametrize(
    ("row", "forwarder"),
    [
        (counters(tx=100, rx=1000), FORWARDER),
        (counters(tx=1000, rx=100), FORWARDER),
        (counters(tx=9000, rx=9000), ANOTHER),
    ],
)
def test_nothing_is_made_of_counters_that_began_anew(sampled, row, forwarder):
    sampled.take(counters(tx=1000, rx=1000, tx_packets=1, rx_packets=1))

    assert sampled.take(row, forwarder=forwarder) == [False]

    sampled.take(counters(tx=row.tx_bytes + 50, rx=row.rx_bytes), forwarder=forwarder)
    assert sampled.told("sent_bytes_per_second") == [None, None, 5.0]


def test_packets_in_both_directions_are_told_and_nothing_less_is(sampled):
    sampled.take(counters(), counters(2))

    assert sampled.take(counters(tx_packets=1, rx_packets=1), counters(2, tx_packets=9, tx=900)) == [
        True,
        False,
    ]
    assert sampled.take(counters(tx_packets=1, rx_packets=1, tx=99, rx=99), counters(2, tx_packets=9)) == [
        False,
        False,
    ]


def test_what_was_measured_stands_in_the_sample_begun_last(sampled):
    sampled.take(counters())
    sampled.history.measured(1, 0.25, None, "handshake")
    sampled.take(counters())
    sampled.history.measured(1, 0.125, 1 / 3, "pings")
    sampled.take(counters())
    sampled.history.measured(1, None, 1.0, "pings")
    sampled.history.measured(7, 0.5, 0.0, "pings")

    assert sampled.told("round_trip_seconds") == [0.25, 0.125, None]
    assert sampled.told("loss_ratio") == [None, 0.3333, 1.0]
    assert sampled.history.measured_by(1) == "pings"
    assert sampled.history.measured_by(7) is None


def test_an_hour_is_kept_and_what_is_older_goes(sampled):
    for number in range(SAMPLES + 5):
        sampled.take(counters(tx=10 * number * number))

    assert len(sampled.history.times()) == SAMPLES
    assert sampled.told("sent_bytes_per_second") == [2.0 * number - 1 for number in range(5, SAMPLES + 5)]


def test_a_sample_that_is_overwritten_while_it_is_told_is_not_known(sampled):
    for number in range(SAMPLES):
        sampled.take(counters(tx=10 * number))
    told = range(sampled.history.taken)

    sampled.take(counters(tx=10**6))

    assert sampled.history.row(1, told)["sent_bytes_per_second"] == [None] + [1.0] * (SAMPLES - 1)


def test_a_peer_that_was_removed_is_forgotten(sampled):
    sampled.take(counters(), counters(2))

    sampled.take(counters(), peers=[1])

    assert sampled.told("sent_bytes_per_second", 2) is None
    assert sampled.take(counters(2, tx=50, tx_packets=5, rx_packets=5)) == [False]


def test_no_more_peers_have_a_series_than_may(sampled):
    peers = range(1, SERIES + 11)
    for turn in range(2):
        sampled.take(*(counters(number, tx=turn) for number in peers), peers=peers)

    kept = [number for number in peers if sampled.told("sent_bytes_per_second", number) is not None]
    assert kept == list(peers[:SERIES])


def test_of_too_many_peers_those_that_carried_packets_last_have_the_series(sampled):
    peers = range(1, SERIES + 3)
    last, carries = peers[-1], dict.fromkeys(peers, 0)

    def sample(*numbers, after=INTERVAL):
        for number in numbers:
            carries[number] += 1
        rows = [counters(number, tx=count, tx_packets=count) for number, count in carries.items()]
        sampled.take(*rows, peers=peers, after=after)

    sample()
    sample(*peers[:-1])  # all except the last and one more find room
    assert sampled.told("drops_per_second", last) is None
    sample(last)  # none has been quiet for long enough
    assert sampled.told("drops_per_second", last) is None

    sample(1, after=QUIET)
    sample(last)

    assert sampled.told("drops_per_second", last)[-1] == 0.0
    assert sampled.told("drops_per_second", 1) is not None
    assert sampled.told("drops_per_second", 2) is None
    assert sum(sampled.told("drops_per_second", number) is not None for number in peers) == SERIES


def test_every_value_has_a_list_of_the_samples_asked_for(sampled):
    for _ in range(5):
        sampled.take(counters())

    row = sampled.history.row(1, range(3, 5))

    assert set(row) == set(VALUES)
    assert {len(values) for values in row.values()} == {2}
    assert sampled.history.times(2) == [1040.0, 1050.0]
