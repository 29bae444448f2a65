from __future__ import annotations

import pytest
import trio
import trio.testing

from overlay.link.messages import PingPeer, Ponged
from overlay.supervision.forwarder import ForwarderGoneError
from overlay.supervision.single_answers import Questions


class FakeForwarder:
    """Keeps its commands, or is gone."""

    def __init__(self, *, is_gone=False):
        self.told, self.is_gone = [], is_gone

    async def send(self, command):
        if self.is_gone:
            raise ForwarderGoneError
        self.told.append(command)


def run(story):
    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))


def test_each_asker_gets_the_answer_to_its_own_ping():
    async def story():
        pings, forwarder, got = Questions(), FakeForwarder(), {}

        async def ask(identifier):
            got[identifier] = await pings.ask(forwarder, PingPeer(1, identifier), 10.0)

        async with trio.open_nursery() as nursery:
            for identifier in (7, 8):
                nursery.start_soon(ask, identifier)
            await trio.testing.wait_all_tasks_blocked()
            assert len(pings) == 2
            pings.take(Ponged(1, 8, 0.5))
            pings.take(Ponged(1, 7, None))

        assert got == {7: Ponged(1, 7, None), 8: Ponged(1, 8, 0.5)}
        assert len(pings) == 0

    run(story)


def test_who_gets_no_answer_in_time_gets_none_and_a_late_one_is_nothing():
    async def story():
        pings = Questions()

        assert await pings.ask(FakeForwarder(), PingPeer(1, 7), 1.0) is None
        pings.take(Ponged(1, 7, 2.0))
        assert len(pings) == 0

    run(story)


def test_a_forwarder_that_is_gone_is_said_and_nothing_waits():
    async def story():
        pings = Questions()

        with pytest.raises(ForwarderGoneError):
            await pings.ask(FakeForwarder(is_gone=True), PingPeer(1, 7), 1.0)
        assert len(pings) == 0

    run(story)


def test_the_answer_to_a_ping_under_way_is_awaited_once():
    async def story():
        pings = Questions()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pings.ask, FakeForwarder(), PingPeer(1, 7), 10.0)
            await trio.testing.wait_all_tasks_blocked()
            assert pings.awaits(Ponged(1, 7, 0.5))
            assert not pings.awaits(Ponged(1, 8, 0.5))

            pings.take(Ponged(1, 7, 0.5))
            assert not pings.awaits(Ponged(1, 7, 0.5))

    run(story)
