from __future__ import annotations

import math

import pytest

from overlay.forwarding.lane.trial import ATTEMPTS, INTERVAL, PATIENCE, PAUSE, Trial

BEGIN = 100.0


def answered(trial, now=BEGIN):
    assert trial.answered(trial.turn(now, is_flowing=True), now)
    return trial


def given_up(is_open=False):
    """Return a trial whose probes all went unanswered, and when it was given up."""
    trial, now = Trial(BEGIN, is_open=is_open), BEGIN
    for _ in range(ATTEMPTS):
        assert trial.turn(now, is_flowing=True) is not None
        now += PATIENCE
    assert trial.turn(now, is_flowing=True) is None
    return trial, now


def test_a_lane_is_open_once_a_probe_is_answered():
    trial = Trial(BEGIN)
    identifier = trial.turn(BEGIN, is_flowing=True)
    assert not trial.is_open

    assert trial.answered(identifier, BEGIN + 0.1)

    assert trial.is_open


def test_every_probe_has_another_identifier():
    trial = Trial(BEGIN)
    seen = [trial.turn(BEGIN + number, is_flowing=True) for number in range(ATTEMPTS)]

    assert sorted(set(seen)) == seen


@pytest.mark.parametrize("identifier", [0, 2, 2**63])
def test_an_answer_to_nothing_that_was_asked_changes_nothing(identifier):
    trial = Trial(BEGIN)
    trial.turn(BEGIN, is_flowing=True)

    assert not trial.answered(identifier, BEGIN)
    assert not trial.is_open


def test_a_second_answer_to_one_probe_changes_nothing():
    trial = answered(Trial(BEGIN))
    due = trial.due

    assert not trial.answered(1, BEGIN + 5)
    assert trial.due == due


def test_without_an_answer_it_is_given_up_for_a_while():
    trial, now = given_up(is_open=True)

    assert not trial.is_open
    assert trial.due == now + PAUSE
    assert trial.turn(now + PAUSE, is_flowing=True) is not None


def test_a_late_answer_opens_a_lane_that_was_given_up():
    trial, now = given_up()

    assert trial.answered(ATTEMPTS, now + 5)
    assert trial.is_open


def test_an_open_lane_is_probed_again_while_packets_flow():
    trial = answered(Trial(BEGIN))

    assert trial.turn(BEGIN + INTERVAL - 0.1, is_flowing=True) is None
    assert trial.turn(BEGIN + INTERVAL, is_flowing=True) is not None


def test_an_idle_lane_waits_for_packets():
    trial = answered(Trial(BEGIN))
    assert trial.next() == math.inf

    assert trial.turn(BEGIN + INTERVAL, is_flowing=False) is None
    assert trial.turn(BEGIN + INTERVAL + 1, is_flowing=True) is not None


def test_one_that_waits_for_an_answer_goes_on_without_packets():
    trial = Trial(BEGIN)
    trial.turn(BEGIN, is_flowing=True)

    assert trial.next() == BEGIN + PATIENCE
    assert trial.turn(BEGIN + PATIENCE, is_flowing=False) == 2


def test_a_lane_that_was_open_before_is_open_until_its_probes_say_otherwise():
    trial = Trial(BEGIN, is_open=True)
    trial.turn(BEGIN, is_flowing=True)

    assert trial.is_open
