"""Services at a running node, with a forwarder that only listens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from overlay.balancing.balancing import Balancing
from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.encap import wireguard
from overlay.host import clock
from overlay.link.messages import ControlReceived
from overlay.link.service_messages import Pinned, ServerCounters, ServiceCounters, SetServers
from overlay.services.checking import Result
from overlay.services.directors import group_number
from overlay.services.health import Condition
from overlay.services.settings import entry_of
from overlay.services.sharing import CONDITIONS
from overlay.wire import control
from overlay.wire.control import Presence
from overlay.wire.service_control import StandingRow, StandingsTold
from peers import toml
from tests.overlay.services.test_delivery import PEERS

WEB = """
[services.web]
address = "203.0.113.80"
ports = [80]
directors = ["lb"]
servers = [{ peer = "web1", weight = 100 }, "web2"]
slow_start = 60
check = { kind = "tcp", retries = 0 }
"""


def node(text=WEB, own="lb"):
    table = toml.parse(PEERS + text, Path("peers.toml"))
    return Node(PrivateKey(bytes(32)), table, table.peers[own], {})


class Bench:
    """A director whose peers have numbers, and the commands to its forwarder."""

    def __init__(self, text=WEB, own="lb"):
        self.told = []
        numbers = {"web1": 1, "web2": 2, "client": 3} | ({} if own == "lb" else {"lb": 4})
        self.roster = SimpleNamespace(
            by_name={
                name: SimpleNamespace(number=number, encapsulation=wireguard.ENCAPSULATION)
                for name, number in numbers.items()
            },
            by_number={},
        )
        self.balancing = Balancing(node(text, own), self.roster, self.tell, list)
        self.told += self.balancing.everything()

    async def tell(self, command):
        self.told.append(command)

    def weights(self):
        """Return the weights that the forwarder was given last."""
        return [row.weight for row in [each for each in self.told if isinstance(each, SetServers)][-1].rows]

    async def result(self, place, is_good):
        watching = self.balancing.watching
        watching.run_now("web", watching.healths["web"].service.servers[place].key, clock.now())
        probe = watching.due(clock.now())[0]
        watching.finish(probe, Result(is_good, "so it is"), clock.now())
        await self.balancing.look()


@pytest.fixture
def bench(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    made = Bench()
    made.now = now
    return made


def test_steps_of_a_slow_start_reach_the_forwarder(bench):
    async def main():
        assert bench.weights() == [100, 1]
        await bench.result(0, False)
        assert bench.weights() == [0, 1]
        await bench.result(0, True)
        assert bench.weights() == [10, 1]
        bench.now[0] += 30
        await bench.balancing.look()
        assert bench.weights() == [60, 1]

    trio.run(main)


def test_forwarder_is_not_told_again_what_it_knows(bench):
    async def main():
        count = len(bench.told)
        await bench.result(1, True)
        await bench.balancing.adopt(node())
        assert [each for each in bench.told[count:] if isinstance(each, SetServers)] == []

    trio.run(main)


def test_result_that_comes_while_a_reload_takes_a_peer_out_waits_for_the_new_table(bench):
    async def main():
        gone = bench.roster.by_name.pop("web1")
        count = len(bench.told)
        await bench.result(0, False)
        assert len(bench.told) == count
        bench.roster.by_name["web1"] = gone
        await bench.balancing.adopt(node())
        assert bench.weights() == [0, 1]

    trio.run(main)


def test_answers_that_nobody_waits_for_are_not_awaited_and_those_of_a_flood_neither(bench):
    balancing = bench.balancing
    piece = ServiceCounters(1, 0.0, [ServerCounters(0, 0, 0, 0, 0, 0, 0)] * 60, [], {}, False)
    assert not balancing.awaits(Pinned(1, []))
    assert not balancing.awaits(piece)
    balancing._pins._told[1], balancing.counting._asked[1] = None, ([], trio.Event())
    assert balancing.awaits(Pinned(1, []))
    taken = 0
    while balancing.awaits(piece):
        balancing.counting._asked[1][0].append(piece)
        taken += 1
    assert taken == 2


def test_what_another_director_gives_servers_reaches_the_forwarder(monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    bench = Bench(WEB.replace('["lb"]', '["lb", "client"]'))
    bench.roster.by_number[3] = SimpleNamespace(peer=SimpleNamespace(name="client"), foreign=0)
    service = bench.balancing.watching.healths["web"].service
    group = group_number(("lb", "client"))
    row = StandingRow(entry_of(service, service.servers[0]), CONDITIONS.index(Condition.DOWN), 0, 5)
    told = control.build(StandingsTold(group, 0, (row,)))

    for _ in range(2):
        trio.run(bench.balancing.take, ControlReceived(3, told))

    views = [each.elsewhere for each in bench.told if isinstance(each, SetServers)]
    assert views == [[], [(0, [0, 1])]]


@pytest.mark.parametrize("number", [2, 99], ids=["a peer that is no director", "a peer that is unknown"])
def test_who_is_no_director_claims_no_service(monkeypatch, number):
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    bench = Bench(WEB.replace('["lb"]', '["lb", "web1"]'), "client")
    bench.roster.by_number[2] = SimpleNamespace(peer=SimpleNamespace(name="web2"), foreign=0)
    group, count = ("lb", "web1"), len(bench.told)
    claim = control.build(Presence(group_number(group), True, (0,)))

    trio.run(bench.balancing.take, ControlReceived(number, claim))

    assert bench.balancing.directors.active(group) == "lb"
    assert bench.told[count:] == []


def test_check_begun_before_there_is_a_session_with_its_server_s_peer_says_nothing_of_it(bench):
    balancing = bench.balancing
    now = clock.now()
    balancing.watching.run_now("web", balancing.watching.healths["web"].service.servers[0].key, now)
    (probe,) = balancing.watching.due(now)[:1]

    async def main():
        early = balancing.dialer_for(probe)
        bench.now[0] += 1.0
        await balancing.met(1)
        bench.now[0] += 1.0
        late = balancing.dialer_for(probe)
        assert (early.was_blind, late.was_blind) == (True, False)

    trio.run(main)
