from __future__ import annotations

import logging

import pytest

from overlay.journal import BURST, MINUTE, SWEEP_INTERVAL, Journal
from overlay.roster import Remote
from tests.peers.examples import peer

NOW = 1000.0
TOKYO, ROME = (Remote(number, peer(name), None) for number, name in ((1, "tokyo"), (2, "rome")))


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "overlay")
    return lambda: [record.getMessage() for record in caplog.records]


def move(journal, at, remote=TOKYO, port=1, count=1):
    journal.tell(logging.INFO, "peer moved", remote, f"endpoint=192.0.2.1:{port}", at, count)


def test_events_are_told_at_once_while_they_are_few(lines):
    journal = Journal()
    for number in range(BURST):
        move(journal, NOW + number)

    assert lines() == ["peer moved peer=tokyo endpoint=192.0.2.1:1"] * BURST


def test_after_a_burst_there_is_one_line_a_minute_with_the_last_and_the_number(lines):
    journal = Journal()
    for second in range(600):
        move(journal, NOW + second, port=second, count=12_000)
        journal.turn(NOW + second)

    after = lines()[BURST:]
    assert len(after) == 600 // MINUTE - 1
    assert after[-1] == "peer moved peer=tokyo endpoint=192.0.2.1:540 times=720000"


def test_what_is_held_is_told_by_itself_when_its_minute_has_come(lines):
    journal = Journal()
    for port in range(BURST + 2):
        move(journal, NOW, port=port)

    journal.turn(NOW + MINUTE - 1)
    assert len(lines()) == BURST
    journal.turn(NOW + MINUTE)
    assert lines()[BURST:] == [f"peer moved peer=tokyo endpoint=192.0.2.1:{BURST + 1} times=2"]


def test_events_of_one_peer_hold_back_none_of_another_and_none_of_another_kind(lines):
    journal = Journal()
    for _ in range(100):
        move(journal, NOW)
    move(journal, NOW, ROME)
    journal.tell(logging.WARNING, "peer lost", TOKYO, "", NOW)

    assert lines()[BURST:] == ["peer moved peer=rome endpoint=192.0.2.1:1", "peer lost peer=tokyo"]


def test_journal_forgets_what_was_quiet_for_a_while():
    journal = Journal()
    move(journal, NOW)
    journal.turn(NOW)
    journal.turn(NOW + SWEEP_INTERVAL)

    assert not journal._lines
