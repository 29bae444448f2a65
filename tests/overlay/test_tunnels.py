from __future__ import annotations

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.tunnels import make_tunnels, overheads_of
from peers.mac import derived_mac
from tests.peers.examples import peer, table

MAC = bytes.fromhex("02005e100001")


def a_peer(number, encapsulation=None, **fields):
    fields.setdefault("endpoint", f"192.0.2.{number}")
    return peer(f"p{number}", f"10.244.{number}.0/24", encapsulation=encapsulation, **fields)


def tunnels(own, *others, **fields):
    return make_tunnels(table(own, *others, **fields), own)


def test_there_is_a_tunnel_with_each_other_peer_in_the_order_of_the_file():
    own, others = a_peer(5), [a_peer(9), a_peer(2), a_peer(7)]

    made = tunnels(own, *others)

    assert [(name, tunnel.peer) for name, tunnel in made.items()] == [(each.name, each) for each in others]


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("wireguard", "192.0.2.2:51820"),
        ("udp", "192.0.2.2:8285"),
        ("ipip", "192.0.2.2"),
        ("gre", "192.0.2.2"),
        ("vxlan", "192.0.2.2:4789"),
        ("geneve", "192.0.2.2:6081"),
    ],
)
def test_a_tunnel_has_the_encapsulation_of_both_ends_and_an_endpoint_at_its_port(name, endpoint):
    tunnel = tunnels(a_peer(1, name), a_peer(2))["p2"]

    assert (tunnel.encapsulation, str(tunnel.endpoint)) == (ENCAPSULATIONS[name], endpoint)


@pytest.mark.parametrize("name", list(ENCAPSULATIONS))
@pytest.mark.parametrize("is_swapped", [False, True])
def test_both_ends_make_the_same_tunnel_each_from_its_side(name, is_swapped):
    a, b = a_peer(1, name, macs=(MAC,)), a_peer(2)
    one, other = (b, a) if is_swapped else (a, b)

    ours, theirs = tunnels(one, other, vni=9)[other.name], make_tunnels(table(a, b, vni=9), other)[one.name]

    assert ours.encapsulation is theirs.encapsulation is ENCAPSULATIONS[name]
    assert (ours.ends.identifier, ours.overheads) == (theirs.ends.identifier, theirs.overheads)
    assert (ours.ends.own_mac, ours.ends.mac) == (theirs.ends.mac, theirs.ends.own_mac)


def test_an_encrypted_tunnel_has_nothing_that_its_ends_would_have_to_agree_on():
    assert tunnels(a_peer(1), a_peer(2, macs=(MAC,)))["p2"].ends == Ends()


def test_a_tunnel_of_gre_has_what_either_end_names():
    both = {"gre_key": 7, "gre_checksum": True, "gre_sequence": True}

    made = tunnels(a_peer(1), a_peer(2, "gre", **both), a_peer(3, "gre"))

    ends = made["p2"].ends
    assert (ends.identifier, ends.has_checksum, ends.has_sequence) == (7, True, True)
    assert made["p3"].ends.identifier is None
    assert [made[name].overheads for name in ("p2", "p3")] == [{4: 36, 6: 56}, {4: 24, 6: 44}]


def test_with_a_tap_only_a_frame_under_encryption_adds_to_what_its_encapsulation_does():
    made = tunnels(a_peer(1), a_peer(2), a_peer(3, "geneve"), device="tap")

    assert made["p2"].overheads == {4: 96, 6: 96}
    assert made["p3"].overheads == overheads_of(ENCAPSULATIONS["geneve"], Ends(1), is_tap=False)


def test_with_a_tap_a_peer_in_the_clear_has_the_addresses_alone_that_are_written():
    made = tunnels(a_peer(1), a_peer(2), a_peer(3, "vxlan"), a_peer(4, "vxlan", macs=(MAC,)), device="tap")

    assert [made[name].macs for name in ("p2", "p3", "p4")] == [(derived_mac("p2"),), (), (MAC,)]
