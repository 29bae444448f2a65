from __future__ import annotations

import pytest

from peers import gre
from peers.errors import KeyProblem
from peers.peer import Network
from tests.peers.examples import PREFIXES, peer, table


def a_peer(number, encapsulation=None, **fields):
    return peer(
        f"p{number}",
        f"10.244.{number}.0/24",
        endpoint=f"192.0.2.{number}",
        encapsulation=encapsulation,
        **fields,
    )


@pytest.mark.parametrize("key", ["gre_checksum", "gre_sequence"])
@pytest.mark.parametrize(
    ("one", "other", "network", "expected"),
    [
        (None, None, None, False),
        (True, None, None, True),
        (None, True, False, True),
        (None, None, True, True),
        (None, False, True, False),
        (False, False, True, False),
    ],
)
def test_both_ends_compute_the_same(key, one, other, network, expected):
    a, b = a_peer(1, "gre", **{key: one}), a_peer(2, "gre", **{key: other})
    between = {"gre_checksum": gre.has_checksum, "gre_sequence": gre.has_sequence}

    for name, has in between.items():
        found = {has(Network(PREFIXES, **{key: network}), *pair) for pair in ((a, b), (b, a))}
        assert found == {expected and name == key}


def test_a_tunnel_of_another_encapsulation_has_neither():
    a, b = a_peer(1, "udp"), a_peer(2)
    network = Network(PREFIXES, encapsulation="gre", gre_checksum=True, gre_sequence=True)

    assert not gre.has_checksum(network, a, b)
    assert not gre.has_sequence(network, a, b)


@pytest.mark.parametrize(
    ("key", "one", "other", "words"),
    [
        ("gre_checksum", True, False, "is false and that of peers.p1 is true, but the tunnel between them"),
        ("gre_sequence", False, True, "is true and that of peers.p1 is false, but the tunnel between them"),
        ("gre_key", 7, 8, "is 8 and that of peers.p1 is 7, but the tunnel between them"),
    ],
)
def test_two_values_for_one_tunnel_are_refused(key, one, other, words):
    with pytest.raises(KeyProblem, match=words) as raised:
        table(a_peer(1, "gre", **{key: one}), a_peer(2, "gre", **{key: other}))

    assert raised.value.keys == ("peers", "p2", key)


@pytest.mark.parametrize(("key", "value"), [("gre_checksum", True), ("gre_sequence", False), ("gre_key", 7)])
def test_what_no_tunnel_has_is_refused(key, value):
    with pytest.raises(KeyProblem, match="no peer uses gre") as raised:
        table(a_peer(1), a_peer(2), **{key: value})
    assert raised.value.keys == ("network", key)

    with pytest.raises(KeyProblem, match="has no effect, because the encapsulation is udp") as raised:
        table(a_peer(1, "udp", **{key: value}), a_peer(2, "gre"))
    assert raised.value.keys == ("peers", "p1", key)
