from __future__ import annotations

from pathlib import Path

import pytest

from peers.encapsulation import has_ports
from peers.errors import KeyProblem
from peers.hints import warnings
from peers.peer import Network
from peers.tunnel import encapsulation_between, identifier_between, own_encapsulation
from tests.peers.examples import PREFIXES, peer, table


def a_peer(number, encapsulation=None, **fields):
    endpoint = fields.pop("endpoint", f"192.0.2.{number}")
    return peer(
        f"p{number}", f"10.244.{number}.0/24", endpoint=endpoint, encapsulation=encapsulation, **fields
    )


@pytest.mark.parametrize("network", ["wireguard", "udp"])
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, None, None),
        ("udp", None, "udp"),
        ("udp", "udp", "udp"),
        ("wireguard", None, "wireguard"),
        ("wireguard", "wireguard", "wireguard"),
    ],
)
def test_both_ends_compute_the_same_encapsulation(network, one, other, expected):
    a, b, network = a_peer(1, one), a_peer(2, other), Network(PREFIXES, encapsulation=network)

    between = {encapsulation_between(network, *pair) for pair in ((a, b), (b, a))}

    assert between == {expected or network.encapsulation}
    assert own_encapsulation(network, a) == (one or network.encapsulation)


@pytest.mark.parametrize("network", ["wireguard", "udp", "vxlan"])
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("udp", "wireguard", "wireguard"), ("wireguard", "gre", "wireguard"), ("ipip", "udp", None)],
)
def test_two_that_name_different_ones_meet_at_what_is_encrypted_or_the_networks(
    network, one, other, expected
):
    a, b, network = a_peer(1, one), a_peer(2, other), Network(PREFIXES, encapsulation=network)

    between = {encapsulation_between(network, *pair) for pair in ((a, b), (b, a))}

    assert between == {expected or network.encapsulation}


@pytest.mark.parametrize("keys", [(7, None, None), (None, 7, None), (None, None, 7), (7, 7, 8), (None, 7, 8)])
def test_both_ends_compute_the_same_gre_key(keys):
    a, b = a_peer(1, "gre", gre_key=keys[0]), a_peer(2, gre_key=keys[1])
    network = Network(PREFIXES, gre_key=keys[2])

    assert identifier_between(network, a, b) == identifier_between(network, b, a) == 7


def test_vxlan_has_its_network_identifier_and_the_others_none():
    network = Network(PREFIXES, vni=9, gre_key=7)

    found = {
        name: identifier_between(network, a_peer(1, name), a_peer(2))
        for name in ("wireguard", "udp", "ipip", "vxlan")
    }

    assert found == {"wireguard": None, "udp": None, "ipip": None, "vxlan": 9}


@pytest.mark.parametrize(
    ("peers", "network", "keys", "words"),
    [
        ([a_peer(1), a_peer(2)], {"gre_key": 7}, ("network", "gre_key"), "no peer uses gre"),
        ([a_peer(1, gre_key=7), a_peer(2)], {}, ("peers", "p1", "gre_key"), "has no effect"),
        (
            [a_peer(1, "gre", gre_key=7), a_peer(2, "gre", gre_key=8)],
            {},
            ("peers", "p2", "gre_key"),
            "is 8 and that of peers.p1 is 7",
        ),
        (
            [a_peer(1), a_peer(2, "udp")],
            {"device": "tap"},
            ("peers", "p2", "encapsulation"),
            "no Ethernet frames",
        ),
        (
            [a_peer(1)],
            {"device": "tap", "encapsulation": "udp"},
            ("network", "encapsulation"),
            "no Ethernet frames",
        ),
        ([a_peer(1)], {"point_to_point": True}, ("network", "point_to_point"), "there is only one"),
        (
            [a_peer(1), a_peer(2)],
            {"point_to_point": True, "device": "tap"},
            ("network", "point_to_point"),
            "the device is a tap",
        ),
        (
            [a_peer(1, macs=(b"\2\0\0\0\0\1",)), a_peer(2, macs=(b"\2\0\0\0\0\1",))],
            {},
            ("peers", "p2", "mac", 0),
            "02:00:00:00:00:01 is also at peers.p1",
        ),
        (
            [a_peer(1, "vxlan"), a_peer(2), a_peer(3, "vxlan", endpoint="192.0.2.1:4790")],
            {"device": "tap"},
            ("peers", "p3", "endpoint"),
            "is at the same host as that of peers.p1",
        ),
        (
            [
                a_peer(1, endpoint="Here.example.net"),
                a_peer(2, "vxlan"),
                a_peer(3, endpoint="here.example.net"),
            ],
            {"device": "tap"},
            ("peers", "p3", "endpoint"),
            "is at the same host as that of peers.p1",
        ),
        ([a_peer(1)], {"vxlan_port": 8285}, ("network", "vxlan_port"), "also the port of udp"),
        ([a_peer(1)], {"vxlan_port": 51820}, ("network", "vxlan_port"), "also the port of wireguard"),
    ],
)
def test_what_the_encapsulations_in_use_have_no_place_for_is_refused(peers, network, keys, words):
    with pytest.raises(KeyProblem) as raised:
        table(*peers, **network)

    assert raised.value.keys == keys
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("one", "other", "third", "network"),
    [
        ("vxlan", "wireguard", None, {"device": "tap"}),
        (None, None, None, {"device": "tap"}),
        ("vxlan", "vxlan", "wireguard", {"device": "tap"}),
        ("vxlan", "vxlan", None, {"device": "tun"}),
    ],
)
def test_two_at_one_host_are_taken_where_something_tells_them_apart(one, other, third, network):
    table(a_peer(1, one), a_peer(2, other, endpoint="192.0.2.1:4790"), a_peer(3, third), **network)


@pytest.mark.parametrize(
    ("network", "named", "without_key", "is_refused"),
    [
        ("udp", [None, None], 1, False),
        ("wireguard", [None, None], 1, True),
        ("wireguard", [None], 1, True),
        ("udp", [None], 1, False),
        ("wireguard", ["udp", None], 1, False),
        ("wireguard", ["udp", None], 2, False),  # its one tunnel is unencrypted
        ("wireguard", ["udp", None, None], 2, True),
        ("udp", ["wireguard", None], 2, True),
        ("udp", ["wireguard", None], 1, True),
    ],
)
def test_a_key_is_needed_exactly_where_a_tunnel_is_encrypted(network, named, without_key, is_refused):
    peers = [
        a_peer(number, each, **({"public_key": None} if number == without_key else {}))
        for number, each in enumerate(named, 1)
    ]

    if is_refused:
        with pytest.raises(KeyProblem, match=r"public_key is missing"):
            table(*peers, encapsulation=network)
    else:
        assert len(table(*peers, encapsulation=network).peers) == len(peers)


def test_several_peers_without_a_key_are_no_contradiction():
    assert len(table(*(a_peer(n, public_key=None) for n in (1, 2)), encapsulation="udp").peers) == 2


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"endpoint": None}, "endpoint"),
        ({"preshared_key_file": Path("/etc/overlay/psk")}, "preshared_key_file"),
    ],
)
def test_what_a_peer_in_the_clear_lacks_or_cannot_use_is_refused(fields, key):
    with pytest.raises(KeyProblem) as raised:
        table(a_peer(1, "udp", **fields), a_peer(2))

    assert raised.value.keys == ("peers", "p1", key)


def test_sources_of_an_encrypted_peer_are_refused():
    with pytest.raises(KeyProblem, match="sources is for packets in the clear"):
        table(a_peer(1, sources=PREFIXES))


def test_one_port_for_both_is_refused():
    with pytest.raises(KeyProblem, match="udp_port"):
        table(a_peer(1), port=8285)


@pytest.mark.parametrize("encapsulation", ["ipip", "gre"])
def test_without_ports_an_endpoint_has_none(encapsulation):
    peers = table(a_peer(1, encapsulation), a_peer(2, endpoint="192.0.2.2:9"))

    found = {str(peers.endpoint_for(each, encapsulation)) for each in peers.peers.values()}

    assert found == {"192.0.2.1", "192.0.2.2"}
    assert not has_ports(encapsulation)


def test_an_endpoint_has_the_port_of_its_own_encapsulation_and_another_has_its_default():
    both = table(
        a_peer(1, "udp", endpoint="192.0.2.1:9000"), a_peer(2, endpoint="192.0.2.2:4500", listen_port=7)
    )
    p1, p2 = both.peers.values()

    assert str(both.endpoint_for(p1, "udp")) == "192.0.2.1:9000"
    assert str(both.endpoint_for(p2, "udp")) == "192.0.2.2:8285"
    assert str(both.endpoint_for(p2, "wireguard")) == "192.0.2.2:4500"
    assert (both.listen_port(p2), both.listen_port(p2, "udp"), both.listen_port(p1)) == (7, 8285, 8285)


def test_check_warns_of_what_is_not_encrypted_and_of_public_addresses():
    mixed = table(a_peer(1, "udp", endpoint="8.8.8.8"), a_peer(2, "udp"), a_peer(3, endpoint="9.9.9.9"))
    clear = table(a_peer(1), a_peer(2), encapsulation="udp")

    assert [each for each in warnings(mixed) if "crypt" in each] == [
        "traffic with peers.p1 and 1 more is not encrypted: the encapsulation is udp",
        (
            "peers.p1.endpoint 8.8.8.8 is a public address, and udp encrypts nothing: everybody on the way can read "
            "and change what is sent"
        ),
    ]
    assert "nothing is encrypted: the encapsulation of all peers is udp" in warnings(clear)
    assert warnings(table(a_peer(1), a_peer(2))) == []
