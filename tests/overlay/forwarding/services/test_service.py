from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.services.server import ServerSettings, Takes
from overlay.forwarding.services.service import Service
from overlay.forwarding.services.settings import CACHE, FLOWS, ServiceSettings
from overlay.services.schedulers import SCHEDULERS, Hashed
from overlay.services.states import State

VIP = bytes([192, 0, 2, 100])


def key(number):
    return number.to_bytes(4, "big") + VIP + bytes([1, 2, 0, 80])


def made(**settings):
    return Service("web", ServiceSettings(**settings))


def have(service, *rows, **more):
    service.set_servers(rows, **more)
    for _ in service.prepare():
        pass


def row(number, **more):
    return ServerSettings(number, f"web{number}:0", LivePeer(number + 1), **more)


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

    service.set(ServiceSettings(scheduler="rr"))

    for number, server in flows.items():
        shard, place = service.flows.find(key(number))
        assert service.servers[shard.server[place]].number == server
    assert [begin(service, number) for number in range(100, 106)] == [0, 1, 2, 0, 1, 2]
    assert service.flows.loads.active[0] == 2 + list(flows.values()).count(0)


def test_new_times_and_limits_hold_at_once_and_turns_go_on():
    service = made(scheduler="rr")
    have(service, row(0), row(1))
    begin(service, 0)

    service.set(ServiceSettings(scheduler="rr", tcp=10, new_flows=1))

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

    assert service.set(ServiceSettings(scheduler="rr", persistence=60.0)) is templates
    assert service.set(ServiceSettings(scheduler="rr", persistence=60.0, tcp=1)) is None
    service.flows.remove(service.flows.find(key(0))[0], key(0))
    assert service.set(ServiceSettings(scheduler="rr")) is not None
    assert service.templates is None


OTHER_SETTINGS = {
    "scheduler": "wrr", "persistence": 60.0, "prefix4": 24, "prefix6": 64, "flows": 64, "cache": 64
}  # fmt: skip
SETTINGS_OF_NEW_FLOWS = {"one_packet": True, "tcp": 5.0, "fin": 5.0, "udp": 5.0, "new_flows": 5}


@pytest.mark.parametrize("name", [*OTHER_SETTINGS, *SETTINGS_OF_NEW_FLOWS])
def test_clients_are_scheduled_anew_only_if_what_is_remembered_of_them_may_be_another(name):
    settings = ServiceSettings(scheduler="rr", persistence=300.0)
    service = Service("web", settings)
    have(service, row(0), row(1))
    begin(service, 0)
    templates = service.templates

    given_back = service.set(replace(settings, **{name: (OTHER_SETTINGS | SETTINGS_OF_NEW_FLOWS)[name]}))

    assert given_back is (templates if name in OTHER_SETTINGS else None)
    assert (service.templates is templates) is (name in SETTINGS_OF_NEW_FLOWS)


def test_a_service_may_get_other_settings_before_it_has_servers():
    service = made(scheduler="rr")

    assert service.set(ServiceSettings(scheduler="wrr")) is None
    assert begin(service, 1) is None

    have(service, row(0))
    assert begin(service, 1) == 0


@pytest.mark.parametrize("persistence", [0.0, 300.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_service_has_nothing_for_anybody_before_it_has_servers(name, persistence):
    service = made(scheduler=name, persistence=persistence)

    assert begin(service, 1) is None
    assert (service.totals(), service.by_number, service.by_identity) == ((0, 0, 0), {}, {})
    assert not service.sweep(1e6)
    assert list(service.flows.open_keys(is_all=True)) == []


CLIENTS = [bytes([10, 0, 0, last]) for last in range(50)]
CLIENTS6 = [bytes([32, 1, *bytes(13), last]) for last in range(50)]
PORTS = [bytes([1, last]) for last in range(50)]
ADDRESSES = [bytes([192, 0, 2, last]) for last in range(50)]


def spread(service, clients=CLIENTS[:1], ports=PORTS[:1], addresses=(VIP,)):
    """Return the number of servers that these flows go to."""
    return len(
        {
            service.choose(client, port, address, 0.0).number
            for client in clients
            for port in ports
            for address in addresses
        }
    )


@pytest.mark.parametrize(
    ("scheduler", "by"), [("maglev", {"client", "port"}), ("sh", {"client"}), ("dh", {"address"})]
)
def test_hashed_flows_are_spread_by_what_the_scheduler_goes_by_and_nothing_else(scheduler, by):
    service = made(scheduler=scheduler)
    have(service, *(row(number) for number in range(5)))

    assert (spread(service, clients=CLIENTS) > 3) is ("client" in by)
    assert (spread(service, ports=PORTS) > 3) is ("port" in by)
    assert (spread(service, addresses=ADDRESSES) > 3) is ("address" in by)


@pytest.mark.parametrize("scheduler", ["maglev", "sh"])
@pytest.mark.parametrize(("clients", "prefixes"), [(CLIENTS, (24, 128)), (CLIENTS6, (32, 64))])
def test_with_persistence_hashed_flows_are_spread_by_the_network_of_the_client(scheduler, clients, prefixes):
    whole, networks = (
        made(scheduler=scheduler, persistence=300.0, prefix4=prefix4, prefix6=prefix6)
        for prefix4, prefix6 in ((32, 128), prefixes)
    )
    for service in (whole, networks):
        have(service, *(row(number) for number in range(5)))

    assert spread(whole, clients=clients) > 3
    assert spread(whole, clients=clients[:1], ports=PORTS) == 1
    assert spread(networks, clients=clients, ports=PORTS) == 1


def test_the_total_has_the_servers_that_are_there_the_sorry_server_and_those_that_are_gone():
    service = made(scheduler="rr")
    have(service, row(0), row(1), sorry=row(2))
    for number, server in enumerate([*service.servers[:2], service.sorry], 1):
        server.connections, server.packets, server.bytes = number, number * 10, number * 100
    assert service.totals() == (6, 60, 600)

    have(service, row(0))

    assert service.totals() == (6, 60, 600)
    assert service.past == (5, 50, 500)


def test_one_server_and_the_same_as_sorry_server_are_counted_apart():
    service = made(scheduler="rr")
    for _ in range(2):
        have(service, row(0), sorry=row(0))
    service.by_number[0].connections, service.sorry.connections = 1, 2

    have(service, row(0), sorry=row(0))

    assert (service.by_number[0].connections, service.sorry.connections) == (1, 2)


@pytest.mark.parametrize(
    ("takes", "weight", "expected"), [(Takes.NEW, 1, 0), (Takes.NEW, 0, None), (Takes.KEPT, 1, None)]
)
def test_a_sorry_server_takes_new_flows_as_any_server_does(takes, weight, expected):
    service = made(scheduler="rr")
    have(service, sorry=row(0, takes=takes, weight=weight))

    assert begin(service, 1) == expected

    have(service, row(1), sorry=row(0, takes=takes, weight=weight), is_sorry=True)
    assert begin(service, 2) == (1 if expected is None else expected)


def test_a_client_whose_server_takes_no_new_flows_gets_another_and_keeps_that():
    service = made(scheduler="rr", persistence=300.0)
    have(service, row(0), row(1))
    first = begin(service, 1)

    have(service, *(row(number, takes=Takes.KEPT if number == first else Takes.NEW) for number in (0, 1)))
    assert begin(service, 1, now=1.0) == 1 - first

    have(service, row(0), row(1))
    assert begin(service, 1, now=2.0) == 1 - first


def test_a_datagram_that_is_a_flow_by_itself_is_counted_and_keeps_its_client_for_a_while():
    service = made(scheduler="rr", persistence=300.0, one_packet=True)
    have(service, row(0), row(1))
    server = service.choose(CLIENTS[1], PORTS[0], VIP, 0.0)

    service.pass_by(CLIENTS[1], server, 0.0)

    assert server.connections == 1
    assert len(service.flows) == 0
    assert {service.choose(CLIENTS[1], PORTS[0], VIP, now) for now in (1.0, 100.0, 300.0)} == {server}
    assert {service.choose(CLIENTS[1], PORTS[0], VIP, 301.0) for _ in range(2)} == set(service.servers)


def test_flows_that_another_director_has_keep_their_clients_too():
    service = made(scheduler="rr", persistence=300.0)
    have(service, row(0), row(1))

    assert service.learn(key(1), State.ESTABLISHED, service.by_number[1], 0.0)

    assert [begin(service, 1, now) for now in (1.0, 2.0)] == [1, 1]


def test_what_another_director_says_of_a_known_flow_is_its_state_and_that_it_lives():
    service = made(scheduler="rr")
    have(service, row(0), row(1))
    service.begin(key(1), State.ESTABLISHED, service.by_number[1], 0.0)

    assert service.learn(key(1), State.FIN_WAIT, service.by_number[0], 50.0)

    shard, place = service.flows.find(key(1))
    assert service.servers[shard.server[place]].number == 1
    assert (shard.state[place], shard.seen[place]) == (State.FIN_WAIT, 50.0)


def test_a_flow_of_a_server_that_is_gone_follows_the_other_director():
    service = made(scheduler="rr")
    have(service, row(0), row(1))
    service.learn(key(1), State.ESTABLISHED, service.by_number[1], 0.0)
    have(service, row(0))

    assert service.learn(key(1), State.ESTABLISHED, service.by_number[0], 1.0)

    shard, place = service.flows.find(key(1))
    assert service.servers[shard.server[place]].number == 0


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("is_proven", [False, True])
@pytest.mark.parametrize("is_learnt", [False, True])
@pytest.mark.parametrize("seen", [9.0, 10.0, 11.0])
def test_a_known_flow_follows_another_director_unless_it_is_proven_here_and_its_server_there(
    is_gone, is_proven, is_learnt, seen
):
    service = made(scheduler="rr")
    have(service, row(0), row(1))
    state = State.ESTABLISHED if is_proven else State.SYN_RECV
    service.begin(key(1), state, service.by_number[1], 10.0)
    shard, place = service.flows.find(key(1))
    if is_learnt:
        shard.note_learnt(place)
    if is_gone:
        have(service, row(0))
    is_ours = is_proven and not is_learnt and not is_gone

    assert service.learn(key(1), State.FIN_WAIT, service.by_number[0], seen)

    number = service.servers[shard.server[place]].number
    assert number == (1 if is_ours else 0)
    assert shard.seen[place] == max(seen, 10.0)
    assert shard.state[place] == (state if is_ours and seen < 10.0 else State.FIN_WAIT)
    assert shard.is_learnt(place) is not (is_ours and seen < 10.0)


def test_a_full_table_takes_no_flow_of_another_director():
    service = made(scheduler="rr", flows=64)
    have(service, row(0))
    taken = [
        service.learn(key(number), State.ESTABLISHED, service.by_number[0], 0.0) for number in range(200)
    ]

    assert taken.count(True) == len(service.flows) < 200


def test_new_flows_have_a_second_rate_and_twice_that_at_once():
    service = made(new_flows=5)
    assert [service.may_begin(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert [service.may_begin(1.0) for _ in range(6)] == [True] * 5 + [False]

    unlimited = made(new_flows=0)
    assert all(unlimited.may_begin(0.0) for _ in range(100))


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
