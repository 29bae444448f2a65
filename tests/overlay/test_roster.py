from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.encap.encapsulation import Ends
from overlay.link.messages import OWN, ROUTES_PER_MESSAGE, RemovePeer, Routes, SetPeer
from overlay.roster import Roster
from peers.mac import derived_mac
from tests.models import SlowForwarder
from tests.peers.examples import key, peer, table

PRIVATE = PrivateKey(bytes(range(32)))


def node(*peers, preshared_keys=None, **fields):
    """Return the node that is the first of *peers*."""
    return Node(PRIVATE, table(*peers, **fields), peers[0], preshared_keys or {})


NAMES = ("ann", "bob", "cyd", "dan")
POOL = [ip_network(f"10.244.{number}.0/24") for number in range(6)]
POOL += [ip_network("10.244.0.0/16"), ip_network("192.168.0.0/16"), ip_network("0.0.0.0/0")]
POOL += [ip_network(f"fd00:244:{number}::/48") for number in range(3)]


@st.composite
def nodes(draw):
    """Draw the node ``own`` among some peers that divide a pool of prefixes and keys."""
    names = ("own", *draw(st.lists(st.sampled_from(NAMES), unique=True)))
    owners = draw(st.lists(st.sampled_from((*names, None)), min_size=len(POOL), max_size=len(POOL)))
    keys = draw(st.permutations(NAMES))
    peers = [
        peer(
            name,
            *[str(prefix) for prefix, owner in zip(POOL, owners, strict=True) if owner == name],
            address=(f"10.9.0.{number}",),
            public_key=key("own" if name == "own" else keys[NAMES.index(name)]),
            keepalive=draw(st.sampled_from((0, 25))),
            endpoint=draw(st.sampled_from((None, "192.0.2.1", "example.net"))),
        )
        for number, name in enumerate(names, 1)
    ]
    preshared = draw(st.dictionaries(st.sampled_from(names[1:] or ("none",)), st.sampled_from((b"a", b"b"))))
    return node(*peers, preshared_keys=preshared)


@given(st.lists(nodes(), min_size=1, max_size=6))
def test_commands_always_give_the_forwarder_exactly_the_table_in_force(tables):
    roster, forwarder = Roster(), SlowForwarder()

    for each in tables:
        forwarder.take(roster.change_to(each).commands)

        assert forwarder.named(roster, each.own.name) == dict(each.table.routes)
        assert forwarder.keepalives == {
            remote.number: remote.peer.keepalive for remote in roster.by_number.values()
        }
        assert {name: remote.peer for name, remote in roster.by_name.items()} == {
            other.name: other for other in each.others
        }


@given(st.lists(nodes(), min_size=1, max_size=4))
def test_forwarder_that_starts_late_is_told_the_same_as_one_that_was_there(tables):
    roster, there, late = Roster(), SlowForwarder(), SlowForwarder()
    for each in tables:
        there.take(roster.change_to(each).commands)

    late.take(roster.everything())

    assert (late.in_force, late.keepalives) == (there.in_force, there.keepalives)


@given(st.lists(nodes(), min_size=1, max_size=6))
def test_number_is_one_key_until_that_is_replaced_by_one_of_nobody(tables):
    roster, keys, before = Roster(), {}, set()

    for each in tables:
        change = roster.change_to(each)

        for remote in change.added:
            assert remote.number not in keys
        after = {peer.public_key for peer in each.table.peers.values()}
        for remote in change.new_public_key:
            assert remote.peer.public_key not in before
            assert keys.pop(remote.number) not in after
        for number, remote in roster.by_number.items():
            assert keys.setdefault(number, remote.peer.public_key) == remote.peer.public_key
            assert remote.number == number != OWN
        before = after
        assert not set(change.removed) & set(roster.by_name.values())


@given(nodes(), nodes())
def test_nothing_is_told_when_nothing_changed(before, after):
    roster = Roster()
    roster.change_to(before)
    roster.change_to(after)

    change = roster.change_to(after)

    assert (change.commands, change.added, change.removed) == ([], [], [])
    assert (change.new_endpoint, change.new_preshared_key, change.new_public_key) == ([], [], [])


@given(nodes(), nodes())
def test_what_is_not_a_prefix_is_reported_once_for_each_peer_that_stays(before, after):
    roster = Roster()
    roster.change_to(before)
    numbers = {name: remote.number for name, remote in roster.by_name.items()}

    change = roster.change_to(after)

    stayed = {
        name
        for name, number in numbers.items()
        if name in after.table.peers and roster.by_name[name].number == number
    }
    assert {remote.peer.name for remote in change.removed} == numbers.keys() - stayed
    assert {remote.peer.name for remote in change.added} == roster.by_name.keys() - stayed
    assert {remote.peer.name for remote in change.new_endpoint} == {
        name for name in stayed if before.table.peers[name].endpoint != after.table.peers[name].endpoint
    }
    assert {remote.peer.name for remote in change.new_preshared_key} == {
        name for name in stayed if before.preshared_keys.get(name) != after.preshared_keys.get(name)
    }
    for name, remote in roster.by_name.items():
        assert remote.preshared_key == after.preshared_keys.get(name)


def test_replaced_public_key_is_the_same_peer():
    roster = Roster()
    own, tokyo = peer("paris", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24")
    (remote,) = roster.change_to(node(own, tokyo)).added
    remote.heard_at = remote.endpoint = ("192.0.2.9", 4500)

    change = roster.change_to(node(own, peer("tokyo", "10.244.2.0/24", public_key=key("another"))))

    assert (change.new_public_key, change.added, change.removed, change.commands) == ([remote], [], [], [])
    assert (remote.peer.public_key, remote.endpoint) == (key("another"), ("192.0.2.9", 4500))


def test_another_public_key_at_another_endpoint_is_another_peer():
    roster = Roster()
    own, tokyo = peer("paris", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24")
    (first,) = roster.change_to(node(own, tokyo)).added

    change = roster.change_to(
        node(own, peer("tokyo", "10.244.2.0/24", public_key=key("another"), endpoint="192.0.2.1"))
    )

    (second,) = change.added
    assert change.removed == [first]
    assert second.number != first.number
    packed = ip_network("10.244.2.0/24").network_address.packed
    assert change.commands == [
        SetPeer(second.number, 0.0),
        Routes([(packed, 24, second.number)], [], True),
        RemovePeer(first.number),
    ]


def test_peers_that_swap_their_names_swap_their_numbers_for_new_ones():
    roster = Roster()
    own = peer("paris", "10.244.1.0/24")
    roster.change_to(node(own, peer("a", "10.244.2.0/24"), peer("b", "10.244.3.0/24")))

    change = roster.change_to(
        node(
            own,
            peer("a", "10.244.2.0/24", public_key=key("b")),
            peer("b", "10.244.3.0/24", public_key=key("a")),
        )
    )

    assert sorted(remote.number for remote in change.removed) == [1, 2]
    assert sorted(remote.number for remote in change.added) == [3, 4]


def test_unchanged_peer_keeps_its_number_its_endpoint_and_what_was_resolved():
    roster = Roster()
    own, tokyo = peer("paris", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24", endpoint="example.net")
    (remote,) = roster.change_to(node(own, tokyo)).added
    remote.endpoint = remote.heard_at = ("192.0.2.9", 4500)
    remote.resolved = (("192.0.2.10", 51820),)

    roster.change_to(node(own, peer("tokyo", "10.244.9.0/24", endpoint="example.net", keepalive=25)))

    assert roster.by_name["tokyo"] is remote
    assert (remote.endpoint, remote.resolved) == (("192.0.2.9", 4500), (("192.0.2.10", 51820),))


def test_why_a_name_was_not_found_is_forgotten_with_the_name():
    """Before, it remained, so a reload with that name was ignored, and it was shown for an address that replaced it."""
    own, roster = peer("own", address=("10.9.0.1",)), Roster()
    roster.change_to(node(own, peer("ann", address=("10.9.0.2",), endpoint="ann.example.net")))
    ann = roster.by_name["ann"]
    ann.resolve_error = "ann.example.net was not resolved"

    roster.change_to(node(own, peer("ann", address=("10.9.0.2",), endpoint="ann.example.net", keepalive=25)))
    assert ann.resolve_error is not None
    roster.change_to(node(own, peer("ann", address=("10.9.0.2",), endpoint="192.0.2.1")))
    assert ann.resolve_error is None


def test_prefix_that_moves_to_another_peer_is_replaced_in_one_step():
    roster = Roster()
    own = peer("paris", "10.244.1.0/24")
    ann, bob = peer("ann", "10.244.2.0/24"), peer("bob", "10.244.3.0/24", "10.244.4.0/24")
    roster.change_to(node(own, ann, bob))

    change = roster.change_to(
        node(own, peer("ann", "10.244.2.0/24", "10.244.4.0/24"), peer("bob", "10.244.3.0/24"))
    )

    packed = ip_network("10.244.4.0/24").network_address.packed
    assert change.commands == [Routes([(packed, 24, roster.by_name["ann"].number)], [], True)]


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1000, 2500])
def test_large_change_crosses_in_pieces_of_500_and_comes_into_force_with_the_last(count):
    roster, forwarder = Roster(), SlowForwarder()
    own = peer("paris", "10.244.1.0/24")
    subnets = [f"172.{number >> 8}.{number & 255}.0/24" for number in range(count)]
    others = [f"173.{number >> 8}.{number & 255}.0/24" for number in range(count)]
    roster.change_to(node(own))
    forwarder.take(roster.everything())

    first = roster.change_to(node(own, peer("tokyo", *subnets))).commands
    second = roster.change_to(node(own, peer("tokyo", *others))).commands
    forwarder.take(first + second)

    for commands in (first, second):
        pieces = [command for command in commands if isinstance(command, Routes)]
        assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert max(len(piece.add) + len(piece.remove) for piece in pieces) <= ROUTES_PER_MESSAGE
    assert len(forwarder.in_force) == count + 1


def test_endpoints_are_all_that_is_known_of_each_peer():
    roster = Roster()
    cities = node(
        peer("paris", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24"), peer("rome", "10.244.3.0/24")
    )
    roster.change_to(cities)
    tokyo = roster.by_name["tokyo"]
    tokyo.endpoint = tokyo.heard_at = ("192.0.2.9", 4500)
    tokyo.resolved = (("192.0.2.10", 51820), ("2001:db8::10", 51820, 0, 0))

    assert set(roster.endpoints(cities)) == {
        ("tokyo", ("192.0.2.9", 4500)),
        ("tokyo", ("192.0.2.10", 51820)),
        ("tokyo", ("2001:db8::10", 51820, 0, 0)),
    }


@pytest.mark.parametrize(
    ("endpoint", "known"),
    [
        ("bob.example.net", {("192.0.2.9", 4500), ("192.0.2.8", 51820)}),
        ("bob.example.net:4500", {("192.0.2.8", 4500)}),
        ("other.example.net", set()),
        ("192.0.2.7", set()),
        (None, {("192.0.2.9", 4500), ("192.0.2.8", 51820)}),  # it stays where it was last heard
    ],
)
def test_endpoints_of_a_peer_that_another_table_has_elsewhere_do_not_count_for_that(endpoint, known):
    roster, own = Roster(), peer("own", "10.244.1.0/24")
    roster.change_to(node(own, peer("bob", "10.244.2.0/24", endpoint="bob.example.net")))
    bob = roster.by_name["bob"]
    bob.endpoint = bob.heard_at = ("192.0.2.9", 4500)
    bob.resolved = (("192.0.2.8", 51820),)

    wanted = node(own, peer("bob", "10.244.2.0/24", endpoint=endpoint))

    assert {sockaddr for _, sockaddr in roster.endpoints(wanted)} == known
    assert set(roster.endpoints(node(own))) == set()


def test_preshared_key_does_not_show_in_a_remote():
    roster = Roster()

    roster.change_to(
        node(
            peer("paris", "10.244.1.0/24"),
            peer("tokyo", "10.244.2.0/24"),
            preshared_keys={"tokyo": b"secret"},
        )
    )

    assert "secret" not in repr(roster.by_name["tokyo"])


def in_the_clear(**fields):
    return peer("bob", "10.244.2.0/24", endpoint="192.0.2.2", **fields)


def test_a_peer_in_the_clear_has_no_keepalive_and_has_its_sources():
    bob = in_the_clear(encapsulation="udp", keepalive=25, sources=(ip_network("0.0.0.0/0"),))

    (command,) = [
        each
        for each in Roster().change_to(node(peer("own", "10.244.1.0/24"), bob)).commands
        if isinstance(each, SetPeer)
    ]

    assert command == SetPeer(
        1, 0.0, "udp", [(bytes(4), 0)], Ends(None, derived_mac("own"), derived_mac("bob"))
    )


def test_other_sources_are_told_for_the_peer_as_it_is():
    roster, own = Roster(), peer("own", "10.244.1.0/24")
    roster.change_to(node(own, in_the_clear(encapsulation="udp")))

    changed = roster.change_to(
        node(own, in_the_clear(encapsulation="udp", sources=(ip_network("10.0.0.0/8"),)))
    )

    assert changed.commands == [
        SetPeer(
            1, 0.0, "udp", [(bytes([10, 0, 0, 0]), 8)], Ends(None, derived_mac("own"), derived_mac("bob"))
        )
    ]


def test_a_peer_of_another_encapsulation_is_another_peer_at_its_port():
    roster, own = Roster(), peer("own", "10.244.1.0/24", endpoint="192.0.2.1")
    roster.change_to(node(own, in_the_clear(encapsulation="udp")))

    change = roster.change_to(node(own, in_the_clear()))

    assert [each.number for each in change.removed] == [1]
    assert [(each.number, each.encapsulation.name) for each in change.added] == [(2, "wireguard")]
    assert RemovePeer(1) in change.commands
    assert SetPeer(2, 0.0) in change.commands


@pytest.mark.parametrize(
    ("last", "endpoint"),
    [
        (("192.0.2.8", 51820), ("192.0.2.8", 8285)),
        (("2001:db8::8", 51820, 0, 3), ("2001:db8::8", 8285, 0, 3)),
        (("203.0.113.9", 4500), ("192.0.2.8", 8285)),  # heard there, which has no meaning without encryption
    ],
)
def test_a_peer_of_another_encapsulation_is_still_where_its_name_was_resolved_to(last, endpoint):
    roster, named = Roster(), peer("bob", "10.244.2.0/24", endpoint="bob.example.net")
    (bob,) = roster.change_to(node(peer("own", "10.244.1.0/24"), named)).added
    bob.resolved = (("192.0.2.8", 51820), ("2001:db8::8", 51820, 0, 3))
    bob.endpoint = last

    own = peer("own", "10.244.1.0/24", encapsulation="udp", endpoint="192.0.2.1")
    (bob,) = roster.change_to(node(own, named)).added

    assert bob.resolved == (("192.0.2.8", 8285), ("2001:db8::8", 8285, 0, 3))
    assert (bob.endpoint, bob.heard_at) == (endpoint, None)


def test_a_peer_of_another_encapsulation_with_another_name_is_nowhere_yet():
    roster, own = Roster(), peer("own", "10.244.1.0/24", endpoint="192.0.2.1")
    (bob,) = roster.change_to(node(own, peer("bob", "10.244.2.0/24", endpoint="bob.example.net"))).added
    bob.resolved = (("192.0.2.8", 51820),)
    bob.endpoint = bob.resolved[0]

    moved = peer("bob", "10.244.2.0/24", encapsulation="udp", endpoint="other.example.net")
    (bob,) = roster.change_to(node(own, moved)).added

    assert (bob.resolved, bob.endpoint) == ((), None)


def test_the_endpoint_of_a_tunnel_has_the_port_of_its_encapsulation():
    roster = Roster()
    own = peer("own", "10.244.1.0/24", endpoint="192.0.2.1", encapsulation="udp")

    (bob,) = roster.change_to(node(own, in_the_clear())).added

    assert str(bob.configured) == "192.0.2.2:8285"


def test_with_a_tap_the_ethernet_addresses_of_a_peer_are_told_and_told_again_when_they_change():
    roster, own = Roster(), peer("own", address=("10.244.0.1",))
    first, second = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
    at = [ip_address("10.244.0.2").packed]
    changes = [
        roster.change_to(node(own, peer("bob", **fields), device="tap")).commands
        for fields in (
            {"address": ("10.244.0.2",)},
            {"address": ("10.244.0.2",), "macs": (first, second)},
            {"address": ("10.244.0.2",), "macs": (first, second)},
            {"macs": (first,)},
        )
    ]

    assert [[each for each in commands if isinstance(each, SetPeer)] for commands in changes] == [
        [SetPeer(1, 0.0, macs=[derived_mac("bob")], addresses=at)],
        [SetPeer(1, 0.0, macs=[first, second], addresses=at)],
        [],
        [SetPeer(1, 0.0, macs=[first])],
    ]


def test_with_a_tun_nothing_is_told_of_ethernet():
    bob = peer("bob", "10.244.2.0/24", macs=(b"\2\0\0\0\0\1",))

    assert SetPeer(1, 0.0) in Roster().change_to(node(peer("own", "10.244.1.0/24"), bob)).commands


def test_what_is_foreseen_changes_nothing_until_it_is_taken():
    own, tokyo = peer("own", "10.244.1.0/24"), peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2")
    roster = Roster()
    roster.change_to(node(own, tokyo))
    (before,) = roster.by_number.values()
    told = list(roster.everything())

    prospect = roster.foresee(
        node(
            own,
            peer("tokyo", "10.244.9.0/24", endpoint="192.0.2.9", keepalive=25),
            peer("oslo", "10.244.7.0/24"),
        )
    )

    assert list(roster.by_number.values()) == [before]
    assert (before.peer, list(roster.everything())) == (tokyo, told)
    roster.take(prospect)
    assert (before.peer.keepalive, str(before.configured)) == (25, "192.0.2.9:51820")
    assert list(roster.by_name) == ["tokyo", "oslo"]


def test_peers_that_are_the_same_objects_are_not_looked_at():
    own, crowd = peer("own", "10.244.1.0/24"), [peer(f"n{at}", f"10.244.{at}.0/24") for at in range(2, 200)]
    roster = Roster()
    roster.change_to(node(own, *crowd))
    changed = peer("n9", "10.244.9.0/24", "192.168.9.0/24")

    prospect = roster.foresee(node(own, *(changed if each.name == "n9" else each for each in crowd)))
    change = roster.take(prospect)

    assert [update.remote.peer.name for update in prospect.updates] == ["n9"]
    assert [type(command) for command in change.commands] == [Routes]
    assert len(change.commands[0].add) == 1


def test_another_network_is_another_matter_for_every_peer():
    own = peer("own", "10.244.1.0/24", endpoint="192.0.2.1")
    tokyo = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2")
    roster = Roster()
    roster.change_to(node(own, tokyo))

    change = roster.change_to(node(own, tokyo, encapsulation="udp"))

    assert [remote.peer for remote in change.removed] == [tokyo]
    assert [remote.encapsulation.name for remote in change.added] == ["udp"]
