"""Flows that another director would send to another server than theirs: it is told about them."""

from __future__ import annotations

import zlib

import pytest

from overlay.forwarding.services import sync as module
from overlay.forwarding.services.server import Takes
from overlay.forwarding.services.sync import TICK
from overlay.services.states import State
from tests.overlay.forwarding.services.conftest import tcp
from tests.overlay.forwarding.services.directors import Directors
from tests.packets import ACK, FIN, SYN

DRAINED = {"takes": Takes.KEPT, "weight": 0}
HASHED = pytest.mark.parametrize("scheduler", ["maglev", "sh"])


def set_servers(directors, *servers, **more):
    """Give all directors these servers, and the time to tell each other of it."""
    for each in directors.all:
        each.servers(
            *[server if isinstance(server, int) else each.row(**server) for server in servers], **more
        )
    directors.run(module.LOOKING + 2 * TICK)


def connect_many(directors, place=0):
    """Establish connections of many clients; return the server of each by its key."""
    flows = {}
    for version in (4, 6):
        for client in range(1, 60):
            ends = {"client": client, "port": 1000 + client, "version": version}
            flows[tuple(ends.items())] = directors.all[place].send(tcp(flags=SYN, **ends), directors.now)
            directors.all[place].send(tcp(**ends), directors.now)
    return flows


def found_at(director, flows, now):
    return {ends: director.send(tcp(**dict(ends)), now) for ends in flows}


@HASHED
@pytest.mark.parametrize(
    "servers",
    [
        [0, 1, {"number": 2, **DRAINED}],  # drained
        [0, 1, {"number": 2, "weight": 9}],  # most go to this one now
        [0, 1, 2, 3, 4],  # two new ones
    ],
)
def test_next_director_goes_on_with_what_the_table_does_not_lead_there_any_more(scheduler, servers):
    directors = Directors(scheduler)
    flows = connect_many(directors)
    set_servers(directors, *servers)
    assert len(directors.rows()) < len(flows)

    assert found_at(directors.all[1], flows, directors.now) == flows


@HASHED
def test_server_that_comes_back_is_not_given_the_connections_of_others_by_the_next_director(scheduler):
    directors = Directors(scheduler)
    set_servers(directors, 0, 1, {"number": 2, "takes": Takes.NOTHING})
    flows = connect_many(directors)
    set_servers(directors, 0, 1, 2)

    assert found_at(directors.all[1], flows, directors.now) == flows


@HASHED
def test_sorry_server_keeps_its_connections_at_the_next_director(scheduler):
    directors = Directors(scheduler)
    sorry = directors.all[0].row(9)
    set_servers(directors, 0, 1, 2, sorry=sorry, is_sorry=True)
    flows = connect_many(directors)
    assert set(flows.values()) == {9}
    set_servers(directors, 0, 1, 2, sorry=sorry)

    assert found_at(directors.all[1], flows, directors.now) == flows


@HASHED
def test_connection_that_begins_while_the_table_changes_is_told_once_it_is_established(scheduler):
    directors = Directors(scheduler)
    one, two = directors.all
    flows = {
        port: one.send(tcp(port=port, client=port % 200, flags=SYN), directors.now)
        for port in range(1000, 1100)
    }
    set_servers(directors, 0, 1, {"number": 2, **DRAINED})
    assert directors.rows() == []
    for port in flows:
        one.send(tcp(port=port, client=port % 200), directors.now)
    directors.run(TICK)

    assert {port: two.send(tcp(port=port, client=port % 200), directors.now) for port in flows} == flows
    assert {row.server for row in directors.rows()} == {zlib.crc32(b"web2:0")}


def test_connection_that_is_elsewhere_because_its_server_was_full_is_told():
    directors = Directors("maglev")
    set_servers(directors, {"number": 0, "upper": 5}, 1, 2)
    flows = connect_many(directors)
    directors.run(1)

    assert 0 < len(directors.rows()) < len(flows)
    found = found_at(
        directors.all[1], {ends: None for ends, server in flows.items() if server}, directors.now
    )
    assert found == {ends: server for ends, server in flows.items() if server}


def see_server_2_as_down(director, version=0, **more):
    """Let *director* find server 2 down, and know that all others do not."""
    director.servers(
        0,
        1,
        director.row(2, takes=Takes.NOTHING, weight=0),
        sorry=director.row(9),
        elsewhere=[(version, [1, 1, 1, 0])],
        **more,
    )


@HASHED
def test_director_that_sees_a_server_otherwise_is_told_what_it_would_lead_elsewhere(scheduler):
    directors = Directors(scheduler)
    one, two = directors.all
    see_server_2_as_down(one)
    two.servers(0, 1, 2, sorry=two.row(9), elsewhere=[(0, [1, 1, 0, 0])])
    flows = connect_many(directors)
    directors.run(1)
    told = len(directors.rows())

    assert 0 < told < len(flows)
    assert found_at(two, flows, directors.now) == flows


@pytest.mark.parametrize("version", [4, 6])
def test_director_that_sees_a_server_otherwise_by_one_ip_version_is_told_of_flows_of_that_alone(version):
    directors = Directors("maglev")
    one, two = directors.all
    one.servers(0, 1, 2, sorry=one.row(9), elsewhere=[(version, [1, 1, 0, 0])])
    two.servers(0, 1, two.row(2, apart=((version, Takes.NOTHING),)), sorry=two.row(9))
    flows = connect_many(directors)
    directors.run(1)

    assert {len(row.client) for row in directors.rows()} == {4 if version == 4 else 16}
    kept = {ends: server for ends, server in flows.items() if server != 2 or ("version", version) not in ends}
    assert found_at(two, kept, directors.now) == kept


@HASHED
def test_flows_that_were_there_before_another_director_saw_a_server_otherwise_are_looked_for(scheduler):
    directors = Directors(scheduler)
    one, two = directors.all
    for each in directors.all:
        each.servers(0, 1, each.row(2, takes=Takes.NOTHING, weight=0), sorry=each.row(9))
    flows = connect_many(directors)
    directors.run(1)
    assert directors.rows() == []
    two.servers(0, 1, 2, sorry=two.row(9))
    see_server_2_as_down(one)
    directors.run(module.LOOKING + 2 * TICK)

    assert found_at(two, flows, directors.now) == flows


def test_director_that_has_lost_its_quorum_is_told_what_it_would_lead_to_the_sorry_server():
    directors = Directors("maglev")
    one, two = directors.all
    one.servers(0, 1, 2, sorry=one.row(9), elsewhere=[(0, [0, 0, 0, 1])])
    two.servers(0, 1, 2, sorry=two.row(9), is_sorry=True)
    flows = connect_many(directors)
    directors.run(1)

    assert len(directors.rows()) == len(flows)
    assert found_at(two, flows, directors.now) == flows


def test_views_of_others_end_with_them():
    directors = Directors("maglev")
    one = directors.all[0]
    see_server_2_as_down(one)
    one.servers(0, 1, one.row(2, takes=Takes.NOTHING, weight=0), sorry=one.row(9))
    directors.run(module.LOOKING + 2 * TICK)
    connect_many(directors)
    directors.run(1)

    assert directors.rows() == []


@pytest.mark.parametrize("scheduler", ["wlc", "maglev"])
def test_server_that_is_back_at_one_director_alone_has_the_flows_that_another_still_has(scheduler):
    directors = Directors(scheduler)
    one, two = directors.all
    two.servers(0, 1, two.row(2, takes=Takes.NOTHING, weight=0))
    flows = connect_many(directors)
    directors.run(1)
    one.servers(0, 1, one.row(2, **DRAINED))
    directors.run(module.LOOKING + 1)
    two.servers(0, 1, two.row(2, **DRAINED))
    directors.run(module.ASKING_LATER + 1)

    assert 2 in flows.values()
    assert found_at(two, flows, directors.now) == flows


def test_flow_whose_server_was_gone_here_is_learnt_though_its_last_packet_came_here():
    directors = Directors("rr")
    two = directors.all[1]
    flows = directors.connect(0, 1000, 1001, 1002)
    directors.run(TICK)
    assert {port: two.send(tcp(port=port), directors.now) for port in flows} == flows
    two.servers(0, 1, two.row(2, takes=Takes.NOTHING))
    two.servers(0, 1, 2)
    directors.run(module.ASKING_LATER + 1)

    assert {port: two.send(tcp(port=port), directors.now) for port in flows} == flows


def test_end_of_a_connection_that_is_astray_is_told_and_of_no_other():
    directors = Directors("maglev")
    flows = connect_many(directors)
    set_servers(directors, 0, 1, {"number": 2, **DRAINED})
    directors.told.clear()
    for ends in flows:
        directors.all[0].send(tcp(flags=FIN | ACK, **dict(ends)), directors.now)
    directors.run(1)

    assert len(directors.rows()) == sum(server == 2 for server in flows.values())
    assert {row.state for row in directors.rows()} == {State.FIN_WAIT}


def test_director_that_begins_anew_is_told_what_the_table_does_not_tell_it():
    directors = Directors("maglev")
    flows = connect_many(directors)
    drained = [0, 1, {"number": 2, **DRAINED}]
    set_servers(directors, *drained)
    found_at(directors.all[1], flows, directors.now)  # which takes over
    directors.restart(0)
    set_servers(directors, *drained)
    directors.told.clear()
    directors.run(2)

    assert found_at(directors.all[0], flows, directors.now) == flows
    assert directors.rows(1) == []  # each was reported once


@HASHED
def test_director_that_begins_anew_leads_no_flow_of_a_drained_server_elsewhere(scheduler):
    """It may learn of the drain before it learns of the flows."""
    directors = Directors(scheduler)
    flows = connect_many(directors)
    drained = [0, 1, {"number": 2, **DRAINED}]
    set_servers(directors, *drained)
    one = directors.restart(0)
    one.servers(0, 1, one.row(2, **DRAINED))

    found = found_at(one, flows, directors.now)
    directors.run(1)

    assert set(found.values()) == {None}
    assert found_at(one, flows, directors.now) == flows


@HASHED
def test_director_that_begins_anew_finds_flows_at_once_where_no_server_is_drained(scheduler):
    directors = Directors(scheduler)
    flows = connect_many(directors)

    assert found_at(directors.restart(0), flows, directors.now) == flows


def test_look_for_flows_that_are_astray_takes_many_steps(monkeypatch):
    monkeypatch.setattr(module, "PASSED_OVER", 8)
    directors = Directors("maglev")
    connect_many(directors)
    one = directors.all[0]
    one.servers(0, 1, 2)
    directors.now += 1
    one.sync.turn(directors.now)
    done = []
    one.queue.run(directors.now, lambda: bool(done.append(1)) or len(done) < 1000)

    assert len(done) >= 118 // 8
    assert directors.sent == []
