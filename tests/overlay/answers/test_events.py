"""Events that somebody asks for."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import trio

from overlay.answers import events
from overlay.records.events import Events, of_peer
from overlay.records.logs import Log
from tests.overlay.answers.test_peer import NODE, roster  # noqa: F401  a fixture


@pytest.fixture
def running(roster):  # noqa: F811
    kept, logger = Events(), logging.Logger("test")
    logger.addHandler(kept)
    log = Log(logger, logging.NullHandler(), kept)
    options = SimpleNamespace(peers="peers.toml")
    return SimpleNamespace(log=log, roster=roster, node=lambda: NODE, options=options)


@pytest.fixture
def ask(running):
    """Return the answer to a request; ``ask.pieces`` are then the rows that came before it."""

    async def tell_rows(rows):
        run.pieces.append(rows)

    def run(**request):
        run.pieces = []
        return trio.run(events.answer, running, {"op": "events"} | request, tell_rows)

    return run


def rows(ask):
    return [row for piece in ask.pieces for row in piece]


def test_events_are_told_with_their_time_in_seconds(ask, running):
    running.log.logger.warning("peer lost", extra=of_peer("tokyo"))

    answer = ask()

    assert answer == {"ok": True, "run": running.log.events.run, "last": 1, "is_complete": True}
    (row,) = rows(ask)
    assert row.pop("timestamp_seconds") > 1_600_000_000
    assert row == {"number": 1, "level": "warning", "text": "peer lost", "peer": "tokyo"}


def test_many_events_are_told_in_pieces(ask, running):
    for number in range(250):
        running.log.logger.info("%d", number)

    ask(limit=220)

    assert [len(piece) for piece in ask.pieces] == [100, 100, 20]
    assert [row["text"] for row in rows(ask)] == [str(number) for number in range(30, 250)]


@pytest.mark.parametrize("asked", ["tokyo", "10.244.2.7"])
def test_events_of_a_peer_are_told_by_its_name_or_an_address(ask, running, asked):
    running.log.logger.info("a", extra=of_peer("tokyo"))
    running.log.logger.info("b", extra=of_peer("rome"))

    ask(name=asked)

    assert [row["text"] for row in rows(ask)] == ["a"]


def test_events_of_a_removed_peer_are_told(ask, running):
    running.log.logger.info("peer removed", extra=of_peer("oslo"))

    assert ask(name="oslo")["ok"]
    assert len(rows(ask)) == 1


def test_a_peer_that_never_was_is_refused_with_those_that_are(ask):
    answer = ask(name="tokio")

    assert (answer["ok"], answer["kind"], answer["known"]) == (False, "unknown_peer", ["tokyo", "rome"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": "loud"},
        {"level": ["info"]},
        {"limit": -1},
        {"limit": "9"},
        {"since": True},
        {"since": 1.5},
        {"name": 7},
    ],
)
def test_a_wrong_question_is_refused_in_a_sentence(ask, wrong):
    answer = ask(**wrong)

    assert not answer["ok"]
    assert answer["kind"] == ("unknown_peer" if "name" in wrong else "usage")
    assert answer["error"]


def test_no_question_gets_more_than_is_kept(ask, running):
    for number in range(2000):
        running.log.logger.info("%d", number)

    assert not ask(limit=10**30)["is_complete"]
    assert len(rows(ask)) == 1000
