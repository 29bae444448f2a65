from ipaddress import ip_address

from peers.service import Check, Server, Service, Vrrp

VIP = (ip_address("192.0.2.100"),)
A, B, C = (ip_address(f"10.244.3.{number}") for number in (9, 10, 11))


def test_the_identity_of_a_server_is_its_address_and_port():
    assert Server("x", "web1").key == "web1:0"
    assert Server("x", "web1", A, 8080).key == "10.244.3.9:8080"


def test_servers_at_one_host_are_told_apart_by_numbers_that_do_not_depend_on_their_order():
    servers = (Server("b", "web", B), Server("a", "web", A), Server("host", "web"), Server("other", "other"))
    there, back = Service("s", VIP, servers=servers), Service("s", VIP, servers=servers[::-1])

    numbers = {server.name: there.dscp_of(server) for server in servers}

    assert numbers == {"host": 3, "a": 7, "b": 11, "other": 0}
    assert numbers == {server.name: back.dscp_of(server) for server in servers}


def test_a_director_that_is_a_server_tells_what_was_chosen_for_it():
    servers = (Server("lb", "lb"), Server("web", "web"))
    service = Service("s", VIP, servers=servers, directors=("lb",))

    assert [service.dscp_of(server) for server in servers] == [3, 0]


def test_every_entry_at_a_host_has_a_dscp_of_its_own():
    servers = tuple(Server(f"{port}", "web", port=port) for port in range(1, 64))
    service = Service("s", VIP, servers=servers)

    assert {service.dscp_of(server) for server in servers} == set(range(1, 64))


def test_a_sorry_server_counts_among_those_at_its_host():
    service = Service("s", VIP, servers=(Server("web", "web"),), sorry=Server("web", "web", A))

    assert service.dscp_of(service.sorry) == 7


def test_a_sorry_server_that_is_also_a_server_is_one_entry():
    service = Service("s", VIP, servers=(Server("web", "web"),), sorry=Server("web", "web"))

    assert service.entries == service.servers


def test_checks_of_a_server_replace_those_of_the_service_and_the_sorry_server_has_none():
    page, ping = Check("http"), Check("ping", port=None)
    servers = (Server("a", "a"), Server("b", "b", checks=(ping,)))
    service = Service("s", VIP, servers=servers, checks=(page,), sorry=Server("c", "c"))

    assert [service.checks_of(entry) for entry in service.entries] == [(page,), (ping,), ()]


def test_ports_of_checks_are_known():
    service = Service("s", VIP, servers=(Server("a", "a"),), checks=(Check("http", port=9000), Check("tcp")))

    assert service.checked_ports() == {"tcp": (9000,)}

    checks = (Check("dns", port=53), Check("tcp", port=1), Check("udp", port=53), Check("ping"))
    service = Service("s", VIP, servers=(Server("a", "a"), Server("b", "b")), checks=checks)
    assert service.checked_ports() == {"udp": (53,), "tcp": (1,)}


def test_the_first_director_has_the_highest_priority_unless_one_is_written():
    group = Vrrp("lan", 51, "eth0", priorities={"c": 240})

    assert [group.priority_of(name, ("a", "b", "c")) for name in "abc"] == [150, 140, 240]


def test_the_password_of_a_group_is_not_shown():
    assert "hunter2" not in repr(Vrrp("lan", 51, "eth0", version=2, password="hunter2"))
