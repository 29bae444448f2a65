from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import MockClock

from overlay.provisioning import changes
from overlay.provisioning.changes import GATHER_TIME


class Site:
    """A watch that reports changes as words: ``foreign``, ``own``, ``loss``."""

    def __init__(self):
        self._ours, self._others = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self._has_lost = False
        self.mended_at, self.said_at, self.said = [], [], []

    def fileno(self):
        return self._ours.fileno()

    def drain(self):
        is_foreign = False
        while True:
            try:
                word = self._ours.recv(100).decode()
            except BlockingIOError:
                return is_foreign
            is_foreign |= word != "own"
            self._has_lost |= word == "loss"

    def take_loss(self):
        has_lost, self._has_lost = self._has_lost, False
        return has_lost

    def tell(self, word):
        self._others.send(word.encode())

    async def watch(self):
        while True:
            said = await changes.gather(self, self._mend)
            self.said.append(said)
            self.said_at.append(trio.current_time())

    async def _mend(self):
        await trio.lowlevel.checkpoint()
        self.mended_at.append(trio.current_time())

    def close(self):
        self._ours.close()
        self._others.close()


@pytest.fixture
def at_site():
    """Return a runner of ``async def story(site)`` beside a watch, in simulated time that begins at 0."""

    def run(story):
        async def main():
            site = Site()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.watch)
                await trio.testing.wait_all_tasks_blocked()
                began = trio.current_time()
                await story(site)
                await trio.sleep(2)
                site.mended_at = [at - began for at in site.mended_at]
                site.said_at = [at - began for at in site.said_at]
                nursery.cancel_scope.cancel()
            site.close()
            return site

        return trio.run(main, clock=MockClock(autojump_threshold=0.01), strict_exception_groups=True)

    return run


def test_changes_of_half_a_second_are_told_as_one(at_site):
    async def story(site):
        for _ in range(4):
            site.tell("foreign")
            await trio.sleep(GATHER_TIME / 5)

    site = at_site(story)

    assert site.said == [True]
    assert site.said_at == pytest.approx([GATHER_TIME])
    assert site.mended_at == []


def test_what_we_did_ourselves_is_told_as_such(at_site):
    async def story(site):
        site.tell("own")

    assert at_site(story).said == [False]


def test_a_loss_is_mended_at_once_and_told_in_time(at_site):
    """Before, packets of containers left unencrypted for half a second if somebody flushed the routes."""

    async def story(site):
        site.tell("loss")

    site = at_site(story)

    assert site.mended_at == [0]
    assert site.said_at == pytest.approx([GATHER_TIME])


def test_a_second_loss_soon_after_is_mended_as_soon(at_site):
    async def story(site):
        site.tell("loss")
        await trio.sleep(0.01)
        site.tell("loss")

    site = at_site(story)

    assert site.mended_at == pytest.approx([0, changes.READ_PAUSE])
    assert site.said == [True]


@pytest.mark.slow
def test_who_takes_routes_without_end_is_answered_at_a_bounded_rate(at_site):
    async def story(site):
        for _ in range(500):
            site.tell("loss")
            await trio.sleep(GATHER_TIME / 500)

    site = at_site(story)

    assert 2 < len(site.mended_at) <= 2 * GATHER_TIME / changes.READ_PAUSE
