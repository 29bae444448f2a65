from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from overlay.doors.accepting import take_each
from overlay.doors.giving_way import GaveWayError, WaitingClients


def run(story):
    trio.run(story, clock=MockClock(autojump_threshold=0.05), strict_exception_groups=True)


def test_the_one_that_has_waited_longest_gives_way_and_no_other():
    async def story():
        waiting, gave_way = WaitingClients(), []

        async def wait(name, first):
            try:
                with waiting.for_client():
                    await trio.sleep(first)
                with waiting.for_client():
                    await trio.sleep_forever()
            except GaveWayError:
                gave_way.append(name)

        async with trio.open_nursery() as nursery:
            for name, first in (("heard since", 2), ("silent", 100), ("later", 100)):
                nursery.start_soon(wait, name, first)
                await wait_all_tasks_blocked()
            await trio.sleep(3)
            for _ in range(3):
                assert waiting.give_way()
                await wait_all_tasks_blocked()
            assert not waiting.give_way()

        assert gave_way == ["silent", "later", "heard since"]

    run(story)


def test_one_that_was_told_to_gives_way_though_its_client_did_something_in_that_moment():
    async def story():
        waiting, came = WaitingClients(), trio.Event()

        async def wait():
            with pytest.raises(GaveWayError), waiting.for_client():
                await came.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            came.set()
            assert waiting.give_way()

    run(story)


def test_who_does_not_wait_gives_way_to_nobody():
    async def story():
        waiting = WaitingClients()
        with waiting.for_client():
            await trio.sleep(1)

        assert not waiting.give_way()

    run(story)


def test_an_error_inside_is_the_error_outside():
    async def story():
        with pytest.raises(KeyError), WaitingClients().for_client():
            raise KeyError

    run(story)


def test_a_client_is_taken_where_all_places_are_held_by_clients_that_do_nothing():
    async def story():
        waiting, ended = WaitingClients(), []

        async def take(stream):
            try:
                with waiting.for_client():
                    data = await stream.receive_some(10)
                await stream.send_all(data)
            except GaveWayError:
                ended.append(stream)

        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(take_each, listener, take, 3, "nobody", waiting.give_way)
            stalled = [await trio.testing.open_stream_to_socket_listener(listener) for _ in range(10)]
            while len(ended) < 7:
                await trio.sleep(0.01)
            client = await trio.testing.open_stream_to_socket_listener(listener)
            await client.send_all(b"heard")

            assert await client.receive_some(10) == b"heard"
            assert len(ended) == 8
            for each in (client, *stalled):
                await each.aclose()
            nursery.cancel_scope.cancel()
        await listener.aclose()

    run(story)


@pytest.mark.slow
def test_a_client_waits_where_nobody_can_give_way_and_is_taken_once_somebody_can():
    async def story():
        may_wait, waiting, taken = trio.Event(), WaitingClients(), []

        async def take(stream):
            taken.append(stream)
            await may_wait.wait()
            try:
                with waiting.for_client():
                    await trio.sleep_forever()
            except GaveWayError:
                pass

        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(take_each, listener, take, 1, "nobody", waiting.give_way)
            clients = [await trio.testing.open_stream_to_socket_listener(listener) for _ in range(2)]
            await trio.sleep(1)
            assert len(taken) == 1

            may_wait.set()
            while len(taken) < 2:
                await trio.sleep(0.01)
            for each in clients:
                await each.aclose()
            nursery.cancel_scope.cancel()
        await listener.aclose()

    run(story)
