from __future__ import annotations

import logging

import pytest

from overlay.link.messages import Moved
from overlay.records.journal import (
    HANDSHAKES_BURST,
    LOSSES_BURST,
    MINUTE,
    MOVES_BURST,
    SWEEP_INTERVAL,
    Journal,
)
from overlay.roster import Remote
from overlay.session.outputs import Answered, Completed
from overlay.session.peer import UNCONFIRMED, HandshakeStatus
from tests.peers.examples import peer

DIFFER = "the preshared keys may differ, `overlay status` says what to compare"
NOW, HERE = 1000.0, ("192.0.2.1", 1)
TOKYO, ROME = (Remote(number, peer(name), None) for number, name in ((1, "tokyo"), (2, "rome")))


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "overlay")
    return lambda: [record.getMessage() for record in caplog.records]


def meet(journal, output, unconfirmed=0, at=NOW):
    journal.met(TOKYO, output, HandshakeStatus(False, 0, False, None, unconfirmed=unconfirmed), at)


def move(journal, at, remote=TOKYO, port=1, count=1):
    journal.moved(remote, Moved(remote.number, ("192.0.2.1", port), count), at)


def test_events_are_told_at_once_while_they_are_few(lines):
    journal = Journal()
    for number in range(MOVES_BURST):
        move(journal, NOW + number)

    assert lines() == ["peer moved peer=tokyo endpoint=192.0.2.1:1"] * MOVES_BURST


def test_after_a_burst_there_is_one_line_a_minute_with_the_last_and_the_number(lines):
    journal = Journal()
    for second in range(600):
        move(journal, NOW + second, port=second, count=12_000)
        journal.turn(NOW + second)

    after = lines()[MOVES_BURST:]
    assert len(after) == 600 // MINUTE - 1
    assert after[-1] == "peer moved peer=tokyo endpoint=192.0.2.1:540 times=720000"


def test_what_is_held_is_told_by_itself_when_its_minute_has_come(lines):
    journal = Journal()
    for port in range(MOVES_BURST + 2):
        move(journal, NOW, port=port)

    journal.turn(NOW + MINUTE - 1)
    assert len(lines()) == MOVES_BURST
    journal.turn(NOW + MINUTE)
    assert lines()[MOVES_BURST:] == [f"peer moved peer=tokyo endpoint=192.0.2.1:{MOVES_BURST + 1} times=2"]


def test_events_of_one_peer_hold_back_none_of_another_and_none_of_another_kind(lines):
    journal = Journal()
    for _ in range(100):
        move(journal, NOW)
    move(journal, NOW, ROME)
    meet(journal, Completed(1, HERE, is_initiator=True, took=0.25, round_trip=0.25))

    assert lines()[MOVES_BURST:] == [
        "peer moved peer=rome endpoint=192.0.2.1:1",
        "handshake completed peer=tokyo endpoint=192.0.2.1:1 role=initiator took=0.250",
    ]


def test_answers_are_no_news_until_several_are_not_confirmed_and_then_one_line(lines):
    journal = Journal()
    for unconfirmed in range(1, 10):
        meet(journal, Answered(1, HERE), unconfirmed=unconfirmed)

    assert lines() == [
        f"handshakes answered and never confirmed peer=tokyo endpoint=192.0.2.1:1 count={UNCONFIRMED}: {DIFFER}"
    ]


def test_doubts_are_told_again_after_a_handshake_that_was_completed(lines):
    journal = Journal()
    for _ in range(2):
        journal.retrying(TOKYO, HandshakeStatus(True, 2, False, None, refused=2))
        journal.retrying(TOKYO, HandshakeStatus(True, 3, False, None, refused=3))
        meet(journal, Completed(1, HERE, is_initiator=False, took=0.0, round_trip=0.0))

    assert [line.partition(" peer=")[0] for line in lines()] == [
        "handshake answers could not be opened",
        "handshake completed",
    ] * 2


def test_clock_that_was_set_back_is_told_once_until_it_is_right(lines):
    journal = Journal()
    for behind in (20.0, 3600.4, 3595.2):
        journal.replayed(TOKYO, HandshakeStatus(False, 0, False, None, outdated=1, behind=behind))
    meet(journal, Completed(1, HERE, is_initiator=True, took=0.0, round_trip=0.0))
    journal.replayed(TOKYO, HandshakeStatus(False, 0, False, None, outdated=4, behind=3590.4))

    assert [line for line in lines() if "clock" in line] == ["clock set back peer=tokyo behind=3600"]


def test_handshakes_of_a_peer_that_will_not_stop_are_one_line_a_minute(lines):
    journal = Journal()
    for number in range(3000):
        meet(journal, Completed(1, HERE, is_initiator=False, took=0.0, round_trip=0.0), at=NOW + number / 50)

    assert len(lines()) == HANDSHAKES_BURST


def test_losing_a_peer_and_having_it_back_is_a_line_each(lines):
    tokyo, journal = Remote(1, peer("tokyo"), None), Journal()
    journal.found(tokyo, NOW)
    for second in (0, 90, 180):
        journal.lost(tokyo, "it is silent", NOW + second)
    for second in (200, 210):
        journal.found(tokyo, NOW + second)

    assert lines() == ["peer lost peer=tokyo: it is silent", "peer back peer=tokyo away=200.0"]


def test_peer_that_was_never_reached_is_not_called_lost(lines):
    tokyo, journal = Remote(1, peer("tokyo"), None), Journal()
    journal.lost(tokyo, "it does not answer", NOW)
    journal.found(tokyo, NOW + 30)
    journal.lost(tokyo, "it is silent", NOW + 60)
    journal.forget(tokyo)
    tokyo.lost_at = None
    journal.lost(tokyo, "it does not answer", NOW + 90)

    assert lines() == [
        "peer not reached peer=tokyo: it does not answer",
        "peer reached peer=tokyo away=30.0",
        "peer lost peer=tokyo: it is silent",
        "peer not reached peer=tokyo: it does not answer",
    ]


def test_peer_that_is_lost_and_back_without_end_is_a_line_a_minute_that_says_which_it_is(lines, caplog):
    tokyo, journal = Remote(1, peer("tokyo"), None), Journal()
    for number in range(10_000):
        now = NOW + number / 100
        journal.lost(tokyo, "it is silent", now)
        journal.found(tokyo, now)
        journal.turn(now)
    journal.lost(tokyo, "it is silent", NOW + 100)
    assert len(lines()) == LOSSES_BURST + 1

    journal.turn(NOW + 160)

    last = caplog.records[-1]
    assert len(lines()) == LOSSES_BURST + 2
    assert last.levelname == "WARNING"
    assert last.getMessage().startswith("peer lost peer=tokyo: it is silent times=")
    assert sum(int(line.partition(" times=")[2] or 1) for line in lines()) == 20_001


def test_an_mtu_that_changes_without_end_is_a_line_a_minute(lines):
    journal = Journal()
    for number in range(1000):
        journal.mtu_changed(1420 - number % 2, 1419 + number % 2, NOW)

    assert lines()[0] == "mtu changed mtu=1420 was=1419"
    assert len(lines()) == MOVES_BURST


def test_interface_that_another_program_sets_down_without_end_is_a_line_a_minute(lines):
    journal = Journal()
    for _ in range(1000):
        journal.restored("overlay0", "was=down", NOW)

    assert lines()[0] == "interface changed by another program, restored interface=overlay0 was=down"
    assert len(lines()) == MOVES_BURST


def test_journal_forgets_what_was_quiet_for_a_while():
    journal = Journal()
    move(journal, NOW)
    journal.turn(NOW)
    journal.turn(NOW + SWEEP_INTERVAL)

    assert not journal._lines


def test_hooks_hear_when_a_peer_is_reached_first_when_it_is_lost_and_when_it_is_back():
    journal, heard = Journal(), []
    journal.heard = lambda event, **fields: heard.append((event, fields["peer"]))
    remote = Remote(7, peer("lima"), None)

    for _ in range(2):
        journal.found(remote, NOW)
    for _ in range(2):
        journal.lost(remote, "it is silent", NOW)
    for _ in range(2):
        journal.found(remote, NOW)
    journal.lost(TOKYO, "it is silent", NOW)
    TOKYO.lost_at = None

    assert heard == [("peer-up", "lima"), ("peer-down", "lima"), ("peer-up", "lima"), ("peer-down", "tokyo")]
