"""Pages of flows, with a forwarder that answers as the test wants."""

from __future__ import annotations

import pytest
import trio

from overlay.balancing import flow_pages
from overlay.balancing.flow_pages import FlowPages
from overlay.link.service_messages import AskFlows, FlowFilter, FlowRow, Flows

ROW = FlowRow(6, bytes(4), 40000, bytes(4), 80, 2, 0, 1.0, 899.0)


class Forwarder:
    """Answers each question with *pieces*: rows, whether it is the last, the rest."""

    def __init__(self, *pieces):
        self.told, self.taken, self._pieces = [], [], pieces
        self.pages = FlowPages(self.tell)

    async def tell(self, command):
        self.told.append(command)
        for piece in self._pieces:
            report = Flows(command.serial, *piece)
            is_awaited = self.pages.awaits(report)
            self.taken.append(self.pages.take(report))
            assert self.taken[-1] is is_awaited

    def ask(self, at=0, most=10):
        return trio.run(self.pages.ask, 3, FlowFilter(port=80), at, most)


def test_a_page_is_made_of_its_pieces_and_says_where_the_next_begins():
    forwarder = Forwarder(([ROW] * 2, False, None), ([ROW], True, 500))

    page = forwarder.ask()

    assert (page.rows, page.rest) == ([ROW] * 3, 500)
    assert forwarder.told == [AskFlows(1, 3, 0, 10, FlowFilter(port=80))]


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [([ROW], False, None)],
        [([ROW] * 11, True, None)],  # more than asked for
        [([], True, 7)],  # no progress
    ],
)
def test_a_page_that_does_not_come_or_cannot_be_is_not_known(pieces, monkeypatch):
    monkeypatch.setattr(flow_pages, "PATIENCE", 0.05)

    assert Forwarder(*pieces).ask(at=7) is None


def test_more_than_was_asked_for_is_not_awaited_and_empty_pieces_neither():
    forwarder = Forwarder(
        ([], False, None), ([ROW] * 10, False, None), ([ROW], False, None), ([], True, None), ([], True, None)
    )

    page = forwarder.ask()

    assert len(page.rows) == 10
    assert forwarder.taken == [False, True, False, True, False]


def test_nobody_waits_for_a_page_that_was_told():
    forwarder = Forwarder(([], True, None))
    forwarder.ask()

    assert not forwarder.pages.take(Flows(1, [ROW], is_last=True))
