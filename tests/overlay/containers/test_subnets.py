from __future__ import annotations

from ipaddress import ip_address, ip_network

from overlay.containers.subnets import offer


def networks(text):
    return [ip_network(each) for each in text.split()]


def test_subnets_that_a_link_of_the_host_has_are_not_for_containers():
    found = offer(
        networks("10.244.1.0/24 10.9.0.0/24 fd00::/64"), networks("10.9.0.128/25 fe80::/64 192.0.2.0/24"), ()
    )

    assert found.subnets == tuple(networks("10.244.1.0/24 fd00::/64"))
    assert found.taken == tuple(networks("10.9.0.0/24"))


def test_exit_for_the_whole_internet_has_nothing_to_give():
    assert offer(networks("0.0.0.0/0"), networks("192.0.2.0/24"), ()).subnets == ()


def test_addresses_of_hosts_services_and_servers_are_kept_as_far_as_they_are_in_a_subnet():
    others, servers = map(ip_address, ("10.244.1.1", "10.244.2.1")), [ip_address("10.244.1.9")]

    found = offer(networks("10.244.1.0/24"), (), others, servers)

    assert (found.kept, found.named) == ({ip_address("10.244.1.1")}, {ip_address("10.244.1.9")})
