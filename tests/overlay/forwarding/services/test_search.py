"""Requested flows, compared with a slow twin, and in pieces."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services import search as searching
from overlay.forwarding.services.flows import SHARD, FlowTable
from overlay.forwarding.services.search import search
from overlay.link.service_messages import FlowFilter
from overlay.services.states import State, timeouts
from overlay.wire.flow_key import flow_key

NOW = 100.0
CLIENTS = [
    ip_address(text) for text in ("192.0.2.1", "192.0.2.200", "198.51.100.7", "2001:db8::1", "2001:db8:1::1")
]
VIPS = {4: ip_address("203.0.113.80"), 6: ip_address("2001:db8:80::1")}

flow = st.tuples(
    st.sampled_from([6, 17, 132]),
    st.sampled_from(CLIENTS),
    st.integers(1, 65535),
    st.sampled_from([80, 443]),
    st.sampled_from([State.SYN_RECV, State.ESTABLISHED, State.FIN_WAIT, State.UDP]),
    st.integers(0, 3),
)
NETWORKS = ("192.0.2.0/25", "192.0.2.1", "192.0.0.0/13", "0.0.0.0/0", "2001:db8::/47", "::/0")
network = st.none() | st.sampled_from([ip_network(text) for text in NETWORKS])


def table(flows):
    made = FlowTable(100_000, timeouts())
    made.make_room(4)
    for protocol, client, port, vip_port, state, server in flows:
        key_of = flow_key(protocol, client.packed, port, VIPS[client.version].packed, vip_port)
        if made.find(key_of) is None:
            made.add(key_of, state, server, NOW - port % 50)
    return made


def found(flows, wanted, most=10**6, numbers=None):
    """Return all requested flows, at most *most* at a time."""
    rows, at, numbers = [], 0, {index: index + 10 for index in range(4)} if numbers is None else numbers
    while at is not None:
        steps = list(search(flows, wanted, numbers, at, most, NOW))
        assert [is_last for _, is_last, _ in steps] == [False] * (len(steps) - 1) + [True]
        page = [row for step, _, _ in steps for row in step]
        assert len(page) <= most
        rows += page
        assert steps[-1][2] is None or steps[-1][2] > at
        at = steps[-1][2]
    return rows


@given(
    st.lists(flow, max_size=30, unique_by=lambda each: each[:4]),
    network,
    st.none() | st.integers(10, 14),
    st.none() | st.sampled_from([6, 17, 132]),
    st.none() | st.sampled_from([80, 443, 8080]),
    st.lists(st.sampled_from([State.SYN_RECV, State.UDP, State.NONE, 99]), max_size=2),
    st.sampled_from([1, 2, 7, 1000]),
)
def test_those_are_found_that_are_wanted_and_each_once(flows, network, server, protocol, port, states, most):
    wanted = FlowFilter(
        None if network is None else network.network_address.packed,
        0 if network is None else network.prefixlen,
        server,
        protocol,
        port,
        [int(each) for each in states],
    )

    rows = found(table(flows), wanted, most)

    expected = sorted(
        (proto, client.packed, client_port, vip_port, int(state), index + 10)
        for proto, client, client_port, vip_port, state, index in flows
        if (network is None or client in network)
        and server in {None, index + 10}
        and protocol in {None, proto}
        and port in {None, vip_port}
        and (not states or state in states)
    )
    assert expected == sorted(
        (row.protocol, row.client, row.client_port, row.port, row.state, row.server) for row in rows
    )
    assert all(row.idle == row.client_port % 50 for row in rows)
    assert all(row.left == max(0.0, timeouts()[row.state] - row.idle) for row in rows)


def key(number):
    return number.to_bytes(4, "big") + bytes(8)


def many(count):
    flows = FlowTable(100_000, timeouts())
    flows.make_room(1)
    for number in range(count):
        flows.add(key(number), State.ESTABLISHED, 0, NOW)
    return flows


def test_a_step_looks_at_and_finds_a_bounded_number(monkeypatch):
    monkeypatch.setattr(searching, "STEP", 100)
    monkeypatch.setattr(searching, "STEP_ROWS", 10)
    flows = many(3000)

    steps = list(search(flows, FlowFilter(), {0: 0}, 0, 10**6, NOW))
    rare = list(search(flows, FlowFilter(bytes([0, 0, 0, 7]), 32), {0: 0}, 0, 10**6, NOW))

    assert all(len(rows) <= 10 for rows, _, _ in steps)
    assert sum(len(rows) for rows, _, _ in steps) == 3000
    assert len(rare) >= 30


def test_a_question_about_a_large_table_ends_early_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr(searching, "MOST_PLACES", 1000)
    flows = many(5000)

    steps = list(search(flows, FlowFilter(), {0: 0}, 0, 10**6, NOW))

    assert sum(len(rows) for rows, _, _ in steps) < 2000
    assert steps[-1][2] is not None
    assert len(found(flows, FlowFilter(), 10**6)) == 5000


def test_flows_that_stay_are_told_once_while_others_come_and_go():
    flows, told = many(4000), []
    for turn, (rows, _, _) in enumerate(search(flows, FlowFilter(), {0: 0}, 0, 10**6, NOW)):
        told += [int.from_bytes(row.client, "big") for row in rows]
        gone, new = turn * 2 + 1, 10_000 + turn
        if gone < 4000:
            shard, _ = flows.find(key(gone))
            flows.remove(shard, key(gone))
        flows.add(key(new), State.ESTABLISHED, 0, NOW)

    assert len(told) == len(set(told))
    assert set(range(0, 4000, 2)) <= set(told)


def test_places_that_no_table_has_are_the_end():
    assert list(search(many(10), FlowFilter(), {0: 0}, SHARD * 10**6, 100, NOW)) == [([], True, None)]


def test_the_server_of_a_flow_that_is_gone_is_told_as_none():
    assert {row.server for row in found(many(3), FlowFilter(), numbers={})} == {None}
    assert found(many(3), FlowFilter(server=0), numbers={}) == []


@pytest.mark.parametrize("network", NETWORKS)
def test_flows_of_a_network_are_found_by_the_version_of_its_addresses(network):
    wanted = ip_network(network)
    flows = table([(6, client, 1000, 80, State.ESTABLISHED, 0) for client in CLIENTS])

    rows = found(
        flows, FlowFilter(wanted.network_address.packed, wanted.prefixlen, None, None, None, []), 100
    )

    assert {row.client for row in rows} == {client.packed for client in CLIENTS if client in wanted}
