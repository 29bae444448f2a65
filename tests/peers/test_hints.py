"""Valid settings that are probably mistakes."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from peers.hints import warnings
from tests.peers.examples import peer, table

PARIS = peer("paris", "10.244.1.0/24", "fd00:244:1::/64", endpoint="192.0.2.1")
ROME = peer("rome", "10.244.2.0/24", "192.168.77.0/24", endpoint="rome.example.net")


def test_a_table_without_oddities_has_no_warnings():
    assert warnings(table(PARIS, peer("lyon", "10.244.3.0/24", endpoint="10.244.1.7"))) == []


def test_overlapping_subnets_of_different_peers_are_warned_of_once_for_the_wider():
    hub = peer("hub", "10.244.0.0/16", "10.244.128.0/17", endpoint="192.0.2.3")
    lyon = peer("lyon", "10.244.3.0/24", "10.244.3.128/25", endpoint="192.0.2.4")

    assert warnings(table(hub, lyon, PARIS)) == [
        "10.244.0.0/16 of peers.hub holds 10.244.3.0/24 of peers.lyon and 1 more; the longer prefix wins"
    ]


def test_a_default_route_is_not_warned_of_as_overlap():
    gate = peer("gate", "10.244.9.0/24", "0.0.0.0/0")

    assert not any("holds" in sentence for sentence in warnings(table(gate, PARIS)))


def test_subnets_outside_the_network_prefixes_are_warned_of_once_for_each_peer():
    wide = peer("wide", "10.244.8.0/24", "10.0.0.0/8", "192.168.1.0/24")

    assert warnings(table(wide, ROME)) == [
        "10.0.0.0/8 of peers.wide holds 10.244.2.0/24 of peers.rome; the longer prefix wins",
        (
            "10.0.0.0/8 of peers.wide and 1 more lie outside the network prefix 10.244.0.0/16, fd00:244::/32; "
            "each host gets a route for each"
        ),
        (
            "192.168.77.0/24 of peers.rome lies outside the network prefix 10.244.0.0/16, fd00:244::/32; "
            "each host gets a route for it"
        ),
    ]


def test_lans_at_the_ends_of_a_link_are_expected_outside_its_prefix():
    ends = [
        peer(
            f"n{number}",
            f"192.168.{number}.0/24",
            address=(f"10.9.0.{number}",),
            endpoint=f"192.0.2.{number}",
        )
        for number in (1, 2)
    ]
    link = [ip_network("10.9.0.0/30")]
    within = peer("n2", "10.9.0.2/31", address=("10.9.0.2",), endpoint="192.0.2.2")

    assert warnings(table(*ends, prefixes=link, point_to_point=True)) == []
    assert len(warnings(table(*ends, prefixes=link))) == 2
    (sentence,) = warnings(table(ends[0], within, prefixes=link, point_to_point=True))
    assert sentence.startswith("192.168.1.0/24 of peers.n1 lies outside the network prefix 10.9.0.0/30")


def test_an_endpoint_inside_its_own_policy_routed_subnet_is_warned_of():
    gate = peer("gate", "10.244.9.0/24", "0.0.0.0/0", endpoint="192.0.2.9")

    assert warnings(table(gate))[-1] == (
        "peers.gate.endpoint 192.0.2.9 lies inside its own subnet 0.0.0.0/0; "
        "the tunnel's own datagrams are routed past it by policy rules"
    )


def test_peers_of_which_none_can_call_another_are_named_in_one_warning():
    phones = [peer(f"phone{number}", f"10.244.{number}.0/24") for number in range(3, 8)]

    assert warnings(table(PARIS, *phones[:1])) == []
    assert "".join(warnings(table(PARIS, *phones[:2]))) == (
        "2 peers have no endpoint, and can never connect to each other: peers.phone3 and peers.phone4; "
        "give an endpoint to those that others can reach"
    )
    assert "".join(warnings(table(PARIS, *phones))) == (
        "5 peers have no endpoint, and can never connect to each other: peers.phone3, peers.phone4, peers.phone5 and "
        "2 more; give an endpoint to those that others can reach"
    )


def test_a_network_in_which_nobody_can_be_called_is_warned_of():
    assert warnings(table(peer("a", "10.244.3.0/24"), peer("b", "10.244.4.0/24"))) == [
        "no peer has an endpoint, so no tunnel can be set up: write the address of at least one host as its endpoint"
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.7", "192.0.2.7:51820"),
        ("[2001:db8::1]:51820", "2001:db8:0::1"),
        ("Vpn.example.net", "vpn.example.net."),
    ],
)
def test_one_endpoint_and_port_at_two_peers_is_warned_of(one, other):
    (sentence,) = warnings(
        table(peer("a", "10.244.3.0/24", endpoint=one), peer("b", "10.244.4.0/24", endpoint=other))
    )

    assert sentence.startswith("peers.a and peers.b have the same endpoint ")
    assert sentence.endswith("behind one address each needs a port of its own")


def test_two_ports_behind_one_address_are_right_where_the_peers_say_that_they_listen_there():
    a = peer("a", "10.244.3.0/24", endpoint="192.0.2.7")
    b = peer("b", "10.244.4.0/24", endpoint="192.0.2.7:51821", listen_port=51821)

    assert warnings(table(a, b)) == []


def test_a_port_that_the_encapsulation_does_not_listen_on_is_warned_of():
    a = peer("a", "10.244.3.0/24", endpoint="192.0.2.7:4500")
    b = peer("b", "10.244.4.0/24", endpoint="192.0.2.8:51820", encapsulation="vxlan")

    of_a, of_b = warnings(table(a, b))[:2]

    assert of_a == (
        "peers.a.endpoint has the port 4500, but a listens on 51820 for the encrypted tunnels: write that port, or, "
        "where a NAT leads one to the other, listen_port = 51820"
    )
    assert "has the port 51820, but b listens on 4789 for vxlan" in of_b


def test_many_warnings_of_one_kind_are_one():
    lans = [
        peer(f"n{number}", f"192.168.{number}.0/24", endpoint=f"192.0.2.{number}") for number in range(1, 6)
    ]

    (sentence,) = warnings(table(*lans))

    assert sentence == (
        "5 peers have prefixes outside the network prefix 10.244.0.0/16, fd00:244::/32, and each host gets routes for "
        "them: peers.n1, peers.n2, peers.n3 and 2 more"
    )
