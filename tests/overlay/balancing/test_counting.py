"""Counters of services, with a forwarder that answers as the test wants."""

from __future__ import annotations

import trio

from overlay.balancing import counting
from overlay.balancing.counting import Counting
from overlay.link.service_messages import AskServices, ServerCounters, ServiceCounters


def row(service, server, packets=0):
    return ServerCounters(service, server, 0, 0, 0, packets, 0)


class Forwarder:
    """A forwarder that answers each question with *pieces*."""

    def __init__(self, *pieces, known=3):
        self.told, self._pieces = [], pieces
        self.counting = Counting(self.tell, lambda: known)

    async def tell(self, command):
        self.told.append(command)
        for rows, is_last in self._pieces:
            piece = ServiceCounters(command.serial, rows, {}, is_last)
            assert self.counting.awaits(piece)
            assert self.counting.take(piece)


def test_pieces_are_one_answer():
    forwarder = Forwarder(([row(0, 0, 5), row(0, 1, 6)], False), ([row(1, 0, 7)], True))
    found = trio.run(forwarder.counting.ask)
    assert {key: each.packets for key, each in found.items()} == {(0, 0): 5, (0, 1): 6, (1, 0): 7}
    assert forwarder.told == [AskServices(1)]


def test_answer_without_its_last_piece_is_not_known(monkeypatch):
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    assert trio.run(Forwarder(([row(0, 0)], False)).counting.ask) is None


def test_piece_of_an_old_question_is_not_awaited():
    forwarder = Forwarder(([], True))
    trio.run(forwarder.counting.ask)
    late = ServiceCounters(1, [row(0, 0)], {}, True)
    assert not forwarder.counting.awaits(late)
    assert not forwarder.counting.take(late)


def test_flood_of_pieces_is_bounded(monkeypatch):
    monkeypatch.setattr(counting, "MORE_ROWS", 10)
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    taken = []

    async def tell(command):
        piece = ServiceCounters(command.serial, [row(0, 0)] * 4, {}, False)
        while made.awaits(piece):
            made.take(piece)
            taken.append(piece)

    made = Counting(tell, lambda: 3)
    assert trio.run(made.ask) is None
    assert len(taken) == 4
