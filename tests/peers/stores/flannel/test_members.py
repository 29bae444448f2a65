from __future__ import annotations

import json
import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from peers.stores.etcd.messages import KeyValue
from peers.stores.flannel.config import read_config
from peers.stores.flannel.lease import AgentData, Keys, Lease
from peers.stores.flannel.members import Own, Snapshot, compose, own_mac, read_members
from peers.toml import parse
from tests.hostile_names import NAMES
from tests.peers.stores.flannel.forms import LITERAL, PUBLIC_KEY, config

KEYS = Keys("coreos.com/network")
PARIS = AgentData("paris", bytes([1] * 32), "1" * 32, 51820)
TOKYO = AgentData("tokyo", bytes([2] * 32), "2" * 32, 51900)


def conf(backend="udp", **more):
    return read_config(config(backend, **more), Path("config"))


def kv(subnet, value, created=5):
    value = value if isinstance(value, bytes) else value.build()
    return KeyValue(KEYS.lease(IPv4Network(subnet)), value, created, created, 1, 7)


def literal(subnet, address, backend="udp", created=5):
    return kv(subnet, (LITERAL[backend] % address).encode(), created)


def agent(subnet, address, who, created=5):
    return kv(subnet, Lease(IPv4Address(address), "udp", agent=who), created)


def table(*kvs, backend="udp", own=None, departed=(), **more):
    found = read_members(KEYS, kvs, conf(backend, **more))
    gone = read_members(KEYS, departed, conf(backend)).accepted
    return parse(
        compose(Snapshot(conf(backend, **more), found, own, gone)).text, Path("config"), has_directory=False
    )


def test_the_settings_of_a_backend_are_those_of_the_network(tmp_path):
    text = compose(
        Snapshot(conf("vxlan", options={"VNI": 7, "Port": 4789, "MTU": 1500}), read_members(KEYS, [], conf()))
    ).text

    assert tomllib.loads(text)["network"] == {
        "prefix": "10.244.0.0/16",
        "vxlan_port": 4789,
        "vni": 7,
        "mtu": 1420,
    }


@pytest.mark.parametrize("field", ["Name", "Instance", "PublicKey"])
@pytest.mark.parametrize("text", NAMES.values(), ids=NAMES.keys())
def test_what_a_host_writes_for_a_name_gets_no_further_than_a_short_plain_remark(field, text):
    good, bad = agent("10.244.1.0/24", "192.0.2.1", PARIS), agent("10.244.2.0/24", "192.0.2.2", TOKYO)
    assert b'"tokyo"' in bad.value
    value = json.loads(bad.value)
    told = next(each for each in _objects(value) if field in each)
    told[field] = text
    wrong = KeyValue(bad.key, json.dumps(value).encode(), 6, 6, 1, 7)

    found = read_members(KEYS, [good, wrong], conf())

    assert {"paris"} <= table(good, wrong).peers.keys() <= {"paris", "tokyo", "192-0-2-2", "192.0.2.2"}
    for each in map(str, found.left_out):
        assert each.isprintable()
        assert len(each) < 300


def _objects(value):
    """Yield the objects in a value of JSON."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _objects(each)


def test_a_host_of_flanneld_is_called_by_its_address_and_has_all_its_leases():
    peers = table(literal("10.244.1.0/24", "192.0.2.7"), literal("10.244.2.0/24", "192.0.2.7")).peers

    [peer] = peers.values()
    assert peer.name == "flannel-192.0.2.7"
    assert [str(subnet) for subnet in peer.subnets] == ["10.244.1.0/24", "10.244.2.0/24"]
    assert (peer.encapsulation, str(peer.endpoint), peer.public_key) == ("udp", "192.0.2.7:8285", None)


def test_the_ethernet_address_of_flannelds_device_is_that_of_the_peer():
    [peer] = table(literal("10.244.1.0/24", "192.0.2.7", "vxlan"), backend="vxlan").peers.values()

    assert peer.macs == (bytes.fromhex("aabbccddeeff"),)


def test_a_host_of_flannelds_wireguard_backend_is_a_peer_with_a_key():
    [peer] = table(literal("10.244.1.0/24", "192.0.2.7", "wireguard"), backend="wireguard").peers.values()

    assert peer.encapsulation is None
    assert str(peer.endpoint) == "192.0.2.7:51820"
    assert (
        PUBLIC_KEY
        in compose(
            Snapshot(
                conf("wireguard"),
                read_members(KEYS, [literal("10.244.1.0/24", "192.0.2.7", "wireguard")], conf("wireguard")),
            )
        ).text
    )


def test_agents_have_their_own_ports_and_in_vxlan_an_ethernet_address_by_their_key():
    found = kv(
        "10.244.1.0/24",
        Lease(IPv4Address("192.0.2.7"), "vxlan", mac=own_mac(TOKYO.public_key), vni=1, agent=TOKYO),
    )

    [peer] = table(found, backend="vxlan").peers.values()

    assert (peer.name, str(peer.endpoint), peer.macs) == (
        "tokyo",
        "192.0.2.7:51900",
        (own_mac(TOKYO.public_key),),
    )


def test_this_host_is_what_it_holds_and_not_what_etcd_has_of_it():
    own = Own(PARIS, IPv4Address("192.0.2.10"), (IPv4Network("10.244.3.0/24"),))

    peers = table(
        agent("10.244.1.0/24", "192.0.2.10", PARIS),
        literal("10.244.2.0/24", "192.0.2.10"),  # of flanneld, which ran here
        literal("10.244.4.0/24", "192.0.2.7"),
        own=own,
    ).peers

    assert {name: [str(each) for each in peer.subnets] for name, peer in peers.items()} == {
        "paris": ["10.244.3.0/24"],
        "flannel-192.0.2.7": ["10.244.4.0/24"],
    }


@pytest.mark.parametrize("kvs", [(), (literal("10.244.1.0/24", "192.0.2.7"),)])
def test_this_host_has_an_address_before_it_has_a_subnet(kvs):
    peers = table(*kvs, own=Own(PARIS, None)).peers

    assert peers["paris"].subnets == ()
    assert len(peers["paris"].addresses) == 1


def test_of_two_agents_with_one_name_the_second_has_its_subnet_behind_it():
    peers = table(
        agent("10.244.1.0/24", "192.0.2.7", PARIS),
        agent("10.244.2.0/24", "192.0.2.8", AgentData("paris", bytes([3] * 32), "3" * 32, 1)),
    ).peers

    assert list(peers) == ["paris", "paris-10.244.2.0"]


def test_of_two_leases_that_overlap_the_older_counts():
    found = read_members(
        KEYS,
        [literal("10.244.1.0/25", "192.0.2.8", created=9), literal("10.244.1.0/24", "192.0.2.7", created=5)],
        conf(),
    )

    assert [str(placed.subnet) for placed in found.accepted] == ["10.244.1.0/24"]
    assert tuple(map(str, found.left_out)) == (
        "the lease of 10.244.1.0/25 (192.0.2.8) is left out: it overlaps a prefix of 192.0.2.7",
    )


def test_a_lease_with_another_vni_is_left_out():
    found = read_members(
        KEYS, [literal("10.244.1.0/24", "192.0.2.7", "vxlan")], conf("vxlan", options={"VNI": 2})
    )

    assert [str(each).partition(": ")[2] for each in found.left_out] == ["its VNI is 1, and the network's 2"]


def test_an_agent_that_has_just_departed_keeps_its_session_and_a_host_of_flanneld_nothing():
    peers = table(
        literal("10.244.9.0/24", "192.0.2.9"),
        departed=[agent("10.244.1.0/24", "192.0.2.7", TOKYO), literal("10.244.2.0/24", "192.0.2.8")],
    ).peers

    assert list(peers) == ["flannel-192.0.2.9", "tokyo"]
    assert peers["tokyo"].subnets == ()


def test_what_departed_makes_way_for_who_has_its_subnet_now():
    peers = table(
        literal("10.244.1.0/24", "192.0.2.9"), departed=[agent("10.244.1.0/24", "192.0.2.7", TOKYO)]
    ).peers

    assert list(peers) == ["flannel-192.0.2.9"]


def test_a_section_is_found_by_its_line():
    found = read_members(
        KEYS, [literal("10.244.1.0/24", "192.0.2.7"), agent("10.244.2.0/24", "192.0.2.8", TOKYO)], conf()
    )
    composed = compose(Snapshot(conf(), found))
    lines = composed.text.split("\n")

    assert composed.host_at(1) is None
    assert composed.host_at(lines.index("[peers.tokyo]") + 3) == TOKYO.public_key
    assert composed.host_at(lines.index('[peers."flannel-192.0.2.7"]') + 1) == IPv4Address("192.0.2.7")
    assert json.dumps(found.left_out) == "[]"


def test_a_host_inside_the_network_is_left_out():
    found = read_members(KEYS, [literal("10.244.1.0/24", "10.244.7.7")], conf())

    assert found.accepted == ()
    assert "its PublicIP is in Network 10.244.0.0/16, and could be reached only through" in str(
        found.left_out[0]
    )


def test_thousands_of_leases_with_one_ethernet_address_are_left_out_at_once():
    wrong = [
        literal(f"10.244.{number // 16}.{number % 16 * 16}/28", "192.0.2.9", "vxlan")
        for number in range(16, 2000)
    ]
    others = [literal("10.244.0.0/28", "192.0.2.7", "vxlan", created=1)]

    found = read_members(KEYS, [*others, *wrong], conf("vxlan"))

    assert len(found.left_out) == len(wrong)


def test_no_agent_can_take_the_name_of_another_away():
    names = ["paris", "paris-10.244.3.0", "paris", "flannel-192.0.2.9", "paris-2"]
    agents = [
        agent(
            f"10.244.{number}.0/24",
            f"192.0.2.{number}",
            AgentData(name, bytes([number] * 32), "1" * 32, 1),
            number,
        )
        for number, name in enumerate(names, 1)
    ]

    peers = table(*agents, literal("10.244.9.0/24", "192.0.2.9", created=99)).peers

    assert len(peers) == 6
    assert peers["paris"].public_key == bytes([1] * 32)
    assert peers["paris-10.244.3.0"].public_key == bytes([2] * 32)
