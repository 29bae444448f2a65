"""Directors that tell each other about servers, over a network in memory that loses what a test says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from overlay.services.checking import Checking, Result
from overlay.services.health import ByHand, Condition, FlowPolicy, Health
from overlay.services.settings import Settings, entry_of
from overlay.services.sharing import (
    INTERVAL,
    MOST_COMPARED,
    PACE,
    PROMPT,
    REPEAT,
    ROUNDS,
    TRIES,
    Disagreement,
    Say,
    Sharing,
)
from overlay.wire import control
from overlay.wire.bounds import CONTROL_BYTES
from overlay.wire.service_control import SettingRow, SettingsHeard, SettingsTold, StandingRow, StandingsTold
from peers.service import Check, Server, Service

GROUP = ("lb1", "lb2", "lb3")
WEB = Service(
    "web",
    (ip_address("203.0.113.80"),),
    directors=GROUP,
    servers=(Server("web1", "web1"), Server("web2", "web2", weight=3)),
)
DRAINED = ByHand(is_drained=True)


class Director:
    def __init__(self, world, name, services, deaf=()):
        self.world, self.name = world, name
        self.settings = Settings()
        self.healths = {}
        self.sharing = Sharing(name, self.settings, lambda: self.healths)
        self.adopt(services, deaf)

    def adopt(self, services, deaf=()):
        self.checkings = {
            service.name: {each.key: [Checking(Check("tcp"), 0.0, 0.0)] for each in service.entries}
            for service in services
        }
        for checkings in self.checkings.values():
            for (checking,) in checkings.values():
                checking.finish(Result(True, "fine"), self.world.now)
        self.healths = {
            service.name: Health(service, self.checkings[service.name], self.world.now)
            for service in services
        }
        self.sharing.adopt(services, self.world.everybody, deaf, self.world.now)

    def fail(self, key):
        (checking,) = self.checkings["web"][key]
        for _ in range(3):
            checking.finish(Result(False, "broken"), self.world.now)
        self.healths["web"].look(self.world.now)
        self.sharing.changed(self.world.now)

    def set(self, by_hand, place=0, service=WEB):
        server = service.servers[place]
        telling = self.sharing.set_by_hand(service, server, by_hand, 1_000_000, self.world.now)
        self.apply()
        return telling

    def apply(self):
        for service, key, by_hand in self.settings.by_hand():
            self.healths[service].set_by_hand(key, by_hand, self.world.now)

    def held(self):
        return {(service, key): by_hand for service, key, by_hand in self.settings.by_hand()}

    def differences(self, place=0):
        return self.sharing.differences(WEB, WEB.servers[place], self.world.now)


class World:
    def __init__(self, *names, services=(WEB,), everybody=()):
        self.now, self.away, self.said, self.everybody = 100.0, set(), [], everybody or names
        self.nodes = {}
        for name in names or GROUP:
            self.nodes[name] = Director(self, name, services)

    def __getattr__(self, name):
        return self.nodes[name]

    def start(self, name, services=(WEB,)):
        self.nodes[name] = Director(self, name, services)

    def carry(self, sender, said):
        for each in said or ():
            assert isinstance(each, Say)
            payload = control.build(each.message)
            assert len(payload) <= CONTROL_BYTES
            self.said.append((self.now, sender, each))
            for name in each.peers if each.peers is not None else [*self.nodes]:
                if name in self.nodes and name != sender and not {name, sender} & self.away:
                    node = self.nodes[name]
                    self.carry(name, node.sharing.heard(sender, control.parse(payload), self.now))
                    node.apply()

    def run(self, seconds):
        end = self.now + seconds
        while (due := min(node.sharing.next_deadline() for node in self.nodes.values())) <= end:
            self.now = max(self.now, due)
            for name, node in list(self.nodes.items()):
                self.carry(name, node.sharing.handle_deadline(self.now))
        self.now = end

    def messages(self, kind, since=0.0):
        return [each for at, _, each in self.said if at >= since and isinstance(each.message, kind)]


# Settings


def test_setting_holds_at_every_director_and_who_set_it_knows():
    world = World()
    telling = world.lb2.set(DRAINED)
    assert telling.missing == {"lb1", "lb3"}
    world.run(1)

    assert telling.is_over
    assert telling.missing == set()
    for name in GROUP:
        assert world.nodes[name].healths["web"].standings["web1:0"].condition is Condition.DRAINED
    assert len(world.messages(SettingsTold)) == 1


def test_setting_is_sent_a_few_times_and_directors_that_did_not_confirm_are_known():
    world = World()
    world.run(10)
    world.away = {"lb3"}
    telling = world.lb1.set(DRAINED)
    world.run(TRIES * REPEAT + 0.1)

    assert telling.is_over
    assert telling.missing == {"lb3"}
    told = [each for each in world.messages(SettingsTold) if each.message.identifier]
    assert [each.peers for each in told] == [("lb2", "lb3"), *[("lb3",)] * (TRIES - 1)]


def test_director_that_was_away_gets_what_holds_when_it_is_heard_again():
    world = World()
    world.away = {"lb3"}
    world.lb1.set(DRAINED)
    world.lb2.set(ByHand(7), place=1)
    world.run(20)
    assert world.lb3.held() == {}
    world.away = set()
    world.run(INTERVAL + 1)

    assert world.lb3.held() == world.lb1.held() == {("web", "web1:0"): DRAINED, ("web", "web2:0"): ByHand(7)}


def test_director_that_begins_anew_gets_what_holds_and_takes_nothing_away():
    world = World()
    world.lb1.set(DRAINED)
    world.run(10)
    world.start("lb1")
    world.run(2)

    assert {name: len(node.held()) for name, node in world.nodes.items()} == dict.fromkeys(GROUP, 1)


def test_what_is_enabled_while_a_director_was_away_is_not_drained_again_by_it():
    world = World()
    world.lb1.set(DRAINED)
    world.run(10)
    world.away = {"lb3"}
    world.lb1.set(ByHand())
    world.run(10)
    world.away = set()
    world.run(INTERVAL + 2)

    assert {node.held()["web", "web1:0"] for node in world.nodes.values()} == {ByHand()}


def test_setting_of_a_server_that_the_file_has_changed_here_does_not_come_back():
    world = World()
    world.lb1.set(DRAINED)
    world.run(10)
    changed = replace(WEB, servers=(replace(WEB.servers[0], weight=9), WEB.servers[1]))
    world.lb1.adopt([changed])
    world.run(20)
    assert world.lb1.held() == {}
    for name in ("lb2", "lb3"):
        world.nodes[name].adopt([changed])
    world.run(20)

    assert [node.held() for node in world.nodes.values()] == [{}, {}, {}]


def test_director_with_another_file_does_not_confirm():
    world = World()
    world.lb3.adopt([replace(WEB, servers=(replace(WEB.servers[0], weight=9),))])
    telling = world.lb1.set(DRAINED)
    world.run(10)

    assert telling.missing == {"lb3"}


def test_directors_that_agree_tell_each_other_no_settings():
    world = World()
    world.lb1.set(DRAINED)
    world.run(10)
    since = world.now
    world.run(100)

    assert world.messages(SettingsTold, since) == []


def test_director_that_cannot_receive_is_named_and_not_awaited():
    world = World()
    world.lb1.adopt([WEB], deaf=["lb3"])
    telling = world.lb1.set(DRAINED)
    world.run(1)

    assert telling.missing == set()
    assert world.lb1.sharing.deaf(WEB) == ("lb3",)


def test_single_director_has_nobody_to_tell():
    alone = replace(WEB, directors=("lb1",))
    world = World("lb1", services=[alone])
    telling = world.lb1.set(DRAINED, service=alone)
    world.run(1000)

    assert telling.is_over
    assert world.said == []


# Everybody is a director


def everybody(count):
    names = [f"node{number}" for number in range(count)]
    return World(*names, services=[replace(WEB, directors=None)], everybody=names)


@pytest.mark.slow
def test_setting_holds_everywhere_where_every_node_is_a_director():
    world = everybody(100)
    telling = world.node7.set(DRAINED, service=replace(WEB, directors=None))
    world.run(2)

    assert telling.missing == set()
    assert all(node.held() for node in world.nodes.values())
    assert max(len(each.peers) for each in world.messages(SettingsTold)) <= 32


def test_node_that_starts_among_many_directors_gets_what_holds():
    world = everybody(MOST_COMPARED + 5)
    world.node7.set(DRAINED, service=replace(WEB, directors=None))
    world.run(5)
    world.start("node9", [replace(WEB, directors=None)])
    world.run(2)

    assert world.node9.held()


def test_many_directors_tell_each_other_little():
    world = everybody(MOST_COMPARED + 5)
    world.run(100)
    since = world.now
    world.run(60)

    assert len(world.messages(StandingsTold, since)) <= 3 * len(world.nodes)
    assert all(each.message.rows == () for each in world.messages(StandingsTold))
    assert len(world.node1.sharing.unheard(replace(WEB, directors=None), world.now)) == MOST_COMPARED + 4


# Standings


def test_server_that_another_director_finds_otherwise_is_named_and_since_when():
    world = World()
    world.run(20)
    assert world.lb1.differences() == []
    world.lb2.fail("web1:0")
    world.run(10)

    assert world.lb1.differences() == [Disagreement("lb2", Condition.DOWN, 0, pytest.approx(120, abs=1.1))]
    assert world.lb1.differences(place=1) == []
    assert [each.director for each in world.lb2.differences()] == ["lb1", "lb3"]
    assert {each.effective for each in world.lb2.differences()} == {1}


def test_changes_are_reported_soon():
    world = World()
    world.run(21)
    world.lb2.fail("web1:0")
    world.run(PROMPT + PACE)

    assert [each.director for each in world.lb1.differences()] == ["lb2"]


def test_director_that_is_not_heard_is_unknown_and_does_not_differ():
    world = World()
    assert world.lb1.sharing.unheard(WEB, world.now) == ["lb2", "lb3"]
    world.lb2.fail("web1:0")
    world.run(10)
    assert world.lb1.sharing.unheard(WEB, world.now) == []
    world.away = {"lb2"}
    world.run(ROUNDS * INTERVAL + 2)

    assert world.lb1.sharing.unheard(WEB, world.now) == ["lb2"]
    assert world.lb1.differences() == []


def test_server_that_another_director_does_not_know_is_named():
    world = World()
    world.lb2.adopt([replace(WEB, servers=WEB.servers[1:])])
    world.run(10)

    assert [(each.director, each.condition) for each in world.lb1.differences()] == [("lb2", None)]


def test_many_servers_are_reported_at_a_limited_pace():
    many = replace(WEB, servers=tuple(Server(f"web{number}", f"web{number}") for number in range(500)))
    world = World("lb1", "lb2", services=[replace(many, directors=("lb1", "lb2"))])
    world.run(30)
    times = [at for at, sender, _ in world.said if sender == "lb1"]

    assert all(late - early >= PACE - 1e-9 for early, late in pairwise(times))
    service = world.lb1.healths["web"].service
    assert world.lb1.sharing.differences(service, service.servers[499], world.now) == []


# Who may say what


@pytest.mark.parametrize("sender", ["lb4", "web1", "lb1"])
@pytest.mark.parametrize(
    "message",
    [
        SettingsTold(0, 1, (SettingRow(entry_of(WEB, WEB.servers[0]), 9, None, True, False),)),
        SettingsHeard(0, 1),
        StandingsTold(0, 1, (StandingRow(entry_of(WEB, WEB.servers[0]), 1, 0, 0),)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_peer_that_is_not_a_director_is_ignored(sender, message):
    world = World()
    group = world.messages(StandingsTold) or world.run(1) or world.messages(StandingsTold)
    told = replace(message, group=group[0].message.group)

    assert world.lb1.sharing.heard(sender, told, world.now) is None
    assert world.lb1.held() == {}
    assert world.lb1.differences() == []


def test_director_of_one_service_says_nothing_of_another():
    mail = Service("mail", (), directors=("lb1", "lb4"), servers=(Server("m1", "m1"),))
    world = World("lb1", "lb2", "lb4", services=[WEB, mail])
    world.run(1)
    groups = {each.message.group for each in world.messages(StandingsTold)}
    row = SettingRow(entry_of(WEB, WEB.servers[0]), 9, None, True, False)
    for group in groups:
        world.lb1.sharing.heard("lb4", SettingsTold(group, 1, (row,)), world.now)

    assert world.lb1.held() == {}


def test_unknown_conditions_and_groups_change_nothing():
    world = World()
    world.run(1)
    told = world.messages(StandingsTold)[0].message
    entry = entry_of(WEB, WEB.servers[0])

    assert (
        world.lb1.sharing.heard("lb2", replace(told, rows=(StandingRow(entry, 200, 1, 1),)), world.now)
        is not None
    )
    assert world.lb1.differences() == []
    assert world.lb1.sharing.heard("lb2", replace(told, group=5), world.now) is None


def test_digests_that_differ_are_answered_at_a_rate():
    world = World()
    world.lb1.set(DRAINED)
    world.run(1)
    told = replace(world.messages(StandingsTold)[0].message, settings=12345)
    answers = [world.lb1.sharing.heard("lb2", told, world.now) for _ in range(100)]

    assert sum(map(len, answers)) <= 1


def test_confirmation_that_nobody_waits_for_means_nothing():
    world = World()
    telling = world.lb1.set(DRAINED)
    told = telling.message
    world.lb1.sharing.heard("lb2", SettingsHeard(told.group, told.identifier + 1), world.now)
    assert telling.missing == {"lb2", "lb3"}
    world.lb1.sharing.heard("lb2", SettingsHeard(told.group, told.identifier), world.now)
    world.lb1.sharing.heard("lb2", SettingsHeard(told.group, told.identifier), world.now)

    assert telling.missing == {"lb3"}


# How others would choose


def test_weights_that_another_director_gives_servers_are_known_once_where_they_differ():
    world = World()
    world.run(INTERVAL)
    assert world.lb1.sharing.elsewhere(WEB) == []
    world.lb1.sharing.restood()

    world.lb2.fail("web2:0")
    world.lb3.fail("web2:0")
    world.run(1)

    assert world.lb1.sharing.elsewhere(WEB) == [(0, [1, 0])]
    assert world.lb1.sharing.restood() == {"web"}
    world.run(3 * INTERVAL)
    assert world.lb1.sharing.restood() == set()


def test_server_that_another_director_cannot_use_by_one_ip_version_has_no_weight_for_that_there():
    both = replace(WEB, addresses=(*WEB.addresses, ip_address("2001:db8::80")))
    world = World(*GROUP, services=(both,))
    world.run(INTERVAL)
    health = world.lb2.healths["web"]
    standing = health.standings["web2:0"]
    health.standings["web2:0"] = replace(standing, apart=((6, FlowPolicy.NONE),))
    world.run(INTERVAL)

    assert world.lb1.sharing.elsewhere(both) == [(6, [1, 0])]
    assert world.lb2.sharing.elsewhere(both) == [(6, [1, 3])]
    assert world.lb1.sharing.restood() == {"web"}


def test_nothing_differs_where_every_node_is_a_director():
    service = replace(WEB, directors=None)
    world = World(*GROUP, services=(service,))
    world.lb2.fail("web2:0")
    world.run(INTERVAL + 1)

    assert world.lb1.sharing.elsewhere(service) == []
