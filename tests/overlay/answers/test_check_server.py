"""One immediate check, as the agent answers it: its steps, and no effect on the regular schedule."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
import trio.testing

from overlay.answers import check_server
from overlay.services import checks
from overlay.services.checking import Result
from overlay.services.checks.dialer import NotAskedError
from tests.overlay.balancing.test_balancing import WEB, Bench


class Site:
    """A director on which *kind* replaces the kind of check ``tcp``."""

    def __init__(self, monkeypatch, kind, text=WEB):
        monkeypatch.setattr(checks, "runner", lambda _: kind)
        self.balancing = Bench(text).balancing
        remote = SimpleNamespace(
            encapsulation=SimpleNamespace(name="wireguard", is_encrypted=True),
            endpoint=("192.0.2.2", 51820),
            is_confirmed=True,
            is_silent=False,
        )
        self.running = SimpleNamespace(
            balancing=self.balancing,
            node=lambda: self.balancing.node,
            services=self.balancing.node.table.services,
            roster=SimpleNamespace(by_name={"web1": remote}),
        )
        self.told = []

    async def tell_rows(self, rows):
        self.told.append(rows)

    def ask(self, name="web/web1", tell_rows=None):
        request = {"op": "check_server", "name": name}
        tell = tell_rows or self.tell_rows
        return trio.run(
            check_server.answer,
            self.running,
            request,
            tell,
            clock=trio.testing.MockClock(autojump_threshold=0.01),
            strict_exception_groups=True,
        )


async def good(_, __):
    await trio.sleep(0.5)
    return Result(True, "so it is")


def test_steps_and_verdict_are_told_and_the_regular_checks_know_nothing_of_it(monkeypatch):
    site = Site(monkeypatch, good)
    health = site.balancing.watching.healths["web"]
    before, due = dict(health.standings), site.balancing.watching.next_deadline()

    answer = site.ask()

    assert answer == {
        "ok": True,
        "is_good": True,
        "checks": 1,
        "state": "checking",
        "reason": "no check has ended yet",
    }
    first, check, verdict = [row for rows in site.told for row in rows]
    assert first["step"] == "web/web1 is the peer web1: wireguard to 192.0.2.2:51820 with a session"
    assert check == {"check": "tcp", "name": "", "address": "203.0.113.80", "port": 80}
    assert verdict == {"is_good": True, "reason": "so it is", "weight": None, "seconds": pytest.approx(0.5)}
    assert (health.standings, site.balancing.watching.next_deadline()) == (before, due)


def test_a_check_that_takes_long_gives_signs_of_life_and_ends_at_its_time(monkeypatch):
    async def hang(_, __):
        await trio.sleep_forever()

    site = Site(monkeypatch, hang, WEB.replace("retries = 0", "timeout = 20"))

    assert not site.ask()["is_good"]
    assert site.told.count([]) >= 4
    assert site.told[-1][0]["reason"] == "no answer within 20 s"


def test_a_check_that_could_not_be_made_is_neither_good_nor_bad(monkeypatch):
    async def refuse(_, __):
        raise NotAskedError("the forwarder did not answer within 2 s")

    site = Site(monkeypatch, refuse)

    assert not site.ask()["is_good"]
    assert site.told[-1][0]["is_good"] is None


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.TooSlowError])
def test_who_asks_and_leaves_ends_the_check_and_harms_nothing(monkeypatch, error):
    ended = []

    async def hang(_, __):
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    site = Site(monkeypatch, hang)

    async def leave(rows):
        if rows and "check" in rows[0]:
            await trio.sleep(0.1)
            raise error

    with pytest.raises(error):
        site.ask(tell_rows=leave)
    assert ended == [True]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("wep/web1", "unknown_service", "there is no service 'wep'"),
        ("web/web9", "unknown_service", "there is no server of web 'web9'"),
        ("web", "unknown_service", "there is no server of web ''"),
        (["web/web1"], "unknown_service", "there is no service"),
        (None, "unknown_service", "there is no service 'None'"),
        ("far/web1", "failed", "this node is not a director of far"),
    ],
)
def test_names_that_cannot_be_checked_are_refused(monkeypatch, name, kind, said):
    far = '\n[services.far]\naddress = "203.0.113.81"\ndirectors = ["client"]\nservers = ["web1"]\n'
    site = Site(monkeypatch, good, WEB + far)

    answer = site.ask(name)

    assert (answer["ok"], answer["kind"]) == (False, kind)
    assert said in answer["error"]
    assert site.told == []


def test_a_server_without_checks_is_told_of_and_good(monkeypatch):
    site = Site(monkeypatch, good, WEB.replace('check = { kind = "tcp", retries = 0 }', ""))

    answer = site.ask("web/web2")

    assert (answer["is_good"], answer["checks"]) == (True, 0)
    assert site.told == [[{"step": "web/web2 is this node itself", "seconds": 0.0}]]
