from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from overlay.diagnosis.finding import Finding
from overlay.diagnosis.notes import PATIENCE, HostNotes, Reading
from overlay.host import clock
from overlay.host.firewall.rules import Firewall
from tests.simulated_time import waiting_for_threads


class Host:
    """A host with notes, and packet filters that take a while to read."""

    def __init__(self):
        self.sentences = []
        self.readings = 0
        self.seen = []
        self.blocked = trio.Event()
        self.blocked.set()

    def look(self, reading):
        self.seen.append(reading)
        return [Finding("name", sentence, "run `it`") for sentence in self.sentences]

    def read(self):
        self.readings += 1
        trio.from_thread.run(self.blocked.wait)
        return Reading(Firewall((), (f"reading {self.readings}",)))


@pytest.fixture
def simulated(monkeypatch):
    """A clock that jumps to what is due next."""
    made = trio.testing.MockClock(autojump_threshold=0)
    monkeypatch.setattr(clock, "now", made.current_time)
    return made


@pytest.fixture
def run(simulated):
    """Run a story with a host and its notes, in time that stands still while the host is read."""

    def go(story):
        async def main():
            host = Host()
            notes = HostNotes(host.look, host.read)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(notes.keep_reading)
                await story(host, notes)
                nursery.cancel_scope.cancel()

        with waiting_for_threads(simulated):
            trio.run(main, clock=simulated)

    return go


def test_each_sentence_is_told_once_when_it_comes_and_once_when_it_goes(run, caplog):
    caplog.set_level("INFO", logger="overlay")

    async def story(host, notes):
        host.sentences = ["a", "b"]
        notes.look()
        notes.look()
        host.sentences = ["b"]
        notes.look()
        assert notes.sentences == ["b: run `it`"]

    run(story)

    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("WARNING", "a: run `it`"), ("WARNING", "b: run `it`"), ("INFO", "no longer true: a")]


def test_packet_filters_are_read_when_somebody_looks_closely(run):
    async def story(host, notes):
        assert host.readings == 0

        await notes.look_closely()

        assert host.readings == 1
        assert host.seen[-1].firewall.unread == ("reading 1",)

    run(story)


def test_packet_filters_are_not_read_again_at_once(run):
    async def story(host, notes):
        for _ in range(20):
            await notes.look_closely()

        assert host.readings == 1

    run(story)


def test_what_is_asked_while_a_reading_runs_is_answered_by_it(run):
    async def story(host, notes):
        host.blocked = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(notes.look_closely)
            await trio.testing.wait_all_tasks_blocked()
            host.blocked.set()

        assert host.readings == 1

    run(story)


def test_who_wants_the_present_state_gets_a_reading_that_began_later(run):
    """One that was under way may have missed what has changed; it was taken, or one from before a pause."""

    async def story(host, notes):
        host.blocked = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notes.look_closely)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(partial(notes.look_closely, is_fresh=True))
            await trio.testing.wait_all_tasks_blocked()
            host.blocked.set()
        assert host.readings == 2

        await notes.look_closely(is_fresh=True)
        assert host.seen[-1].firewall.unread == ("reading 3",)

    run(story)


def test_reading_that_hangs_does_not_hold_up_who_asks(simulated):
    """A program that hangs, for example waiting for a lock: the known notes are reported."""
    host = Host()

    async def main():
        host.blocked = trio.Event()
        host.sentences = ["a"]
        notes = HostNotes(host.look, host.read)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notes.keep_reading)
            with trio.fail_after(PATIENCE * 5):
                await notes.look_closely()
            assert notes.sentences == ["a: run `it`"]
            nursery.cancel_scope.cancel()
        host.blocked.set()
        await trio.sleep(0)

    trio.run(main, clock=simulated)
