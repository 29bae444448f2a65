"""The forwarder's instructions for the services of a table, for every host's part in them."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address
from pathlib import Path

import pytest

from overlay.link.messages import OWN, Routes
from overlay.link.service_messages import MOST_VIEWS, VIRTUAL, PermitRow, ServerRow
from overlay.services import instructions
from overlay.services.checking import Checking, Result
from overlay.services.health import ByHand, Health
from overlay.services.instructions import Numbers
from peers import toml
from tests.overlay.services.test_delivery import PEERS

VIP = ip_address("203.0.113.80")
PEER_NUMBERS = {"lb": 1, "web1": 2, "web2": 3, "client": 4}
TCP = [6]
WEB = """
[services.web]
address = "203.0.113.80"
ports = [80]
directors = ["lb"]
servers = ["web1", { peer = "web2", weight = 3, port = 8080 }]
check = { kind = "http", port = 9000 }
"""


@pytest.fixture
def table():
    return read(WEB)


def read(services):
    return toml.parse(PEERS + services, Path("peers.toml"))


def number_for(own):
    return lambda name: OWN if name == own else PEER_NUMBERS[name]


def permits(table, own):
    return instructions.set_permits(table, table.peers[own], number_for(own)).rows


def test_service_is_passed_on_with_its_limits(table):
    told = instructions.set_service(table.services["web"], 5, "lb", number_for("lb"))
    assert (told.service, told.name, told.addresses) == (5, "web", [VIP.packed])
    assert (told.protocols, told.ports, told.scheduler) == (TCP, [(80, 80)], "maglev")
    assert told.idle == [900.0, 120.0, 300.0]
    assert told.directors == []


def test_other_directors_are_informed_unless_every_node_is_one(table):
    several = dataclasses.replace(table.services["web"], directors=("client", "lb"))
    everybody = dataclasses.replace(table.services["web"], directors=None)

    assert instructions.set_service(several, 5, "lb", number_for("lb")).directors == [4]
    assert instructions.set_service(everybody, 5, "lb", number_for("lb")).directors == []


def health_of(service):
    checkings = {
        each.key: [Checking(check, 0.0, 0.0) for check in service.checks_of(each)] for each in service.entries
    }
    for each in checkings.values():
        for one in each:
            one.finish(Result(True, "fine"), 0.0)
    return Health(service, checkings, 0.0), checkings


def test_servers_are_shown_as_they_stand(table):
    health, checkings = health_of(table.services["web"])
    numbers = Numbers()
    assert instructions.set_servers(health, numbers, number_for("lb")).rows == [
        ServerRow(0, "web1:0", 2, 1, 0),
        ServerRow(1, "web2:8080", 3, 3, 0),
    ]
    checkings["web1:0"][0].finish(Result(False, "refused"), 1.0)
    checkings["web1:0"][0].finish(Result(False, "refused"), 2.0)
    health.set_by_hand("web2:8080", ByHand(is_drained=True), 2.0)
    told = instructions.set_servers(health, numbers, number_for("web1"))
    assert told.rows == [ServerRow(0, "web1:0", OWN, 0, 2), ServerRow(1, "web2:8080", 3, 0, 1)]
    assert (told.sorry, told.is_sorry) == ([], False)


def test_ip_version_in_which_a_server_fails_is_reported(table):
    service = table.services["web"]
    (web1, web2), (check, *_) = service.servers, service.checks_of(service.servers[0])
    by = {version: Checking(check, 0.0, 0.0, version) for version in (4, 6)}
    for version, each in by.items():
        each.finish(Result(version == 4, "so it is"), 0.0)
    health = Health(service, {web1.key: list(by.values()), web2.key: []}, 0.0)
    told = instructions.set_servers(health, Numbers(), number_for("lb"))
    assert [row.apart for row in told.rows] == [[(6, 2)], []]


def test_sorry_server_is_shown_beside_the_servers_unless_it_is_one_of_them():
    service = read(WEB + 'sorry = "client"\nquorum = 9\n').services["web"]
    health, _ = health_of(service)
    told = instructions.set_servers(health, Numbers(), number_for("lb"))
    assert told.sorry == [ServerRow(2, "client:0", 4, 1, 0)]
    assert told.is_sorry
    assert [row.takes for row in told.rows] == [1, 1]

    service = dataclasses.replace(service, sorry=service.servers[0])
    health, _ = health_of(service)
    assert instructions.set_servers(health, Numbers(), number_for("lb")).sorry == []


def test_weights_elsewhere_are_sent_with_the_servers_within_the_limits_of_the_link(table):
    health, _ = health_of(table.services["web"])
    elsewhere = [(0, [1, weight]) for weight in range(9)]

    assert (
        instructions.set_servers(health, Numbers(), number_for("lb"), elsewhere[:1]).elsewhere
        == elsewhere[:1]
    )
    assert (
        len(instructions.set_servers(health, Numbers(), number_for("lb"), elsewhere).elsewhere) == MOST_VIEWS
    )


def test_numbers_stay_and_are_given_once():
    numbers = Numbers()
    given = [numbers.service("a"), numbers.service("b"), numbers.server("a", "x"), numbers.server("b", "x")]
    assert given == [0, 1, 0, 1]
    assert [numbers.service("a"), numbers.server("b", "x")] == [0, 1]


def test_server_admits_its_directors_to_the_ports_of_service_and_checks(table):
    assert permits(table, "web1") == [
        PermitRow(VIP.packed, False, [1], TCP, [(80, 80), (9000, 9000)]),
        PermitRow(VIP.packed, True, [1, 3], TCP, [(80, 80), (9000, 9000)]),
    ]


@pytest.mark.parametrize(("own", "senders"), [("client", [1, 2, 3]), ("lb", [2, 3])])
def test_clients_and_directors_admit_answers_of_servers_and_directors_alone(table, own, senders):
    assert permits(table, own) == [PermitRow(VIP.packed, True, senders, TCP, [(80, 80), (9000, 9000)])]


def test_where_every_node_is_a_director_all_may_send():
    everybody = read(WEB.replace('["lb"]', '"all"'))
    assert permits(everybody, "web1")[0] == PermitRow(VIP.packed, False, [], TCP, [(80, 80), (9000, 9000)])


def test_only_director_that_is_this_node_admits_nobody_else():
    itself = read(WEB.replace('servers = ["web1",', 'servers = ["lb",'))
    assert [row.is_source for row in permits(itself, "lb")] == [True]


def test_answers_that_go_back_through_the_director_are_reported():
    assert permits(read(WEB + 'reply = "director"\n'), "web1")[0].returns


def test_service_without_ports_admits_every_port():
    every = read(WEB.replace("ports = [80]\n", ""))
    assert all(row.ports == [] for row in permits(every, "web1"))


def ways(table, own, active="lb"):
    return instructions.ways(table, table.peers[own], lambda group: active, number_for(own))


def test_addresses_lead_to_the_active_director_but_at_directors(table):
    assert ways(table, "lb") == {VIP: VIRTUAL}
    assert ways(table, "client") == {VIP: 1}
    assert ways(table, "client", active="web1") == {VIP: 2}
    assert ways(read(WEB.replace('["lb"]', '"all"')), "client") == {VIP: VIRTUAL}


def test_change_of_ways_is_the_difference():
    other = ip_address("2001:db8::1")
    assert instructions.change_ways({VIP: 1}, {VIP: 1}) is None
    assert instructions.change_ways({VIP: 1}, {VIP: 2, other: VIRTUAL}) == Routes(
        [(VIP.packed, 32, 2), (other.packed, 128, VIRTUAL)], [], True
    )
    assert instructions.change_ways({VIP: 1}, {}) == Routes([], [(VIP.packed, 32)], True)


@pytest.mark.parametrize("ports", ["", "ports = [53]\n"])
def test_port_of_a_check_by_another_protocol_than_the_service_is_admitted_by_that_alone(ports):
    text = WEB.replace("ports = [80]\n", f'{ports}protocol = "udp"\n').replace(", port = 8080", "")
    expected = [(17, [(53, 53)] if ports else []), (6, [(9000, 9000)])]

    rows = permits(read(text), "web1")

    for is_source in (False, True):
        found = [(*each.protocols, each.ports) for each in rows if each.is_source is is_source]
        assert found == expected
