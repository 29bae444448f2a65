from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from overlay.disk_thread import PROGRESS, DiskThread
from peers.errors import StoreError

PATH = Path("/etc/overlay/peers.toml")


@pytest.fixture
def hung():
    """A call that returns at the end of the test."""
    over = threading.Event()
    yield over.wait
    over.set()


def story(tell):
    async def main():
        with trio.fail_after(60):
            await tell()

    trio.run(main)


def test_call_is_made_in_a_thread_and_its_result_or_error_comes_back():
    async def tell():
        reader = DiskThread(str(PATH))

        assert await reader.run(lambda a, b: (a + b, threading.current_thread().name), 1, 2) != (
            3,
            "MainThread",
        )
        with pytest.raises(ZeroDivisionError):
            await reader.run(lambda: 1 // 0)

    story(tell)


def test_call_that_hangs_is_given_up_with_a_sentence_and_so_are_those_after_it(hung):
    async def tell():
        reader = DiskThread(str(PATH), 0.05)

        for _ in range(3):
            with pytest.raises(
                StoreError, match=f"{PATH} and the files beside it could not be read within 0.05 s"
            ):
                await reader.run(hung)

    story(tell)


def test_call_that_gets_on_is_waited_for_however_long_it_takes():
    """A host that was short of processor time refused a table of 100,000 peers."""

    clock = MockClock()

    def work():
        for _ in range(5):
            begun = time.thread_time()
            while time.thread_time() < begun + PROGRESS:
                pass
            trio.from_thread.run_sync(clock.jump, 0.9)
        return "read"

    async def tell():
        assert await DiskThread(str(PATH), 1.0).run(work) == "read"

    trio.run(tell, clock=clock)


def test_call_that_hangs_keeps_nobody_from_stopping(hung):
    async def tell():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(DiskThread(str(PATH)).run, hung)
            await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    story(tell)


def test_once_it_returns_calls_are_made_again():
    async def tell():
        over = threading.Event()
        reader = DiskThread(str(PATH), 0.05)
        with pytest.raises(StoreError):
            await reader.run(over.wait)
        over.set()

        while True:
            with contextlib.suppress(StoreError):  # the thread needs a moment to return, and to begin
                assert await reader.run(lambda: "read") == "read"
                break

    story(tell)
