from __future__ import annotations

import itertools

import pytest

from overlay.forwarding.workqueue import Workqueue


@pytest.fixture
def queue():
    return Workqueue()


@pytest.fixture
def done():
    """What was done, as (item, time)."""
    return []


def steps(most):
    """Return a clock that has time for *most* steps."""
    count = itertools.count(1)
    return lambda: next(count) < most


def doing(done):
    return lambda item, now: done.append((item, now))


def test_an_empty_queue_is_not_ready_and_does_nothing(queue):
    queue.run(1.0)

    assert not queue.is_ready()


def test_a_job_is_done_for_each_item_with_the_time_as_it_is_then(queue, done):
    queue.add("a", [1, 2, 3], doing(done))

    queue.run(5.0, steps(2))
    queue.run(6.0, steps(2))

    assert done == [(1, 5.0), (2, 5.0), (3, 6.0)]
    assert not queue.is_ready()


@pytest.mark.parametrize("kind", ["a", ""])
def test_a_job_is_done_whatever_its_kind_is_called(queue, done, kind):
    queue.add(kind, [1, 2], doing(done))
    queue.add("b", [3], doing(done))

    queue.run(0.0)

    assert sorted(item for item, _ in done) == [1, 2, 3]
    assert not queue.is_ready()


def test_a_run_without_any_time_does_one_step(queue, done):
    queue.add("a", [1, 2], doing(done))

    queue.run(0.0, lambda: False)

    assert done == [(1, 0.0)]
    assert queue.is_ready()


def test_jobs_of_one_kind_come_one_after_another_and_kinds_take_turns(queue, done):
    queue.add("a", "ab", doing(done))
    queue.add("a", "cd", doing(done))
    queue.add("b", "123", doing(done))

    queue.run(0.0)

    told = [item for item, _ in done]
    assert [item for item in told if item.isalpha()] == [*"abcd"]
    assert [item for item in told if item.isdigit()] == [*"123"]
    assert told[:4] == ["a", "1", "b", "2"]


def test_items_are_asked_for_one_by_one(queue, done):
    items = iter(range(10))
    queue.add("a", items, doing(done))

    queue.run(0.0, steps(3))

    assert next(items) == 3


def test_a_job_that_waits_is_replaced_by_one_that_comes_after_it(queue, done):
    queue.add_once("a", [1, 2], doing(done))
    queue.add_once("a", [2, 3], doing(done))

    queue.run(0.0)

    assert [item for item, _ in done] == [2, 3]


def test_a_job_that_has_begun_is_finished_and_at_most_one_waits_behind_it(queue, done):
    queue.add_once("a", [1, 2], doing(done))
    queue.run(0.0, steps(1))
    for _ in range(5):
        queue.add_once("a", [1, 2], doing(done))

    queue.run(0.0)

    assert [item for item, _ in done] == [1, 2, 1, 2]


def test_a_job_that_may_not_go_holds_up_its_kind_alone(queue, done):
    is_free = False
    queue.add("a", [1], doing(done), lambda: is_free)
    queue.add("b", [2], doing(done))

    queue.run(0.0)
    assert ([item for item, _ in done], queue.is_ready(), queue.has("a")) == ([2], False, True)

    is_free = True
    queue.run(0.0)
    assert ([item for item, _ in done], queue.is_ready(), queue.has("a")) == ([2, 1], False, False)


def test_a_step_may_add_a_job_of_its_own_kind(queue, done):
    def again(item, now):
        done.append(item)
        if item < 3:
            queue.add("a", [item + 1], again)

    queue.add("a", [1], again)
    queue.run(0.0)

    assert done == [1, 2, 3]


def test_the_queue_is_empty_after_jobs_of_no_items(queue, done):
    for _ in range(3):
        queue.add("a", [], doing(done))

    queue.run(0.0)

    assert not queue.has("a")
