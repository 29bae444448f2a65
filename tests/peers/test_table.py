from dataclasses import FrozenInstanceError, replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.errors import KeyProblem
from peers.prefixes import PrefixMap
from peers.table import Table
from tests.peers.examples import key, peer, table

PARIS = peer("paris", "10.244.1.0/24", "fd00:244:1::/64", endpoint="192.0.2.1")
ROME = peer("rome", "10.244.2.0/24", "192.168.77.0/24", endpoint="rome.example.net")


def test_routes_hold_every_subnet_with_its_peer():
    assert [(str(prefix), name) for prefix, name in table(PARIS, ROME).routes] == [
        ("10.244.1.0/24", "paris"),
        ("fd00:244:1::/64", "paris"),
        ("10.244.2.0/24", "rome"),
        ("192.168.77.0/24", "rome"),
    ]


def test_an_address_outside_its_subnets_gets_a_host_route():
    phone = peer("phone", address=("10.244.9.9", "fd00:244:9::9"))

    routes = table(PARIS, phone).routes

    assert routes[2:] == ((ip_network("10.244.9.9/32"), "phone"), (ip_network("fd00:244:9::9/128"), "phone"))


def test_an_address_inside_a_longer_prefix_of_another_peer_still_leads_home():
    wide = peer("wide", "10.244.0.0/16")
    narrow = peer("narrow", "10.244.0.0/24", address=("10.244.0.1",))

    routes = PrefixMap(table(wide, narrow).routes)

    assert routes.lookup(ip_address("10.244.0.0")) == "wide"
    assert routes.lookup(ip_address("10.244.0.2")) == "narrow"


SUBNETS = st.builds(
    lambda low, length: str(ip_network((0x0AF40000 | low >> 32 - length << 32 - length, length))),
    st.sampled_from([0, 1, 2, 255, 256, 257, 512]),
    st.sampled_from([16, 23, 24, 30, 31, 32]),
)


@given(st.lists(st.lists(SUBNETS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_in_every_table_each_address_of_a_peer_leads_to_that_peer(subnets_of_peers):
    peers = [peer(f"p{number}", *subnets) for number, subnets in enumerate(subnets_of_peers)]
    try:
        made = table(*peers)
    except KeyProblem:
        return

    routes = PrefixMap(made.routes)
    assert len(routes) == len(made.routes)
    for each in peers:
        assert {routes.lookup(address) for address in each.addresses} == {each.name}
        assert all((subnet, each.name) in made.routes for subnet in each.subnets)


def test_a_peer_is_found_by_its_public_key():
    assert table(PARIS, ROME).find_by_public_key(key("rome")) is ROME
    assert table(PARIS, ROME).find_by_public_key(bytes(32)) is None


def test_a_node_listens_on_its_own_port_or_the_network_s_and_never_its_endpoint_s():
    own = peer("own", "10.244.3.0/24", listen_port=4500)
    behind_nat = peer("nat", "10.244.4.0/24", endpoint="192.0.2.9:7777")

    made = table(own, behind_nat, port=51000)

    assert made.listen_port(own) == 4500
    assert made.listen_port(behind_nat) == 51000


def test_a_table_cannot_be_changed():
    peers = {"paris": PARIS}
    made = Table(table(PARIS).network, peers)
    peers["rome"] = ROME

    assert list(made.peers) == ["paris"]
    with pytest.raises(TypeError):
        made.peers["rome"] = ROME
    with pytest.raises(FrozenInstanceError):
        made.network = None


@pytest.mark.parametrize(
    ("peers", "keys", "words"),
    [
        ([], ("peers",), "peers has no peers"),
        (
            [PARIS, replace(ROME, public_key=key("paris"))],
            ("peers", "rome", "public_key"),
            "peers.rome.public_key is also the public key of peers.paris",
        ),
        (
            [PARIS, peer("lyon", "10.244.8.0/24", "10.244.1.0/24")],
            ("peers", "lyon", "subnets", 1),
            "peers.lyon.subnets[1] 10.244.1.0/24 is also a subnet of peers.paris",
        ),
        (
            [peer("lyon", "10.244.8.0/24", "10.244.8.0/24")],
            ("peers", "lyon", "subnets", 1),
            "peers.lyon.subnets[1] 10.244.8.0/24 is here twice",
        ),
        (
            [PARIS, peer("lyon", "10.244.1.0/25")],
            ("peers", "lyon", "address"),
            "peers.lyon.address 10.244.1.0 is also the address of peers.paris",
        ),
        (
            [
                PARIS,
                peer("lyon", "10.244.9.9/32", address=("10.244.8.1",)),
                peer("nice", address=("10.244.9.9",)),
            ],
            ("peers", "nice", "address"),
            "peers.nice.address 10.244.9.9 is also a subnet of peers.lyon",
        ),
        (
            [peer("exit", "0.0.0.0/0")],
            ("peers", "exit", "address"),
            "peers.exit.address is missing and no subnet gives one",
        ),
        (
            [peer("lyon", "10.244.8.0/24", endpoint="10.244.8.1")],
            ("peers", "lyon", "endpoint"),
            (
                "peers.lyon.endpoint 10.244.8.1 lies inside its own subnet 10.244.8.0/24: it could only be reached "
                "through the tunnel itself; give its underlay address"
            ),
        ),
        (
            [peer("lyon", "0.0.0.0/0", address=("10.244.8.1",), endpoint="10.244.9.9")],
            ("peers", "lyon", "endpoint"),
            "peers.lyon.endpoint 10.244.9.9 lies inside its own subnet 0.0.0.0/0",
        ),
        (
            [peer("lyon", address=("10.244.8.1",), endpoint="10.244.8.1")],
            ("peers", "lyon", "endpoint"),
            "peers.lyon.endpoint 10.244.8.1 lies inside its own subnet 10.244.8.1/32",
        ),
    ],
)
def test_peers_that_contradict_each_other_make_no_table(peers, keys, words):
    with pytest.raises(KeyProblem) as caught:
        table(*peers)

    assert caught.value.keys == keys
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            lambda: table(PARIS, prefixes=(ip_network("10.0.0.0/8"),), mtu=1279),
            "peers.paris has fd00:244:1::/64",
        ),
        (lambda: table(ROME, mtu=1279), "network has fd00:244::/32"),
        (
            lambda: table(peer("v6", address=("fd00::1",)), prefixes=(ip_network("10.0.0.0/8"),), mtu=1279),
            "peers.v6 has fd00::1/128",
        ),
    ],
)
def test_ipv6_needs_an_mtu_of_1280(made, words):
    with pytest.raises(KeyProblem) as caught:
        made()

    assert caught.value.keys == ("network", "mtu")
    assert words in str(caught.value)


def test_without_ipv6_a_small_mtu_is_accepted():
    assert table(ROME, prefixes=(ip_network("10.244.0.0/16"),), mtu=576).network.mtu == 576


@pytest.mark.parametrize(
    "peers",
    [
        [peer("exit", "10.244.8.0/24", "0.0.0.0/0", endpoint="192.0.2.9")],
        [peer("site", "10.244.8.0/24", "192.0.2.0/24", endpoint="192.0.2.9")],
        [PARIS, peer("inner", "10.244.8.0/24", endpoint="10.244.1.7")],
        [peer("wide", "10.244.0.0/16", endpoint="10.244.8.7"), peer("lyon", "10.244.8.0/24")],
        [peer("named", "10.244.8.0/24", endpoint="lyon.example.net")],
    ],
)
def test_endpoints_that_can_be_reached_are_accepted(peers):
    assert len(table(*peers).peers) == len(peers)


def test_point_to_point_with_one_peer_is_refused_in_english():
    with pytest.raises(KeyProblem, match="is for a tun between two peers, and there is only one; remove it"):
        table(PARIS, point_to_point=True)
