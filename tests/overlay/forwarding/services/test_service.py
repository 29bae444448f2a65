from __future__ import annotations

import pytest

from overlay.forwarding.peer import Peer
from overlay.forwarding.services.service import CACHE, FLOWS, ServerRow, Service, Settings, Takes
from overlay.services.schedulers import SCHEDULERS, Hashed
from overlay.services.states import State

VIP = bytes([192, 0, 2, 100])


def key(number):
    return number.to_bytes(4, "big") + VIP + bytes([1, 2, 0, 80])


def made(**settings):
    return Service("web", Settings(**settings))


def have(service, *rows, **more):
    service.set_servers(rows, **more)
    for _ in service.prepare():
        pass


def row(number, **more):
    return ServerRow(number, f"web{number}:0", Peer(number + 1), **more)


def begin(service, number, now=0.0):
    server = service.choose(key(number)[:4], b"\1\2", VIP, now)
    if server is None or not service.begin(key(number), State.ESTABLISHED, server, now):
        return None
    return server.number


def test_places_of_servers_are_used_again_once_none_of_their_flows_is_left():
    service = made(scheduler="rr")
    have(service, row(0), row(1))
    begin(service, 0)
    have(service, row(1))
    have(service, row(1), row(2))
    assert [server.number for server in service.servers] == [0, 1, 2], "a flow of the first is still there"

    service.flows.remove(*next((shard, key(0)) for shard in service.flows.shards if key(0) in shard.index))
    have(service, row(1), row(2), row(3))

    assert [server.number for server in service.servers] == [3, 1, 2]


def test_a_place_is_not_used_again_while_clients_have_it_by_persistence():
    service = made(scheduler="rr", persistence=300.0)
    have(service, row(0))
    begin(service, 7)
    service.flows.remove(service.flows.find(key(7))[0], key(7))

    have(service, row(1))

    assert [server.number for server in service.servers] == [0, 1]
    assert begin(service, 7) == 1


def test_counters_stay_with_a_server_that_comes_back_and_in_the_total_with_one_that_does_not():
    service = made(scheduler="rr")
    have(service, row(0), row(1))
    for number in range(4):
        begin(service, number)
    for server in service.servers:
        server.packets, server.bytes = 10, 1000

    have(service, row(0, takes=Takes.NOTHING), row(1))
    have(service, row(0), row(1))
    assert service.by_number[0].connections == 2
    have(service, row(1))

    assert service.totals() == (4, 20, 2000)


def test_thresholds_keep_new_flows_away():
    service = made(scheduler="rr")
    have(service, row(0, upper=3, lower=2), row(1))

    assert [begin(service, number) for number in range(8)] == [0, 1, 0, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_only_what_must_be_known_is_kept_in_a_large_table(name):
    service = made(scheduler=name)
    have(service, row(0, weight=65535))
    is_hashed = SCHEDULERS[name].hashed is not Hashed.NOTHING

    assert service.flows._is_cache is is_hashed
    assert service.flows._most * 64 == pytest.approx(CACHE if is_hashed else FLOWS, rel=0.001)


def test_a_new_scheduler_keeps_all_flows():
    service = made()
    have(service, row(0), row(1), row(2))
    flows = {number: begin(service, number) for number in range(100)}

    service.set(Settings(scheduler="rr"))

    for number, server in flows.items():
        shard, place = service.flows.find(key(number))
        assert service.servers[shard.server[place]].number == server
    assert [begin(service, number) for number in range(100, 106)] == [0, 1, 2, 0, 1, 2]
    assert service.flows.loads.active[0] == 2 + list(flows.values()).count(0)


def test_new_times_and_limits_hold_at_once_and_turns_go_on():
    service = made(scheduler="rr")
    have(service, row(0), row(1))
    begin(service, 0)

    service.set(Settings(scheduler="rr", tcp=10, new_flows=1))

    assert [service.may_begin(0.0) for _ in range(3)] == [True, True, False]
    assert begin(service, 1) == 1
    service.sweep(11.0)
    while service.sweep(11.0):
        pass
    assert len(service.flows) == 0


def test_templates_of_other_persistence_are_given_back():
    service = made(scheduler="rr", persistence=300.0)
    have(service, row(0), row(1))
    begin(service, 0)
    templates = service.templates

    assert service.set(Settings(scheduler="rr", persistence=60.0)) is templates
    assert service.set(Settings(scheduler="rr", persistence=60.0, tcp=1)) is None
    service.flows.remove(service.flows.find(key(0))[0], key(0))
    assert service.set(Settings(scheduler="rr")) is not None
    assert service.templates is None


def test_dh_chooses_by_the_address_and_sh_by_the_client():
    addresses = [bytes([192, 0, 2, last]) for last in range(50)]
    clients = [bytes([10, 0, 0, last]) for last in range(50)]
    for name, varied in (("dh", addresses), ("sh", clients)):
        service = made(scheduler=name)
        have(service, *(row(number) for number in range(5)))
        by_address = {service.choose(clients[0], b"\0\1", each, 0.0).number for each in addresses}
        by_client = {service.choose(each, b"\0\1", VIP, 0.0).number for each in clients}
        by_port = {service.choose(clients[0], bytes([1, last]), VIP, 0.0).number for last in range(50)}

        assert len(by_port) == 1
        assert len(by_address) == (5 if varied is addresses else 1)
        assert len(by_client) == (5 if varied is clients else 1)
