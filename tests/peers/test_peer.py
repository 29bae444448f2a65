from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.peer import (
    Endpoint,
    default_addresses,
    format_public_key,
    parse_public_key,
    preshared_key_file_for,
)
from tests.peers.examples import peer

PREFIXES = (ip_network("10.244.0.0/16"),)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.10", "192.0.2.10", 51820),
        ("192.0.2.10:51821", "192.0.2.10", 51821),
        ("tokyo.example.net", "tokyo.example.net", 51820),
        ("tokyo.example.net.:1", "tokyo.example.net.", 1),
        ("2001:db8::1", "2001:db8::1", 51820),
        ("[2001:db8::1]", "2001:db8::1", 51820),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("fe80::1%eth0", "fe80::1%eth0", 51820),
        ("localhost", "localhost", 51820),
        ("127.0.0.1:4500", "127.0.0.1", 4500),
    ],
)
def test_an_endpoint_is_host_and_port(text, host, port):
    assert Endpoint.parse(text, 51820) == Endpoint(host, port)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is neither an address nor a DNS name"),
        (":51820", "is neither an address nor a DNS name"),
        ("to kyo", "is neither an address nor a DNS name"),
        ("-tokyo", "is neither an address nor a DNS name"),
        ("tokyo..net", "is neither an address nor a DNS name"),
        ("x" * 64, "is neither an address nor a DNS name"),
        ("x." * 130, "is neither an address nor a DNS name"),
        ("http://tokyo", "has no valid port"),
        ("192.0.2.300", "is not an IPv4 address"),
        ("192.0.2", "is not an IPv4 address"),
        ("192.0.2.10:0", "has no valid port"),
        ("192.0.2.10:65536", "has no valid port"),
        ("192.0.2.10:", "has no valid port"),
        ("192.0.2.10:" + "9" * 5000, "has no valid port"),
        ("192.0.2.10:\N{SUPERSCRIPT TWO}", "has no valid port"),
        (
            "2001:db8:1:2:3:4:5:6:51820",
            r"is not an IPv6 address; write 2001:db8::1, or \[2001:db8::1\]:51820",
        ),
        ("[2001:db8::1", "has wrong brackets"),
        ("[2001:db8::1]51820", "has wrong brackets"),
        ("[192.0.2.10]:51820", "has wrong brackets"),
        ("[::ffff:192.0.2.10]:1", "is an IPv4 address in IPv6 form; write 192.0.2.10:1"),
        ("0.0.0.0", "is not the address of a single host"),
        ("ff02::1", "is not the address of a single host"),
        ("[fe80::1]:51820", "is link-local, but names no interface; write it after %, as in fe80::1%eth0"),
    ],
)
def test_a_wrong_endpoint_is_refused_with_its_reason(text, words):
    with pytest.raises(ValueError, match="^" + words):
        Endpoint.parse(text, 51820)


@given(st.text(alphabet="[]:.-0123456789abcdefx%", max_size=40) | st.text())
def test_any_text_gives_an_endpoint_that_reads_back_or_a_value_error(text):
    try:
        endpoint = Endpoint.parse(text, 51820)
    except ValueError:
        return
    assert Endpoint.parse(str(endpoint), 1) == endpoint


def test_an_endpoint_knows_whether_it_is_an_address():
    assert Endpoint("2001:db8::1", 1).address == ip_address("2001:db8::1")
    assert Endpoint("tokyo.example.net", 1).address is None


@given(st.binary(min_size=32, max_size=32).filter(any))
def test_a_public_key_reads_back(key):
    assert parse_public_key(format_public_key(key)) == key


def test_a_public_key_is_base64_as_wireguard_writes_it():
    # RFC 7748 section 6.1, Alice's public key
    text = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="

    assert parse_public_key(text).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


def test_a_public_key_of_low_order_is_accepted():
    assert parse_public_key("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")[0] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo", "has 43 characters"),
        ("", "has 0 characters"),
        ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm!=", "is not the base64 of 32 bytes"),
        ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmp=", "is not the base64 of 32 bytes"),  # stray low bits
        ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTg==", "is not the base64 of 32 bytes"),  # 31 bytes
        (
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm\N{LATIN SMALL LETTER E WITH ACUTE}=",
            "is not the base64",
        ),
        ("A" * 43 + "=", "is all zeros"),
    ],
)
def test_a_wrong_public_key_is_refused_without_repeating_it(text, words):
    with pytest.raises(ValueError, match="^" + words) as caught:
        parse_public_key(text)

    assert not text or text not in str(caught.value)


def test_a_preshared_key_named_at_one_peer_is_used_with_everyone():
    tokyo = peer("tokyo", "10.244.2.0/24", preshared_key_file=Path("tokyo.psk"))
    paris = peer("paris", "10.244.1.0/24")

    assert preshared_key_file_for(tokyo, paris) == preshared_key_file_for(paris, tokyo) == Path("tokyo.psk")


def test_where_both_name_a_preshared_key_the_first_name_wins_at_both_ends():
    tokyo = peer("tokyo", "10.244.2.0/24", preshared_key_file=Path("tokyo.psk"))
    paris = peer("paris", "10.244.1.0/24", preshared_key_file=Path("paris.psk"))

    assert preshared_key_file_for(tokyo, paris) == preshared_key_file_for(paris, tokyo) == Path("paris.psk")


def test_without_preshared_keys_there_is_none():
    assert preshared_key_file_for(peer("paris", "10.244.1.0/24"), peer("rome", "10.244.2.0/24")) is None


@pytest.mark.parametrize(
    ("subnets", "addresses"),
    [
        (["10.244.1.0/24", "10.244.2.0/24"], ["10.244.1.0"]),
        (["fd00::/64", "10.244.1.0/24"], ["10.244.1.0", "fd00::"]),
        (["192.168.77.0/24", "10.244.1.0/24"], ["10.244.1.0"]),
        (["192.168.78.0/24", "192.168.77.0/24"], ["192.168.78.0"]),
        (["0.0.0.0/0", "::/0", "10.244.1.0/24"], ["10.244.1.0"]),
        (["0.0.0.0/0"], []),
        ([], []),
    ],
)
def test_the_default_address_comes_from_the_first_subnet_of_the_overlay(subnets, addresses):
    found = default_addresses([ip_network(subnet) for subnet in subnets], PREFIXES)

    assert found == tuple(ip_address(address) for address in addresses)


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [("münchen.example", "xn--mnchen-3ya.example"), ("例え.テスト:51820", "xn--r8jz45g.xn--zckzah")],
)
def test_international_name_is_refused_with_what_to_write(name, ascii_name):
    with pytest.raises(ValueError, match=f"write the name as DNS has it, {ascii_name}"):
        Endpoint.parse(name, 51820)

    assert Endpoint.parse(ascii_name, 51820).host == ascii_name


@pytest.mark.parametrize("name", ["ö" * 64 + ".example", "a b.ö", "\u2024", "ö..example", "\ud800.example"])
def test_what_is_no_international_name_either_is_refused(name):
    with pytest.raises(ValueError, match="is neither an address nor a DNS name"):
        Endpoint.parse(name, 51820)
