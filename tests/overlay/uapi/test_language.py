"""Requests of `wg` are read, invalid ones are refused, and answers have the form of requests."""

from __future__ import annotations

import contextlib
import errno
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.keys import PresharedKey, PrivateKey
from overlay.uapi.errors import RefusedError
from overlay.uapi.language import (
    LINE_SIZE,
    NO_PRESHARED_KEY,
    AllowedIp,
    DeviceChange,
    PeerChange,
    ShownDevice,
    ShownPeer,
    describe,
    parse_set,
    result,
)
from peers.peer import Endpoint

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))

keys = st.binary(min_size=32, max_size=32)
prefixes = st.one_of(
    st.builds(
        lambda number, length: ip_network((number, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.builds(
        lambda number, length: IPv6Network((number, length), strict=False),
        st.integers(2**33, 2**128 - 1),
        st.integers(64, 128),
    ),
)
endpoints = st.builds(
    Endpoint, st.sampled_from(["192.0.2.1", "2001:db8::1", "fe80::1%eth0"]), st.integers(1, 65535)
)
peer_changes = st.builds(
    PeerChange,
    keys,
    is_removed=st.booleans(),
    is_update=st.booleans(),
    preshared_key=st.none() | st.builds(PresharedKey, keys),
    endpoint=st.none() | endpoints,
    keepalive=st.none() | st.integers(0, 65535),
    replaces_allowed=st.booleans(),
    allowed=st.lists(st.builds(AllowedIp, prefixes, st.booleans()), max_size=4).map(tuple),
)


def written(change):
    """Write *change* as `wg` does."""
    if change.takes_key:
        key = change.private_key
        yield f"private_key={key.to_hex() if key else '0' * 64}"
    if change.listen_port is not None:
        yield f"listen_port={change.listen_port}"
    if change.fwmark is not None:
        yield f"fwmark={change.fwmark}"
    if change.replaces_peers:
        yield "replace_peers=true"
    for peer in change.peers:
        yield f"public_key={peer.public_key.hex()}"
        if peer.is_removed:
            yield "remove=true"
        if peer.is_update:
            yield "update_only=true"
        if peer.preshared_key is not None:
            yield f"preshared_key={peer.preshared_key.secret.hex()}"
        if peer.endpoint is not None:
            yield f"endpoint={peer.endpoint}"
        if peer.keepalive is not None:
            yield f"persistent_keepalive_interval={peer.keepalive}"
        if peer.replaces_allowed:
            yield "replace_allowed_ips=true"
        for each in peer.allowed:
            yield f"allowed_ip={'-' * each.is_removed}{each.prefix}"


@given(
    st.builds(
        DeviceChange,
        takes_key=st.just(True),
        private_key=st.none() | keys.filter(any).map(PrivateKey),
        listen_port=st.none() | st.integers(0, 65535),
        fwmark=st.none() | st.integers(0, 2**32 - 1),
        replaces_peers=st.booleans(),
        peers=st.lists(peer_changes, max_size=4).map(tuple),
    )
)
def test_what_wg_writes_is_read_as_it_was_meant(change):
    assert parse_set(written(change)) == change


@given(st.text(max_size=200) | st.lists(st.sampled_from([*written(DeviceChange(takes_key=True, fwmark=1)), f"public_key={KEY.hex()}", "remove=true", "allowed_ip=0.0.0.0/0", "endpoint=x", "", "=", "fwmark="])).map("\n".join))  # fmt: skip
def test_any_text_is_read_or_refused_with_an_errno(text):
    with contextlib.suppress(RefusedError):
        parse_set(text.split("\n"))


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("listen_port", errno.EPROTO),
        ("listen_port=1" + " " * LINE_SIZE, errno.EPROTO),
        ("listen_port=65536", errno.EINVAL),
        ("listen_port=-1", errno.EINVAL),
        ("listen_port=٣", errno.EINVAL),
        ("fwmark=4294967296", errno.EINVAL),
        ("replace_peers=false", errno.EINVAL),
        ("private_key=", errno.EINVAL),
        ("private_key=" + "0g" * 32, errno.EINVAL),
        ("private_key=" + "00 " * 21 + "0", errno.EINVAL),
        ("frobnicate=1", errno.EINVAL),
        ("endpoint=192.0.2.1:1", errno.EINVAL),  # before any peer
    ],
)
def test_wrong_line_of_a_device_is_refused(line, number):
    with pytest.raises(RefusedError) as caught:
        parse_set([line])

    assert caught.value.number == number


@pytest.mark.parametrize(
    "line",
    [
        "remove=1",
        "update_only=false",
        "replace_allowed_ips=",
        "protocol_version=2",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=off",
        "endpoint=192.0.2.1",
        "endpoint=192.0.2.1:0",
        "endpoint=vpn.example.net:51820",
        "endpoint=224.0.0.1:51820",
        "endpoint=[::ffff:192.0.2.1]:51820",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0.0/255.0.0.0",
        "allowed_ip=fe80::1%eth0/128",
        "allowed_ip=--10.0.0.0/8",
        "preshared_key=00",
        "listen_port=1",
    ],
)
def test_wrong_line_of_a_peer_is_refused_as_invalid(line):
    with pytest.raises(RefusedError) as caught:
        parse_set([f"public_key={KEY.hex()}", line])

    assert caught.value.number == errno.EINVAL


def test_refusal_never_quotes_a_value():
    for line in (f"private_key={'5ec7e7' * 10}", f"preshared_key={'5ec7e7' * 12}"):
        lines = [line] if line.startswith("private") else [f"public_key={KEY.hex()}", line]
        with pytest.raises(RefusedError) as caught:
            parse_set(lines)

        assert "5ec7e7" not in str(caught.value)


def test_prefixes_before_a_replacement_are_replaced_too():
    change = parse_set(
        [
            f"public_key={KEY.hex()}",
            "allowed_ip=10.0.0.0/8",
            "replace_allowed_ips=true",
            "allowed_ip=10.1.2.3/16",
        ]
    )

    assert change.peers[0].replaces_allowed
    assert change.peers[0].allowed == (AllowedIp(IPv4Network("10.1.0.0/16")),)


def test_private_key_is_clamped():
    assert next(
        iter(describe(ShownDevice(parse_set(["private_key=" + "ff" * 32]).private_key, 0, 0), ()))
    ) == ("private_key=f8" + "ff" * 30 + "7f\n")


def test_device_is_described_as_wireguard_go_does():
    # From `get=1` to wireguard-go 0.0.20220316
    text = "".join(
        describe(
            ShownDevice(PrivateKey(bytes(31) + b"\x40"), 51820, 7),
            [
                ShownPeer(KEY, None, None, 0, ()),
                ShownPeer(
                    OTHER,
                    KEY,
                    "[2001:db8::1]:51820",
                    25,
                    (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/64")),
                    1_700_000_000_000_000_005,
                    148,
                    92,
                ),
            ],
        )
    )

    assert text + result() == (
        f"private_key={'00' * 31}40\n"
        "listen_port=51820\n"
        "fwmark=7\n"
        f"public_key={KEY.hex()}\n"
        f"preshared_key={'00' * 32}\n"
        "protocol_version=1\n"
        "last_handshake_time_sec=0\n"
        "last_handshake_time_nsec=0\n"
        "tx_bytes=0\n"
        "rx_bytes=0\n"
        "persistent_keepalive_interval=0\n"
        f"public_key={OTHER.hex()}\n"
        f"preshared_key={KEY.hex()}\n"
        "protocol_version=1\n"
        "endpoint=[2001:db8::1]:51820\n"
        "last_handshake_time_sec=1700000000\n"
        "last_handshake_time_nsec=5\n"
        "tx_bytes=148\n"
        "rx_bytes=92\n"
        "persistent_keepalive_interval=25\n"
        "allowed_ip=10.0.0.0/8\n"
        "allowed_ip=fd00::/64\n"
        "errno=0\n\n"
    )


def test_device_without_key_port_and_mark_has_no_lines_for_them():
    assert "".join(describe(ShownDevice(None, 0, 0), ())) + result(errno.EINVAL) == "errno=-22\n\n"


def test_no_value_shows_a_secret():
    peer = ShownPeer(KEY, b"\x5e" * 32, None, 0, ())
    change = PeerChange(KEY, preshared_key=PresharedKey(b"\x5e" * 32))

    assert "^^" not in repr(peer) + repr(change)
    assert repr(NO_PRESHARED_KEY) == "PresharedKey(hidden)"


def read_by_the_library(text):
    """Return the prefix that *text* is, as ipaddress reads it with any host bits; None for none."""
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit() or "%" in address:
        return None
    try:
        return (IPv6Network if ":" in address else IPv4Network)(text, strict=False)
    except ValueError:
        return None


@given(
    st.text("0123456789abcdef:./%+ -_\u0661", max_size=24)
    | st.builds(
        lambda octets, length: f"{'.'.join(octets)}/{length}",
        st.lists(
            st.sampled_from(["0", "1", "255", "256", "01", "", " 1", "+1", "1_0", "\u0661"]),
            min_size=3,
            max_size=5,
        ),
        st.sampled_from(["0", "8", "31", "32", "33", "08", "", "-1", "255.0.0.0"]),
    )
    | st.builds(
        lambda prefix, bits: f"{prefix.network_address + bits}/{prefix.prefixlen}", prefixes, st.just(0)
    )
)
def test_prefixes_are_read_as_the_library_reads_them(text):
    expected = read_by_the_library(text)

    try:
        change = parse_set([f"public_key={KEY.hex()}", f"allowed_ip={text}"])
    except RefusedError:
        assert expected is None or text.startswith("-")
    else:
        assert change.peers[0].allowed == (
            AllowedIp(read_by_the_library(text.removeprefix("-")), text.startswith("-")),
        )
