from __future__ import annotations

import math

import pytest

from overlay.services.checking import Checking, Result
from peers.service import Check

GOOD, BAD = Result(True, "200 OK"), Result(False, "connection refused")


def checking(share=0.0, **settings):
    return Checking(
        Check("tcp", **{"every": 6.0, "retries": 2, "retry_delay": 1.5, **settings}), 100.0, share
    )


@pytest.mark.parametrize(
    ("warmup", "share", "due"), [(None, 0.5, 103.0), (0.0, 0.9, 100.0), (20.0, 0.25, 105.0)]
)
def test_first_check_begins_after_a_part_of_the_warm_up(warmup, share, due):
    assert checking(share, warmup=warmup).next_deadline() == due


def test_it_is_not_due_while_it_runs_and_then_counts_from_its_end():
    one = checking()
    one.begin()
    assert one.next_deadline() == math.inf
    one.run_now(101.0)
    assert one.next_deadline() == math.inf
    one.finish(GOOD, 104.0)
    assert one.next_deadline() == 110.0
    one.run_now(105.0)
    assert one.next_deadline() == 105.0


def test_server_that_starts_up_goes_down_at_the_first_failure_before_any_result():
    one = checking()
    assert one.is_up
    assert one.finish(BAD, 101.0)
    assert not one.is_up
    assert one.next_deadline() == 107.0


def test_server_that_starts_down_comes_up_at_the_first_success():
    one = checking(start="down")
    assert not one.is_up
    assert one.finish(GOOD, 101.0)
    assert one.is_up


def test_server_that_is_up_may_fail_as_often_as_retries_says():
    one = checking()
    one.finish(GOOD, 100.0)
    now = 110.0
    for _ in range(2):
        assert not one.finish(BAD, now)
        assert one.is_up
        assert one.next_deadline() == now + 1.5
        now += 1.5
    assert one.finish(BAD, now)
    assert not one.is_up
    assert one.next_deadline() == now + 6


def test_a_success_between_failures_counts_them_anew():
    one = checking()
    for result in (GOOD, BAD, BAD, GOOD, BAD, BAD):
        one.finish(result, 100.0)
    assert one.is_up


def test_rise_asks_for_successes_in_a_row():
    one = checking(rise=3)
    one.finish(BAD, 100.0)
    assert [one.finish(each, 100.0) for each in (GOOD, GOOD, BAD, GOOD, GOOD, GOOD)] == [False] * 5 + [True]
    assert one.is_up


def test_another_weight_is_news():
    one = checking()
    assert one.finish(Result(True, "exit 12", 10), 100.0)
    assert not one.finish(Result(True, "exit 12", 10), 100.0)
    assert one.finish(Result(True, "exit 7", 5), 100.0)
