"""The reported standing of services: state, quorum, who balances, VRRP, and notes with cause and remedy."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
import trio

from overlay.balancing import standing
from overlay.host import clock
from overlay.lan.conflicts import Conflict
from overlay.lan.router import RouterStatus
from overlay.services.health import ByHand
from overlay.services.vrrp import RouterState
from tests.overlay.balancing.test_balancing import WEB, Bench

QUORUM = WEB.replace("slow_start = 60", "quorum = 50\nhysteresis = 10")
VRRP = WEB.replace("slow_start = 60", 'vrrp = { router = 51, interface = "eth0" }')


def router(**fields):
    values = {
        "group": "services/web",
        "version": 4,
        "state": RouterState.ACTIVE,
        "reason": "nobody advertises the addresses",
        "since": 990.0,
        "priority": 150,
        "active": None,
        "refused": {},
        "unsent": 0,
    }
    return RouterStatus(**values | fields)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    return Bench


def service(made):
    return made.balancing.node.table.services["web"]


def troubles(made):
    return standing.troubles_of(made.balancing, [service(made)])


def test_a_service_that_is_up_has_no_trouble(bench):
    made = bench(WEB)
    assert standing.state_of(made.balancing, service(made)) == ("up", "")
    assert troubles(made) == []
    assert standing.count_states(made.balancing, [service(made)]) == {"up": 1}


def test_quorum_is_told_with_its_bounds(bench):
    health = bench(QUORUM).balancing.watching.healths["web"]
    assert standing.quorum_of(health) == {
        "has_quorum": True,
        "live_weight": 101,
        "quorum": 50,
        "hysteresis": 10,
        "gained_at": 60,
        "lost_below": 40,
    }


def test_lost_quorum_is_a_note_with_cause_and_remedy(bench):
    made = bench(QUORUM)
    trio.run(made.result, 0, False)
    assert standing.state_of(made.balancing, service(made))[0] == "degraded"
    (note,) = troubles(made)
    assert note == (
        "the service web is degraded: the quorum is lost with a weight of 1 of 50; web1 is down (so it is), web2 is "
        "checking (no check has ended yet): `overlay services check web/web1` tells more"
    )


def test_a_service_without_live_servers_is_down_and_says_what_was_set_by_hand(bench):
    made = bench(WEB)

    async def main():
        await made.result(0, False)
        health = made.balancing.watching.healths["web"]
        server = health.service.servers[1]
        await made.balancing.shared.set_by_hand(health.service, server, ByHand(is_drained=True))

    trio.run(main)
    (note,) = troubles(made)
    assert note == (
        "the service web is down: no server takes new connections; web1 is down (so it is), web2 is drained (drained "
        "by hand): `overlay services check web/web1` tells more and `overlay services enable web/web2` undoes what "
        "was set by hand"
    )
    assert standing.count_states(made.balancing, [service(made)]) == {"down": 1}


def test_a_service_without_servers_says_what_to_write(bench):
    made = bench(WEB.replace('servers = [{ peer = "web1", weight = 100 }, "web2"]', "servers = []"))
    assert troubles(made) == ["the service web is down: it has no servers; write `servers`"]


def test_services_in_trouble_beyond_ten_are_counted(bench):
    made = bench(WEB.replace('servers = [{ peer = "web1", weight = 100 }, "web2"]', "servers = []"))
    notes = standing.troubles_of(made.balancing, [service(made)] * 12)
    assert len(notes) == 11
    assert notes[-1] == "2 more services in trouble: see `overlay services`"


def test_who_balances_is_told_with_the_reason(bench):
    made = bench(WEB)
    assert standing.director_of(made.balancing, service(made)) == {
        "directors": ["lb"],
        "active": "lb",
        "is_here": True,
        "reason": "it is the first of its directors",
    }
    everybody = bench(WEB.replace('directors = ["lb"]', 'directors = "all"'))
    assert standing.director_of(everybody.balancing, service(everybody)) == {
        "directors": None,
        "active": "lb",
        "is_here": True,
        "reason": "each node balances the connections that start there",
    }


def test_another_directors_service_is_elsewhere(bench):
    made = bench(WEB.replace('directors = ["lb"]', 'directors = ["client"]'))
    assert standing.state_of(made.balancing, service(made)) == ("elsewhere", "balanced by client")
    assert troubles(made) == []
    assert not standing.director_of(made.balancing, service(made))["is_here"]


def test_routers_are_told_of_the_group_of_a_service(bench, monkeypatch):
    made = bench(VRRP)
    monkeypatch.setattr(made.balancing.lan, "status", lambda: [router(), router(group="other")])
    assert standing.vrrp_of(made.balancing, service(made)) == [
        {
            "group": "services/web",
            "ip_version": 4,
            "router": 51,
            "interface": "eth0",
            "state": "active",
            "reason": "nobody advertises the addresses",
            "since_s": 10.0,
            "priority": 150,
            "active_router": None,
            "refused": {},
            "unsent": 0,
        }
    ]
    assert troubles(made) == []


def test_a_router_that_takes_no_part_is_a_note(bench, monkeypatch):
    made = bench(VRRP)
    monkeypatch.setattr(
        made.balancing.lan, "status", lambda: [router(state=RouterState.INITIALIZE, reason="eth0 is down")]
    )
    assert troubles(made) == [
        "this node does not take part in the VRRP group services/web for IPv4: eth0 is down"
    ]


def test_hosts_that_claim_an_address_which_is_here_are_notes_up_to_some(bench, monkeypatch):
    made = bench(WEB)
    found = [
        Conflict(ip_address(f"10.50.2.{number}"), "eth0", bytes(6)) for number in range(standing.SHOWN + 2)
    ]
    monkeypatch.setattr(made.balancing.lan, "conflicts", lambda: found)

    assert troubles(made) == [
        *map(str, found[: standing.SHOWN]),
        "other hosts claim 2 more virtual addresses: the log of this agent names them",
    ]
