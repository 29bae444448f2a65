from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.addresses import host_prefix, parse_address, parse_host_address, parse_prefix

ADDRESSES = st.ip_addresses()


@given(ADDRESSES, st.integers(0, 128))
def test_a_prefix_is_read_as_python_reads_it(address, length):
    prefix = ip_network(f"{address}/{min(length, address.max_prefixlen)}", strict=False)

    assert parse_prefix(str(prefix)) == prefix


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.244.1.5/24", "has host bits; write 10.244.1.0/24"),
        ("fd00:244:1::5/64", "has host bits; write fd00:244:1::/64"),
        ("10.244.1.0", "has no length; write 10.244.1.0/32 if this one address is meant"),
        ("fd00::1", "has no length; write fd00::1/128 if this one address is meant"),
        ("10.0.0.0/255.0.0.0", "has a mask for a length; write 10.0.0.0/8"),
        ("10.0.0.0/0.255.255.255", "has a mask for a length; write 10.0.0.0/8"),
        ("10.0.0.0/33", "has no valid length; write one from 0 to 32 after the /"),
        ("10.0.0.0/", "has no valid length"),
        ("10.0.0.0/8/8", "has no valid length"),
        ("10.0.0.0/\N{SUPERSCRIPT TWO}", "has no valid length"),
        ("fd00::/129", "has no valid length; write one from 0 to 128 after the /"),
        ("fe80::%eth0/64", "is not a prefix"),
        ("10.0.0/8", "is not a prefix; write ADDRESS/LENGTH"),
        ("010.0.0.0/8", "is not a prefix"),
        ("", "is not a prefix"),
    ],
)
def test_a_wrong_prefix_is_refused_with_the_right_form(text, words):
    with pytest.raises(ValueError, match="^" + words.replace("(", r"\(").replace("/", "/")):
        parse_prefix(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.244.1.0/24", "has a length; write 10.244.1.0"),
        ("paris", "is not an IP address"),
        ("0.0.0.0", "is not an address that a host can have"),
        ("::", "is not an address that a host can have"),
        ("127.0.0.1", "is not an address that a host can have"),
        ("224.0.0.1", "is not an address that a host can have"),
        ("255.255.255.255", "is not an address that a host can have"),
        ("fe80::1%eth0", "has a scope; write fe80::1"),
        ("fe80::1%\0", "has a scope that is not an interface name"),
    ],
)
def test_a_wrong_overlay_address_is_refused_with_its_reason(text, words):
    with pytest.raises(ValueError, match="^" + words):
        parse_host_address(text)


def test_an_address_to_listen_at_may_be_unspecified_or_have_a_scope():
    assert parse_address("0.0.0.0") == ip_address("0.0.0.0")
    assert parse_address("fe80::1%eth0").scope_id == "eth0"


@given(ADDRESSES)
def test_a_host_prefix_holds_its_address_alone(address):
    prefix = host_prefix(address)

    assert address in prefix
    assert prefix.num_addresses == 1


@given(st.text())
def test_any_text_gives_a_value_or_a_value_error(text):
    for parse in (parse_prefix, parse_address, parse_host_address):
        with suppress(ValueError):
            assert parse(text) is not None
