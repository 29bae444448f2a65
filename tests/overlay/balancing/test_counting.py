"""Counters of services, with a forwarder that answers as the test wants."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from overlay.balancing import counting
from overlay.balancing.counting import Counting, Counts, Rate, rate
from overlay.balancing.traffic import measure, tell_rate
from overlay.link.service_messages import AskServices, ServerCounters, ServiceCounters, ServiceTotals
from overlay.services.instructions import Numbers


def row(service, server, packets=0, connections=0, size=0):
    return ServerCounters(service, server, 0, 0, connections, packets, size)


class Forwarder:
    """A forwarder that answers each question with *pieces*, and counts at *at*."""

    def __init__(self, *pieces, known=3, at=10.0):
        self.told, self.pieces, self.at = [], pieces, at
        self.counting = Counting(self.tell, lambda: known)

    async def tell(self, command):
        self.told.append(command)
        for rows, is_last in self.pieces:
            totals = [ServiceTotals(row.service, 1, 2, 3, {"service_rate": 4}) for row in rows]
            piece = ServiceCounters(command.serial, self.at, rows, totals, {"service_port": 1}, is_last)
            assert self.counting.awaits(piece)
            assert self.counting.take(piece)


def test_pieces_are_one_answer():
    forwarder = Forwarder(([row(0, 0, 5), row(0, 1, 6)], False), ([row(1, 0, 7)], True))
    found = trio.run(forwarder.counting.ask)
    assert {key: each.packets for key, each in found.servers.items()} == {(0, 0): 5, (0, 1): 6, (1, 0): 7}
    assert found.services.keys() == {0, 1}
    assert (found.at, found.drops) == (10.0, {"service_port": 1})
    assert forwarder.told == [AskServices(1)]


def test_answer_without_its_last_piece_is_not_known(monkeypatch):
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    assert trio.run(Forwarder(([row(0, 0)], False)).counting.ask) is None


def test_piece_of_an_old_question_is_not_awaited():
    forwarder = Forwarder(([], True))
    trio.run(forwarder.counting.ask)
    late = ServiceCounters(1, 0.0, [row(0, 0)], [], {}, True)
    assert not forwarder.counting.awaits(late)
    assert not forwarder.counting.take(late)


def test_flood_of_pieces_is_bounded(monkeypatch):
    monkeypatch.setattr(counting, "MORE_ROWS", 10)
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    taken = []

    async def tell(command):
        piece = ServiceCounters(
            command.serial, 0.0, [row(0, 0)] * 3, [ServiceTotals(0, 0, 0, 0, {})], {}, False
        )
        while made.awaits(piece):
            made.take(piece)
            taken.append(piece)

    made = Counting(tell, lambda: 3)
    assert trio.run(made.ask) is None
    assert len(taken) == 4


# Rates


def test_rates_are_over_the_time_that_the_forwarder_counted_at():
    before, now = row(0, 0, 100, 10, 1000), row(0, 0, 150, 11, 6000)

    assert rate(now, before, 2.5) == Rate(connections=0.4, packets=20.0, bytes=2000.0)


def test_a_counter_that_began_anew_or_is_not_known_has_no_rate():
    assert rate(row(0, 0, 5), row(0, 0, 6), 2.0) is None
    assert rate(None, row(0, 0), 2.0) is None
    assert rate(row(0, 0), None, 2.0) is None
    assert tell_rate(None) == {"connections_per_s": None, "packets_per_s": None, "bytes_per_s": None}


def test_rates_compare_with_a_count_that_is_old_enough_and_no_older_than_needed():
    made = Counting(None, lambda: 1)
    for at in (1.0, 3.0, 5.0, 7.0, 9.0):
        made.keep(Counts(at))

    assert made.before(Counts(9.5)).at == 7.0
    assert made.before(Counts(10.0)).at == 9.0
    assert made.before(Counts(5.9)) is None


@pytest.mark.parametrize("happens", [lambda made: made.keep(None), lambda made: made.forget()])
def test_counts_from_before_a_silence_or_of_another_forwarder_are_forgotten(happens):
    made = Counting(None, lambda: 1)
    made.keep(Counts(1.0))

    happens(made)

    assert made.before(Counts(5.0)) is None


def test_traffic_is_known_by_the_names_of_servers():
    numbers = Numbers()
    place = numbers.service("web"), numbers.server("web", "web1:0")
    forwarder = Forwarder(([row(*place, packets=30)], True), at=12.0)
    forwarder.counting.keep(Counts(10.0, {place: row(*place, packets=10)}, {}))

    found = trio.run(measure, forwarder.counting, numbers)

    counters, per_second = found.server("web", "web1:0")
    assert (counters.packets, per_second.packets, found.seconds) == (30, 10.0, 2.0)
    assert found.service("web")[0].connections == 1
    assert found.service("web")[1] is None
    assert found.server("web", "web2:0") == (None, None)


def test_nothing_is_known_of_a_forwarder_that_does_not_tell(monkeypatch):
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    numbers = Numbers()

    found = trio.run(measure, Forwarder().counting, numbers)

    assert (found.now, found.seconds, found.drops) == (None, None, None)
    assert found.server("web", "web1:0") == (None, None)


def test_counts_are_kept_while_there_are_services():
    forwarder, known = Forwarder(([row(0, 0)], True)), [0]
    forwarder.counting = Counting(forwarder.tell, lambda: known[0])

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forwarder.counting.keep_counting)
            await trio.sleep(10)
            assert forwarder.told == []
            known[0] = 1
            forwarder.counting.wake()
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 4 <= len(forwarder.told) <= 6
