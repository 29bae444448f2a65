"""Flows that the forwarder should lead, with a forwarder that answers as the test wants."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from overlay.balancing import pins
from overlay.balancing.pins import Pins
from overlay.host import clock
from overlay.link.service_messages import NO_ANSWER, Pin, Pinned
from overlay.services.checks.dialer import NotAskedError
from overlay.wire.bounds import ROWS

FLOW, OTHER, THIRD = bytes(12), bytes(13), bytes(36)


class Forwarder:
    """Records its commands; answers that it leads all flows but *refused*, or, for None, nothing."""

    def __init__(self, refused=()):
        self.told, self._refused = [], refused
        self.questions, self.takes = 0, 0
        self.pins = Pins(self.tell)

    async def tell(self, command):
        if command.serial == pins.QUESTION:
            await self.ask()
            return
        self.told.append(command)
        if command.flows and self._refused is not None:
            report = Pinned(command.serial, list(self._refused))
            assert self.pins.awaits(report)
            assert self.pins.take(report)

    async def ask(self):
        """Say that it works."""
        self.questions += 1
        report = Pinned(pins.QUESTION, [])
        await trio.sleep(self.takes)
        assert self.pins.awaits(report)
        assert self.pins.take(report)

    def run(self, act):
        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.pins.run)
                await act(self.pins)
                nursery.cancel_scope.cancel()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_flow_is_led_once_the_forwarder_says_so():
    forwarder = Forwarder()

    async def act(asked):
        await asked.pin(FLOW, (3, 7))
        assert forwarder.told == [Pin(1, [(FLOW, 3, 7)], [])]

    forwarder.run(act)


def test_flows_that_begin_at_the_same_time_are_told_together():
    forwarder = Forwarder()

    async def act(asked):
        async with trio.open_nursery() as nursery:
            for number in range(ROWS + 1):
                nursery.start_soon(asked.pin, number.to_bytes(12, "big"), (3, number))
        assert sorted(len(each.flows) for each in forwarder.told) == [1, ROWS]

    forwarder.run(act)


def test_flows_that_are_over_are_told_after_a_while_and_with_others_that_begin():
    forwarder = Forwarder()

    async def act(asked):
        await asked.pin(FLOW, (3, 7))
        asked.unpin(FLOW)
        await trio.sleep(pins.LINGER * 0.6)
        await asked.pin(OTHER, (3, 7))
        assert forwarder.told[1:] == [Pin(2, [(OTHER, 3, 7)], [])]  # its last packets are in flight
        await trio.sleep(pins.LINGER * 0.6)
        await asked.pin(THIRD, (3, 7))
        assert forwarder.told[2:] == [Pin(3, [(THIRD, 3, 7)], [FLOW])]
        asked.unpin(OTHER)
        await trio.sleep(pins.LINGER * 2.1)
        assert forwarder.told[3:] == [Pin(NO_ANSWER, [], [OTHER])]

    forwarder.run(act)


def test_flow_that_begins_again_before_its_end_was_told_is_led():
    forwarder = Forwarder()

    async def act(asked):
        await asked.pin(FLOW, (3, 7))
        asked.unpin(FLOW)
        await asked.pin(FLOW, (3, 8))
        assert forwarder.told[1:] == [Pin(2, [(FLOW, 3, 8)], [])]

    forwarder.run(act)


def test_more_flows_that_are_over_than_a_message_takes_come_in_several(monkeypatch):
    monkeypatch.setattr(pins, "OVER", 2)
    forwarder = Forwarder()
    keys = [number.to_bytes(12, "big") for number in range(5)]

    async def act(asked):
        for key in keys:
            asked.unpin(key)
        for number in range(2):
            await trio.sleep(pins.LINGER * 0.6)
            await asked.pin(bytes([number] * 36), (3, 7))
        await trio.sleep(0.1)
        assert [each.over for each in forwarder.told] == [[], keys[:2], keys[2:4], keys[4:]]

    forwarder.run(act)


def test_forwarder_that_was_started_anew_is_told_the_flows_that_are_led_and_those_under_way():
    forwarder = Forwarder()

    async def act(asked):
        await asked.pin(FLOW, (3, 7))
        await asked.pin(THIRD, (4, 1))
        asked.unpin(THIRD)
        await trio.sleep(pins.LINGER * 2.1)
        forwarder._refused = None  # it has died
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.pin, OTHER, (3, 8))
            await trio.sleep(0.1)
            serial = forwarder.told[-1].serial
            before = clock.now()
            told = list(asked.everything())
            assert told == [
                Pin(NO_ANSWER, [(FLOW, 3, 7), (OTHER, 3, 8)], []),
                Pin(serial, [(OTHER, 3, 8)], []),
            ]
            assert asked.sight.was_blind(before, clock.now(), None)
            assert asked.take(Pinned(serial, []))

    forwarder.run(act)


@pytest.mark.parametrize(
    ("refused", "reason"), [([0], "not to this server"), (None, "did not answer within 2 s")]
)
def test_forwarder_that_refuses_or_is_silent_says_nothing_about_the_server(refused, reason):
    forwarder = Forwarder(refused)

    async def act(asked):
        with pytest.raises(NotAskedError, match=reason):
            await asked.pin(FLOW, (3, 7))
        assert asked.waiting() == 0
        assert not asked.awaits(Pinned(1, []))
        assert not asked.take(Pinned(1, []))

    forwarder.run(act)


def test_second_answer_is_not_awaited():
    forwarder = Forwarder()

    async def act(asked):
        await asked.pin(FLOW, (3, 7))
        assert not asked.take(Pinned(1, []))

    forwarder.run(act)


def test_forwarder_is_asked_whether_it_works_while_checks_are_under_way(monkeypatch):
    monkeypatch.setattr(clock, "now", trio.current_time)
    forwarder = Forwarder()

    async def act(asked):
        await trio.sleep(60.0)
        assert forwarder.questions == 0
        await asked.pin(FLOW, (3, 7))
        await trio.sleep(3.1)
        assert forwarder.questions == 6
        assert not asked.sight.was_blind(60.0, trio.current_time(), None)
        forwarder.takes = 3.0
        since = trio.current_time()
        await trio.sleep(2.9)
        assert asked.sight.was_blind(since, trio.current_time(), None)
        asked.unpin(FLOW)
        await trio.sleep(60.0)
        assert forwarder.questions == 7
        assert not asked.sight.was_blind(since + 4.0, trio.current_time(), None)

    forwarder.run(act)


def test_answers_to_a_question_that_was_not_asked_are_not_awaited():
    forwarder = Forwarder()
    assert not forwarder.pins.awaits(Pinned(pins.QUESTION, []))
    assert not forwarder.pins.take(Pinned(pins.QUESTION, []))
