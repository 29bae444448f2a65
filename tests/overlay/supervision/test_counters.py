from __future__ import annotations

import pytest
import trio
import trio.testing

from overlay.link.messages import AskCounters, Counters, PeerCounters
from overlay.supervision.counters import LATE, PATIENCE, SHORT_PATIENCE, CounterQuestions, SharedAnswer
from overlay.supervision.forwarder import ForwarderGoneError

KNOWN = range(1, 101)


def rows(*numbers):
    return [PeerCounters(number, None, 0, 0, 0, 0, 0.0, {}) for number in numbers]


class Forwarder:
    """A forwarder that is asked, and may be gone."""

    def __init__(self):
        self.asked = []
        self.is_gone = False

    async def send(self, command):
        await trio.lowlevel.checkpoint()
        if self.is_gone:
            raise ForwarderGoneError
        self.asked.append(command)


class Asking:
    """A question under way, in simulated time."""

    def __init__(self, nursery):
        self.questions, self.forwarder = CounterQuestions(), Forwarder()
        self.counted = None
        nursery.start_soon(self._ask)

    async def _ask(self):
        with trio.CancelScope() as self.patience:
            self.counted = await self.questions.ask(self.forwarder, 7, KNOWN)

    async def tell(self, numbers, *, serial=7, is_last=False, drops=None):
        self.questions.take(Counters(serial, rows(*numbers), drops or {}, is_last))
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def asking():
    """Return a runner of ``async def story(asking)``."""

    def run(story):
        async def main():
            async with trio.open_nursery() as nursery:
                asking = Asking(nursery)
                await trio.testing.wait_all_tasks_blocked()
                await story(asking)
                nursery.cancel_scope.cancel()

        trio.run(main, clock=trio.testing.MockClock(), strict_exception_groups=True)

    return run


def jump(seconds):
    trio.lowlevel.current_clock().jump(seconds)


def test_an_answer_in_pieces_is_put_together(asking):
    async def story(asking):
        await asking.tell([1, 2], drops={"link": 1})
        await asking.tell([3], is_last=True, drops={"link": 2})

        assert asking.forwarder.asked == [AskCounters(7)]
        assert asking.counted.is_complete
        assert set(asking.counted.peers) == {1, 2, 3}
        assert asking.counted.drops == {"link": 2}

    asking(story)


def test_an_answer_may_take_long_as_long_as_it_goes_on(asking):
    async def story(asking):
        for number in KNOWN[:-1]:
            jump(PATIENCE * 0.9)
            await asking.tell([number])
        assert asking.counted is None

        await asking.tell([KNOWN[-1]], is_last=True)

        assert asking.counted.is_complete

    asking(story)


def test_what_was_told_until_then_counts_when_the_forwarder_falls_silent(asking):
    async def story(asking):
        await asking.tell([1])
        jump(PATIENCE * 1.1)
        await trio.testing.wait_all_tasks_blocked()

        assert not asking.counted.is_complete
        assert set(asking.counted.peers) == {1}

    asking(story)


def test_what_was_told_until_then_counts_when_the_forwarder_is_gone(asking):
    async def story(asking):
        await asking.tell([1])
        asking.questions.end()
        await trio.testing.wait_all_tasks_blocked()

        assert set(asking.counted.peers) == {1}

    asking(story)


def test_a_forwarder_that_is_gone_has_counted_nothing():
    async def main():
        forwarder = Forwarder()
        forwarder.is_gone = True
        counted = await CounterQuestions().ask(forwarder, 1, KNOWN)
        assert (counted.peers, counted.is_complete) == ({}, False)

    trio.run(main)


def test_unknown_peers_are_not_kept_and_repetitions_are_no_progress(asking):
    async def story(asking):
        for _ in range(3):
            await asking.tell([1, 1000])
            jump(PATIENCE * 0.4)
            await trio.testing.wait_all_tasks_blocked()

        assert set(asking.counted.peers) == {1}

    asking(story)


def test_an_answer_to_another_question_and_one_that_goes_on_behind_its_end_are_nothing(asking):
    async def story(asking):
        await asking.tell([5], serial=8, is_last=True)
        assert asking.counted is None
        asking.questions.take(Counters(7, rows(1), {}, True))
        await asking.tell([2])

        assert set(asking.counted.peers) == {1}

    asking(story)


def test_an_answer_is_awaited_while_it_is_asked_for_and_no_longer_than_it_can_be(asking):
    async def story(asking):
        piece = Counters(7, rows(*range(1, 21)), {}, False)
        assert asking.questions.awaits(piece)
        assert not asking.questions.awaits(Counters(8, [], {}, False))

        for _ in range(100):
            await asking.tell(range(1, 21))

        assert not asking.questions.awaits(piece)

    asking(story)


def test_the_whole_answer_of_a_forwarder_that_tells_each_peer_once_is_awaited(asking):
    async def story(asking):
        for peer in KNOWN:
            assert asking.questions.awaits(Counters(7, rows(peer), {}, False))
            await asking.tell([peer])

    asking(story)


def test_an_answer_that_nobody_waits_for_any_more_is_awaited_whole_and_once(asking):
    async def story(asking):
        await asking.tell(range(1, 21))
        asking.patience.cancel()
        await trio.testing.wait_all_tasks_blocked()

        for at in range(21, 101, 20):
            piece = Counters(7, rows(*range(at, at + 20)), {}, at == 81)
            assert asking.questions.awaits(piece)
            asking.questions.take(piece)

        assert not asking.questions.awaits(piece)

    asking(story)


def test_of_an_answer_that_nobody_waits_for_no_more_is_awaited_than_it_can_have(asking):
    async def story(asking):
        asking.patience.cancel()
        await trio.testing.wait_all_tasks_blocked()
        piece = Counters(7, rows(*range(1, 21)), {}, False)
        for _ in range(20):
            asking.questions.take(piece)

        assert not asking.questions.awaits(piece)

    asking(story)


def test_answers_of_few_questions_are_awaited_that_were_given_up():
    async def main():
        questions = CounterQuestions()
        for serial in range(LATE + 1):
            with trio.move_on_after(1):
                await questions.ask(Forwarder(), serial, KNOWN)

        assert not questions.awaits(Counters(0, [], {}, False))
        assert all(questions.awaits(Counters(serial, [], {}, False)) for serial in range(1, LATE + 1))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


def test_a_question_for_some_peers_names_them():
    async def main():
        questions, forwarder = CounterQuestions(), Forwarder()
        with trio.move_on_after(1):
            await questions.ask(forwarder, 7, [3, 5], of_all=False)

        assert forwarder.asked == [AskCounters(7, [3, 5])]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


def test_who_asks_while_an_answer_is_made_shares_the_next_with_all_who_do():
    async def main():
        shared, begun, told = SharedAnswer(), [], []

        async def make():
            begun.append(trio.current_time())
            await trio.sleep(1)
            return len(begun)

        async def ask(at):
            await trio.sleep(at)
            told.append((at, await shared.take(make), trio.current_time()))

        async with trio.open_nursery() as nursery:
            for at in (0, 0.2, 0.4, 0.6, 2.5):
                nursery.start_soon(ask, at)

        assert sorted(told) == [(0, 1, 1.0), (0.2, 2, 2.0), (0.4, 2, 2.0), (0.6, 2, 2.0), (2.5, 3, 3.5)]
        assert shared._made is None

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


def test_one_who_waits_makes_the_answer_if_who_made_it_is_cancelled():
    async def main():
        shared, told = SharedAnswer(), []

        async def make():
            await trio.sleep(1)
            return "made"

        async def hurry():
            with trio.move_on_after(0.5):
                await shared.take(make)

        async def wait():
            told.append(await shared.take(make))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry)
            await trio.sleep(0.1)
            nursery.start_soon(wait)

        assert told == ["made"]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


def test_forwarder_that_told_nothing_is_waited_for_as_long_once_until_it_tells_something():
    async def main():
        questions, forwarder, took = CounterQuestions(), Forwarder(), []

        async def ask(serial):
            began = trio.current_time()
            counted = await questions.ask(forwarder, serial, KNOWN)
            took.append(trio.current_time() - began)
            assert counted.patience == took[-1]

        for serial in (1, 2, 3):
            await ask(serial)
        questions.take(Counters(2, [], {}, True))  # too late, but it answers
        await ask(4)
        await ask(5)
        questions.end()  # and nothing is known of another forwarder
        await ask(6)

        assert took == [PATIENCE, SHORT_PATIENCE, SHORT_PATIENCE, PATIENCE, SHORT_PATIENCE, PATIENCE]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)
