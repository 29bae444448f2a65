"""Which servers take flows: checks, settings by hand, quorum with a sorry server, slow start, and reloads."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.services.checking import Checking, Result
from overlay.services.health import ByHand, Condition, FlowPolicy, Health, QuorumChanged, ServerChanged
from peers.service import Check, Server, Service

GOOD, BAD = Result(True, "200 OK"), Result(False, "connection refused")
CHECK = Check("tcp", retries=0)
WEB1, WEB2, SORRY = (
    Server("web1", "web1", weight=3),
    Server("web2", "web2", weight=2),
    Server("static", "static"),
)


class Bench:
    """A service, its checks, and a clock."""

    def __init__(self, servers=(WEB1, WEB2), check=CHECK, results=GOOD, **settings):
        self.now = 1000.0
        self.service = Service("web", (), servers=tuple(servers), checks=(check,), **settings)
        self.checkings = self.checks_of(self.service)
        self.health = Health(self.service, self.checkings, self.now)
        if results is not None:
            for server in self.service.entries:
                self.result(server, results)

    def checks_of(self, service):
        return {
            server.key: [Checking(check, self.now, 0.0) for check in service.checks_of(server)]
            for server in service.entries
        }

    def result(self, server, *results):
        for checking, result in zip(self.checkings[server.key], results * 9, strict=False):
            checking.finish(result, self.now)
        return self.health.look(self.now)

    def standing(self, server):
        return self.health.standings[server.key]

    def conditions(self):
        return [self.standing(server).condition.value for server in self.service.entries]

    def flows(self):
        return [self.standing(server).flows for server in self.service.entries]

    def effective(self):
        return [self.standing(server).effective for server in self.service.entries]


def test_servers_without_a_result_are_checking_and_take_flows_as_start_says():
    bench = Bench(results=None)
    assert bench.conditions() == ["checking", "checking"]
    assert bench.effective() == [3, 2]

    bench = Bench(results=None, check=dataclasses.replace(CHECK, start="down"))
    assert bench.conditions() == ["checking", "checking"]
    assert bench.effective() == [0, 0]
    events = bench.result(WEB1, GOOD)
    assert events == [ServerChanged(WEB1, True, "200 OK"), QuorumChanged(True, 3, 1)]
    assert bench.effective() == [3, 0]


def test_server_without_checks_is_up():
    bench = Bench(servers=(dataclasses.replace(WEB1, checks=()),), results=None)
    assert bench.conditions() == ["up"]


@pytest.mark.parametrize(("on_failure", "flows"), [("remove", FlowPolicy.NONE), ("keep", FlowPolicy.OLD)])
def test_failed_server_loses_its_flows_unless_they_are_to_be_kept(on_failure, flows):
    bench = Bench(on_failure=on_failure)
    bench.now = 1010.0
    assert bench.result(WEB2, BAD) == [ServerChanged(WEB2, False, "connection refused")]

    down = bench.standing(WEB2)
    assert (down.condition, bench.health.reason(WEB2), down.flows, down.weight, down.effective, down.since) == (
        Condition.DOWN, "connection refused", flows, 2, 0, 1010.0,
    )  # fmt: skip
    assert bench.standing(WEB1).since == 1000.0


def test_all_checks_of_a_server_have_to_succeed():
    other = dataclasses.replace(CHECK, name="other")
    web1 = dataclasses.replace(WEB1, checks=(CHECK, other))
    bench = Bench(servers=(web1, WEB2))
    bench.result(web1, GOOD, BAD)
    assert bench.conditions() == ["down", "up"]
    assert bench.health.reason(web1) == "connection refused"
    bench.result(web1, GOOD, GOOD)
    assert bench.conditions() == ["up", "up"]


@pytest.mark.parametrize(
    ("by_hand", "condition", "reason", "flows", "effective"),
    [
        (ByHand(is_drained=True), "drained", "drained by hand", FlowPolicy.OLD, 0),
        (ByHand(is_disabled=True), "disabled", "disabled by hand", FlowPolicy.NONE, 0),
        (ByHand(weight=7), "up", "200 OK", FlowPolicy.NEW, 7),
        (ByHand(weight=0), "drained", "its weight is 0", FlowPolicy.OLD, 0),
        (ByHand(), "up", "200 OK", FlowPolicy.NEW, 3),
    ],
)
def test_settings_by_hand(by_hand, condition, reason, flows, effective):
    bench = Bench()
    bench.health.set_by_hand(WEB1.key, by_hand, bench.now)
    standing = bench.standing(WEB1)
    assert (standing.condition.value, bench.health.reason(WEB1), standing.flows, standing.effective) == (
        condition, reason, flows, effective,
    )  # fmt: skip


def test_scripts_tell_weights_relative_to_the_file():
    check = dataclasses.replace(CHECK, weight_from_exit=True)
    other = dataclasses.replace(check, name="other")
    web1 = dataclasses.replace(WEB1, weight=10, checks=(check, other))
    bench = Bench(servers=(web1,))
    bench.result(web1, Result(True, "exit 14", 12), Result(True, "exit 5", 3))
    assert bench.effective() == [10 + 2 - 7]
    bench.result(web1, Result(True, "exit 2", 0), Result(True, "exit 2", 0))
    assert bench.conditions() == ["drained"]
    bench.health.set_by_hand(web1.key, ByHand(weight=4), bench.now)
    assert bench.effective() == [4]


def test_quorum_is_a_sum_of_live_weights_with_hysteresis():
    bench = Bench(quorum=3, hysteresis=1)
    assert bench.health.has_quorum
    assert bench.result(WEB1, BAD) == [ServerChanged(WEB1, False, "connection refused")]
    assert bench.health.has_quorum  # 2 is not below 3 - 1
    bench.health.set_by_hand(WEB2.key, ByHand(weight=1), bench.now)
    assert not bench.health.has_quorum
    bench.health.set_by_hand(WEB2.key, ByHand(weight=3), bench.now)
    assert not bench.health.has_quorum
    assert bench.health.set_by_hand(WEB2.key, ByHand(weight=4), bench.now) == [QuorumChanged(True, 4, 3)]


def test_quorum_is_lost_with_the_last_server_whatever_the_hysteresis():
    bench = Bench(quorum=1, hysteresis=1)
    bench.result(WEB1, BAD)
    events = bench.result(WEB2, BAD)
    assert events[-1] == QuorumChanged(False, 0, 1)


def test_sorry_server_takes_new_flows_while_the_quorum_is_lost_and_keeps_them_then():
    bench = Bench(quorum=3, sorry=SORRY)
    assert bench.flows() == [FlowPolicy.NEW, FlowPolicy.NEW, FlowPolicy.OLD]
    bench.result(WEB1, BAD)
    assert bench.flows() == [
        FlowPolicy.NONE,
        FlowPolicy.OLD,
        FlowPolicy.NEW,
    ]  # those that live keep what they have
    assert bench.effective() == [0, 0, 1]
    bench.result(WEB1, GOOD)
    assert bench.flows() == [FlowPolicy.NEW, FlowPolicy.NEW, FlowPolicy.OLD]


def test_servers_stay_on_duty_where_the_sorry_server_is_down_itself():
    sorry = dataclasses.replace(SORRY, checks=(CHECK,))
    bench = Bench(quorum=3, sorry=sorry)
    bench.result(sorry, BAD)
    bench.result(WEB1, BAD)
    assert bench.flows() == [FlowPolicy.NONE, FlowPolicy.NEW, FlowPolicy.NONE]


def test_without_a_sorry_server_live_servers_stay_on_duty():
    bench = Bench(quorum=5)
    bench.result(WEB1, BAD)
    assert not bench.health.has_quorum
    assert bench.flows() == [FlowPolicy.NONE, FlowPolicy.NEW]


def test_slow_start_raises_the_weight_of_a_server_that_comes_back_in_steps():
    web1 = dataclasses.replace(WEB1, weight=100)
    bench = Bench(servers=(web1, WEB2), slow_start=60.0)
    assert bench.effective() == [100, 2]  # at the beginning, it has not come back
    assert bench.health.next_deadline() == math.inf
    bench.result(web1, BAD)
    bench.result(web1, GOOD)
    seen = [bench.standing(web1).effective]
    while (due := bench.health.next_deadline()) != math.inf:
        bench.now = due
        bench.health.look(due)
        seen.append(bench.standing(web1).effective)
    assert seen == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100]
    assert bench.now == 1060.0


def test_slow_start_gives_no_less_than_one_and_does_not_cost_the_quorum():
    bench = Bench(slow_start=60.0, quorum=5)
    bench.result(WEB1, BAD)
    bench.result(WEB1, GOOD)
    assert bench.effective() == [1, 2]
    assert bench.health.has_quorum


def reloaded(bench, **changes):
    bench.now += 10
    service = dataclasses.replace(bench.service, **changes)
    checkings = {key: bench.checkings.get(key, made) for key, made in bench.checks_of(service).items()}
    bench.service, bench.checkings = service, checkings
    return bench.health.succeed(service, checkings, bench.now)


def test_reload_keeps_what_is_set_by_hand_but_for_servers_that_the_file_changes():
    bench = Bench()
    for server in (WEB1, WEB2):
        bench.health.set_by_hand(server.key, ByHand(is_drained=True), bench.now)
    events = reloaded(bench, servers=(WEB1, dataclasses.replace(WEB2, weight=9)), quorum=2)

    assert bench.conditions() == ["drained", "up"]
    assert events == [QuorumChanged(True, 9, 2)]
    assert bench.standing(WEB1).since == 1000.0


def test_reload_forgets_servers_that_are_gone():
    bench = Bench()
    bench.health.set_by_hand(WEB1.key, ByHand(is_disabled=True), bench.now)
    reloaded(bench, servers=(WEB2,))
    assert bench.health.standings.keys() == {WEB2.key}
    reloaded(bench, servers=(WEB1, WEB2))
    assert (
        bench.standing(WEB1).condition is Condition.CHECKING or bench.standing(WEB1).condition is Condition.UP
    )
    assert not bench.health.by_hand


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([GOOD, BAD, ByHand(is_drained=True), ByHand(is_disabled=True), ByHand(), ByHand(weight=5)]),
            st.floats(0.0, 40.0),
        ),
        max_size=30,
    ),
    quorum=st.integers(1, 6),
    hysteresis=st.integers(0, 2),
    slow_start=st.sampled_from((0.0, 60.0)),
)  # fmt: skip
def test_any_history_leaves_no_moment_in_which_nobody_takes_flows_although_somebody_could(
    steps, quorum, hysteresis, slow_start
):
    sorry = dataclasses.replace(SORRY, checks=(CHECK,))
    bench = Bench(sorry=sorry, quorum=quorum, hysteresis=hysteresis, slow_start=slow_start)
    for place, what, pause in steps:
        bench.now += pause
        server = bench.service.entries[place]
        if isinstance(what, Result):
            bench.result(server, what)
        else:
            bench.health.set_by_hand(server.key, what, bench.now)
        rows = [bench.standing(each) for each in bench.service.entries]
        able = [each for each in rows if each.condition is Condition.UP]
        assert bool(able) == any(each.flows is FlowPolicy.NEW for each in rows)
        assert all(bool(each.effective) == (each.flows is FlowPolicy.NEW) for each in rows)
        assert all(each.effective <= each.weight for each in rows)
        assert bench.health.next_deadline() > bench.now


# Both versions of IP


class BothVersions(Bench):
    """A service that is checked at an address of each version."""

    def checks_of(self, service):
        return {
            server.key: [
                Checking(check, self.now, 0.0, version)
                for version in (4, 6)
                for check in service.checks_of(server)
            ]
            for server in service.entries
        }


@pytest.mark.parametrize(("on_failure", "given"), [("remove", FlowPolicy.NONE), ("keep", FlowPolicy.OLD)])
def test_server_that_fails_by_one_ip_version_stays_up_by_the_other(on_failure, given):
    bench = BothVersions(on_failure=on_failure)

    assert bench.result(WEB1, GOOD, BAD) == [ServerChanged(WEB1, False, "connection refused", 6)]

    standing = bench.standing(WEB1)
    assert (standing.condition, standing.flows, standing.effective) == (Condition.UP, FlowPolicy.NEW, 3)
    assert standing.apart == ((6, given),)
    assert bench.health.reason(WEB1) == "IPv4: 200 OK, IPv6: connection refused"
    assert bench.standing(WEB2).apart == ()
    assert bench.health.live_weight == 5
    assert bench.result(WEB1, GOOD, GOOD) == [ServerChanged(WEB1, True, "200 OK", 6)]
    assert (bench.standing(WEB1).apart, bench.health.reason(WEB1)) == ((), "200 OK")


def test_server_that_fails_by_both_ip_versions_is_down_however_it_came_to_that():
    bench = BothVersions()
    assert bench.result(WEB1, BAD, BAD) == [ServerChanged(WEB1, False, "connection refused")]
    assert (bench.standing(WEB1).condition, bench.standing(WEB1).apart) == (Condition.DOWN, ())
    assert bench.result(WEB1, GOOD, BAD) == [
        ServerChanged(WEB1, True, "IPv4: 200 OK, IPv6: connection refused")
    ]
    assert bench.standing(WEB1).apart == ((6, FlowPolicy.NONE),)
    assert bench.result(WEB1, BAD, BAD) == [ServerChanged(WEB1, False, "connection refused")]


def test_weight_that_a_script_tells_by_both_ip_versions_counts_once():
    bench = BothVersions(check=dataclasses.replace(CHECK, kind="script"))
    bench.result(WEB1, Result(True, "exit status 9", 7), Result(True, "exit status 9", 7))
    assert bench.standing(WEB1).weight == 7
    bench.result(WEB1, BAD, Result(True, "exit status 11", 9))
    assert bench.standing(WEB1).weight == 9
