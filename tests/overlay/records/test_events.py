"""Events: logged, kept and requested."""

from __future__ import annotations

import logging
import threading

import pytest

from overlay.cli.options import LOG_LEVELS
from overlay.records.events import CUT, LEVELS, ROOM, TEXT_BYTES, Event, Events, of_peer


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def log(events):
    logger = logging.Logger("test", logging.DEBUG)
    logger.addHandler(events)
    return logger


def texts(told):
    return [event.text for event in told.events]


def test_an_event_says_what_when_and_about_whom(events, log):
    log.info("peer added peer=%s", "tokyo", extra=of_peer("tokyo"))
    log.error("reload refused")

    first, second = events.tell(10).events
    assert first == Event(1, first.time, "info", "peer added peer=tokyo", "tokyo")
    assert (second.number, second.level, second.peer) == (2, "error", None)
    assert second.time >= first.time > 1_600_000_000


def test_levels_are_those_of_the_command_line():
    assert LEVELS == LOG_LEVELS


def test_levels_that_python_has_beside_ours_belong_to_the_next_below(events, log):
    for level in (1, 15, 25, 35, 50):
        log.log(level, "x")
    logging.Logger.log(log, 5, "below debug is not logged")

    assert [event.level for event in events.tell(9, least="debug").events] == [
        "debug",
        "info",
        "warning",
        "error",
    ]


def test_the_last_ones_of_a_level_and_a_peer_are_told(events, log):
    for number in range(4):
        for name in ("tokyo", "rome"):
            log.info("met %s %d", name, number, extra=of_peer(name))
    log.warning("lost rome", extra=of_peer("rome"))

    assert texts(events.tell(2)) == ["met rome 3", "lost rome"]
    assert texts(events.tell(2, peer="tokyo")) == ["met tokyo 2", "met tokyo 3"]
    assert texts(events.tell(9, least="warning")) == ["lost rome"]
    assert texts(events.tell(9, since=7)) == ["met rome 3", "lost rome"]
    assert texts(events.tell(0)) == []
    assert events.tell(9, least="error").last == 9


@pytest.mark.parametrize("noise", [logging.DEBUG, logging.INFO])
def test_a_flood_pushes_out_nothing_that_is_more_important(events, log, noise):
    log.info("ready")
    log.warning("peer lost")
    for number in range(5000):
        log.log(noise, "noise %d", number)

    least = {logging.DEBUG: ["ready", "peer lost"], logging.INFO: ["peer lost"]}[noise]
    kept = texts(events.tell(9999, least="debug"))
    assert [text for text in kept if not text.startswith("noise")] == least
    assert len(kept) == ROOM[noise][0] + len(least)
    assert kept[-1] == "noise 4999"


def test_long_texts_take_no_more_than_their_room(events, log):
    for number in range(1000):
        log.info("%04d%s", number, "ä" * TEXT_BYTES)

    kept = texts(events.tell(9999))
    assert sum(len(text.encode()) for text in kept) <= ROOM[logging.INFO][1]
    assert len(kept) >= ROOM[logging.INFO][1] // TEXT_BYTES
    assert kept[-1].startswith("0999")
    assert all(text.endswith(CUT) and len(text.encode()) <= TEXT_BYTES for text in kept)


def test_who_asks_learns_whether_some_are_missing(events, log):
    for number in range(10):
        log.info("%d", number)
    assert events.tell(100).is_complete
    assert not events.tell(9).is_complete
    for number in range(ROOM[logging.INFO][0]):
        log.info("%d", number)

    assert not events.tell(9999).is_complete
    assert not events.tell(9999, since=9).is_complete
    assert events.tell(9999, since=10).is_complete
    assert events.tell(9999, since=9, least="warning").is_complete


def test_text_from_outside_shows_as_what_it_is(events, log):
    log.warning("%s", "a\x1b[2Jb\nready \ud800")

    assert texts(events.tell(1)) == [r"a\x1b[2Jb\nready \ud800"]


def test_an_exception_is_named_in_one_line(events, log):
    try:
        raise ValueError("a bug\nof ours")
    except ValueError:
        log.exception("stopped")

    assert texts(events.tell(1)) == [r"stopped: ValueError('a bug\nof ours')"]


def test_a_call_with_wrong_arguments_stops_nothing(events, log, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.info("%d", "x")
    log.info("next")

    assert texts(events.tell(9)) == ["next"]


def test_threads_may_log_while_others_ask(events, log):
    def write():
        for number in range(2000):
            log.info("%d", number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        numbers = [event.number for event in events.tell(9999).events]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True

    assert events.tell(1).last == 8000
