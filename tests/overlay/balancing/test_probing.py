"""Checks that run at the same time, in simulated time, with dialers that do what the test wants."""

from __future__ import annotations

import dataclasses
import logging
from ipaddress import ip_address

import trio
import trio.testing

from overlay.balancing import probing
from overlay.balancing.probing import Probing
from overlay.host import clock
from overlay.host.process import descriptors
from overlay.services.checking import Result
from overlay.services.checks.dialer import NotAskedError
from overlay.services.health import Condition
from overlay.services.watching import Watching
from peers.service import Check, Server, Service

CHECK = Check("tcp", every=6.0, timeout=5.0, retries=0, warmup=0.0)


def service(count, **keys):
    servers = tuple(Server(f"web{number}", f"web{number}") for number in range(count))
    return Service(
        "web",
        (ip_address("203.0.113.80"),),
        ports=((80, 80),),
        servers=servers,
        checks=(dataclasses.replace(CHECK, **keys),),
    )


class Way:
    """A server that answers immediately, hangs, or cannot be asked."""

    port = 80

    def __init__(self, bench, name):
        self._bench, self._name = bench, name
        self._began = bench.forwarders

    @property
    def was_blind(self):
        return self._bench.forwarders != self._began

    async def knock(self):
        bench = self._bench
        bench.asked.append(self._name)
        bench.running += 1
        bench.most = max(bench.most, bench.running)
        try:
            if self._name in bench.not_asked:
                raise NotAskedError("there is nothing left of it")
            if self._name in bench.hanging:
                await trio.sleep_forever()
            await trio.sleep(0.01)
            if self._name in bench.restarting:
                bench.restarting.remove(self._name)
                bench.forwarders += 1
                raise ConnectionResetError
        finally:
            bench.running -= 1

    def close(self):
        self._bench.closed += 1


class Exchanges:
    """Runs as a task of its own what is usually one exchange."""

    def __init__(self, nursery):
        self._nursery = nursery

    def begin(self, way, exchange, done):
        self._nursery.start_soon(self._knock, way, exchange, done)

    async def _knock(self, way, exchange, done):
        found = Result(False, "no answer")
        with trio.move_on_after(exchange.patience):
            try:
                await way.knock()
                found = exchange.connected
            except NotAskedError as error:
                found = error
            except OSError:
                found = Result(False, "reset")
        done(found)


class Bench:
    def __init__(self, monkeypatch, *services, waiting=lambda: 0):
        monkeypatch.setattr(clock, "now", trio.current_time)
        self.hanging, self.not_asked = set(), set()
        self.forwarders, self.restarting = 0, set()
        self.asked, self.closed, self.running, self.most, self.changes = [], 0, 0, 0, 0
        self.services, self._waiting = services, waiting

    def run(self, seconds):
        async def main():
            self.watching = Watching(lambda: 0.0)
            self.watching.adopt({each.name: each for each in self.services}, trio.current_time())
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    made = Probing(
                        self.watching,
                        lambda probe: Way(self, probe.server.name),
                        Exchanges(nursery),
                        self._waiting,
                        self._changed,
                    )
                    await made.run()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    def _changed(self):
        self.changes += 1

    def standings(self):
        self.watching.look(0.0)
        return [each.condition for each in self.watching.healths["web"].standings.values()]


def test_check_that_hangs_delays_no_other(monkeypatch):
    bench = Bench(monkeypatch, service(100))
    bench.hanging = {f"web{number}" for number in range(50)}
    bench.run(5.9)

    assert sorted(bench.asked) == sorted(f"web{number}" for number in range(100))
    assert bench.standings() == [Condition.DOWN] * 50 + [Condition.UP] * 50
    assert (bench.most, bench.closed, bench.changes) == (100, 100, 100)


def test_checks_are_repeated_and_only_news_are_told(monkeypatch):
    bench = Bench(monkeypatch, service(2))
    bench.run(19.0)
    assert sorted(bench.asked) == ["web0"] * 4 + ["web1"] * 4
    assert bench.changes == 2


def test_check_that_cannot_be_made_is_no_failure_and_is_told_once(monkeypatch, caplog):
    bench = Bench(monkeypatch, service(2))
    bench.not_asked = {"web0", "web1"}
    with caplog.at_level(logging.WARNING, "overlay"):
        bench.run(9.5)

    assert 8 * 2 <= len(bench.asked) <= 10 * 2
    assert bench.standings() == [Condition.CHECKING] * 2
    (told,) = caplog.messages
    assert told.startswith("check not made, trying again service=web server=web")
    assert told.endswith(": there is nothing left of it")


def test_check_that_fails_while_this_node_sees_nothing_is_repeated_and_does_not_count(monkeypatch):
    bench = Bench(monkeypatch, service(2))
    bench.restarting = {"web1"}
    bench.run(2.0)

    assert sorted(bench.asked) == ["web0", "web1", "web1"]
    assert bench.standings() == [Condition.UP] * 2


def test_more_checks_than_descriptors_are_late_which_is_told(monkeypatch, caplog):
    monkeypatch.setattr(descriptors, "raise_limit", lambda _: probing.SPARE + 10 * probing.EACH)
    bench = Bench(monkeypatch, service(100, timeout=20.0))
    bench.hanging = {f"web{number}" for number in range(100)}
    with caplog.at_level(logging.WARNING, "overlay"):
        bench.run(50.0)

    assert bench.most == 10
    assert 20 <= len(bench.asked) <= 30
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        f"checks of services are late by 5 s: the agent may open no more than {probing.SPARE + 20} files; raise"
    )


def test_checks_that_the_forwarder_has_no_time_for_are_late_and_do_not_fail(monkeypatch, caplog):
    bench = Bench(monkeypatch, service(2), waiting=lambda: probing.AT_ONCE)
    with caplog.at_level(logging.WARNING, "overlay"):
        bench.run(10.0)

    assert bench.asked == []
    assert bench.standings() == [Condition.CHECKING] * 2
    assert caplog.messages == [
        (
            "checks of services are late by 5 s: this host does not have enough time for so many; check less often, or "
            "add directors"
        )
    ]


def test_check_wanted_now_is_run_now(monkeypatch):
    monkeypatch.setattr(clock, "now", trio.current_time)

    async def main():
        bench = Bench(monkeypatch, service(1))
        watching = Watching(lambda: 0.0)
        watching.adopt({"web": bench.services[0]}, trio.current_time())
        async with trio.open_nursery() as nursery:
            made = Probing(
                watching,
                lambda probe: Way(bench, probe.server.name),
                Exchanges(nursery),
                lambda: 0,
                bench._changed,
            )
            nursery.start_soon(made.run)
            await trio.sleep(1.0)
            assert bench.asked == ["web0"]
            watching.run_now("web", "web0:0", clock.now())
            made.wake()
            await trio.sleep(0.1)
            assert bench.asked == ["web0"] * 2
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_director_without_checks_asks_nobody(monkeypatch):
    bench = Bench(monkeypatch)
    bench.run(100.0)
    assert bench.asked == []
