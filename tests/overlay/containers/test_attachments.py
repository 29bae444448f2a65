from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.containers.addresses import Addresses, Holder
from overlay.containers.attachments import (
    MOST,
    RECORD_SIZE,
    Attachment,
    Attachments,
    derived_mac,
    inner_name,
    outer_name,
)
from peers.mac import parse_mac

SUBNETS = [ip_network("10.244.1.0/24"), ip_network("fd00:244:1::/64")]
HERE = "boot/7"


def attached(container="web", network="overlay", interface="eth0", limit=None, is_whole=True):
    """Return attachments with one for *container*."""
    attachments = Attachments()
    attach(attachments, container, network, interface, limit, is_whole)
    return attachments


def attach(attachments, container, network="overlay", interface="eth0", limit=None, is_whole=True):
    holder = Holder(network, container, interface)
    addresses = attachments.addresses.allocate(holder, SUBNETS)
    made = Attachment(holder, addresses, outer_name(holder), derived_mac(holder), limit, 1420, is_whole)
    attachments.put(made)
    return holder


def same(one, other):
    return (
        one.by_holder == other.by_holder
        and one.addresses.taken == other.addresses.taken
        and one.addresses.last == other.addresses.last
    )


names = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,20}", fullmatch=True)
interfaces = st.from_regex(r"[a-z]{1,15}", fullmatch=True)


@given(
    st.lists(
        st.tuples(names, names, interfaces, st.none() | st.integers(68, 0xFFFF), st.booleans()),
        unique_by=lambda row: row[:3],
        max_size=8,
    )
)
def test_record_is_read_back_as_it_was(rows):
    attachments = Attachments()
    for network, container, interface, limit, is_whole in rows:
        attach(attachments, container, network, interface, limit, is_whole)

    assert same(Attachments.decode(attachments.encode(HERE), HERE), attachments)


def test_reboot_or_another_namespace_forgets_everything():
    data = attached().encode(HERE)

    assert same(Attachments.decode(data, "another boot/7"), Attachments())


@given(st.binary())
def test_garbage_is_a_value_error(data):
    with pytest.raises(ValueError):  # noqa: PT011  no other class, whatever it says
        Attachments.decode(data, HERE)


@given(st.data())
def test_record_with_anything_else_in_a_place_is_a_value_error_or_another_record(data):
    record = json.loads(attached().encode(HERE))
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
    part = data.draw(st.sampled_from(["attachments", "addresses", "last"]))
    row = record[part][0]
    row[data.draw(st.integers(0, len(row) - 1))] = data.draw(junk)

    try:
        found = Attachments.decode(json.dumps(record).encode(), HERE)
    except ValueError:
        return
    Attachments.decode(found.encode(HERE), HERE)


def test_record_is_bounded():
    with pytest.raises(ValueError, match="too long"):
        Attachments.decode(b" " * (RECORD_SIZE + 1), HERE)
    record = json.loads(attached().encode(HERE))
    record["attachments"] *= MOST + 1
    with pytest.raises(ValueError, match="not what encode"):
        Attachments.decode(json.dumps(record).encode(), HERE)


def test_nested_record_is_a_value_error():
    with pytest.raises(ValueError, match="nested"):
        Attachments.decode(b'{"namespace":' + b"[" * 100_000, HERE)


def test_device_that_a_record_names_is_one_of_ours():
    """The agent removes such devices."""
    record = json.loads(attached().encode(HERE))
    record["attachments"][0][4] = "eth0"

    with pytest.raises(ValueError, match="not an attachment"):
        Attachments.decode(json.dumps(record).encode(), HERE)


def test_dropped_attachment_gives_its_addresses_back():
    attachments = attached()

    attachments.drop(Holder("overlay", "web", "eth0"))

    assert not attachments.by_holder
    assert not attachments.addresses.taken
    assert attachments.drop(Holder("overlay", "web", "eth0")) is None


def test_addresses_that_somebody_else_holds_stay_held():
    """Docker requests the address before it creates an endpoint, and releases it afterwards."""
    attachments = Attachments(Addresses())
    pool, endpoint = Holder("docker", "10.244.1.9", "pool"), Holder("docker", "endpoint", "eth0")
    address = ip_address("10.244.1.9")
    attachments.addresses.claim(pool, [address], SUBNETS)
    attachments.put(Attachment(endpoint, (address,), outer_name(endpoint), derived_mac(endpoint)))

    attachments.drop(endpoint)

    assert attachments.addresses.held_by(pool) == (address,)


def test_stale_attachments_are_those_of_the_network_that_nobody_names():
    attachments = Attachments()
    for container, network in (("a", "one"), ("b", "one"), ("c", "one"), ("a", "two")):
        attach(attachments, container, network)
    attachments.addresses.allocate(Holder("one", "half", "eth0"), SUBNETS)

    stale = attachments.stale("one", {("a", "eth0"), ("b", "eth1")})

    assert [each.container for each in stale] == ["b", "c", "half"]


@given(names, names, interfaces)
def test_names_fit_and_addresses_are_of_one_device(network, container, interface):
    holder = Holder(network, container, interface)

    assert len({outer_name(holder), inner_name(holder)}) == 2
    assert max(len(outer_name(holder)), len(inner_name(holder))) <= 15
    assert parse_mac(derived_mac(holder))[0] & 3 == 2


def test_mtu_follows_the_tunnel_up_to_a_limit():
    holder = Holder("overlay", "web", "eth0")
    free = Attachment(holder, (), outer_name(holder), derived_mac(holder))
    bound = Attachment(holder, (), outer_name(holder), derived_mac(holder), limit=1300)

    assert (free.mtu(1420), bound.mtu(1420), bound.mtu(1280)) == (1420, 1300, 1280)


def test_mtu_of_the_routes_is_never_more_than_the_container_takes():
    holder = Holder("overlay", "web", "eth0")
    made = Attachment(holder, (), outer_name(holder), derived_mac(holder), device_mtu=1380)

    assert (made.route_mtu(1420), made.route_mtu(1300)) == (1380, 1300)
