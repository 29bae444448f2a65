from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.addresses import _packed, format_sockaddr, pack_host


@given(st.ip_addresses(v=4))
def test_ipv4_host_has_four_bytes(host):
    assert pack_host((str(host), 1)) == host.packed


@given(st.ip_addresses(v=6))
def test_ipv6_host_has_sixteen_bytes_with_and_without_a_scope(host):
    assert pack_host((str(host), 1, 0, 0)) == host.packed
    assert pack_host((f"{host}%eth0", 1, 0, 2)) == host.packed


def packed(make):
    """Return the result of *make*, None if it refuses."""
    try:
        return make()
    except ValueError:
        return None


@given(st.text("0123456789abf:.% ", max_size=20))
def test_text_is_taken_for_an_address_when_the_standard_library_does(text):
    assert packed(lambda: pack_host((text, 1))) == packed(lambda: IPv4Address(text).packed)
    assert packed(lambda: pack_host((text, 1, 0, 0))) == packed(lambda: IPv6Address(text).packed)


def test_link_local_address_is_written_with_its_scope_once():
    assert format_sockaddr(("fe80::1", 5, 0, 2)) == "[fe80::1%2]:5"
    assert format_sockaddr(("fe80::1%eth0", 5, 0, 2)) == "[fe80::1%eth0]:5"
    assert format_sockaddr(("192.0.2.1", 5)) == "192.0.2.1:5"


def test_hosts_of_ten_thousand_peers_are_read_once_and_then_remembered():
    hosts = [str(IPv4Address(0x0A000000 + number)) for number in range(10_000)]
    for host in hosts:
        pack_host((host, 1))
    before = _packed.cache_info().misses

    for host in hosts:
        pack_host((host, 1))

    assert _packed.cache_info().misses == before
