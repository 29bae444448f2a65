"""Who takes part: contradictions are resolved identically on every host, in whatever order the keys arrive."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.addresses import parse_prefix
from peers.sections import TableReader
from peers.stores.etcd.document import read_document
from peers.stores.etcd.layout import Keys, NodeValue
from peers.stores.etcd.members import Own, compose, describe_left_out, name_for, read_members
from peers.stores.etcd.messages import KeyValue
from peers.stores.membership import OwnKeys
from peers.stores.remark import StoreRemark
from tests.hostile_names import NAMES
from tests.peers.examples import key, key_text

KEYS, PATH = Keys("office"), Path("/overlay/office/config")
NETWORK = '[network]\nprefix = "10.244.0.0/16"\n'


def node(name, *subnets, created=1, public_key=None, endpoint="192.0.2.1"):
    value = NodeValue(
        name,
        public_key or key(name),
        tuple(map(parse_prefix, subnets)),
        "0" * 32,
        (endpoint,) if endpoint else (),
    )
    return KeyValue(KEYS.node(value.subnets[0]), value.build(), created, created, 1, 0)


def read(kvs, text=NETWORK, own=None, departed=()):
    document = read_document(text, PATH)
    members = read_members(KEYS, kvs, document)
    table = TableReader(PATH, has_directory=False).parse(compose(document, members, own, departed))
    return members, {name: list(map(str, peer.subnets)) for name, peer in table.peers.items()}


def test_earlier_key_keeps_what_two_claim():
    kvs = [node("late", "10.244.7.0/25", created=9), node("early", "10.244.7.0/24", created=3)]

    members, peers = read(kvs)

    assert peers == {"early": ["10.244.7.0/24"]}
    assert list(map(str, members.left_out)) == [
        "the node late (10.244.7.0/25) is left out: 10.244.7.0/25 overlaps a prefix of the node early",
    ]


@pytest.mark.parametrize("field", ["name", "endpoints", "encapsulation", "subnets", "instance", "public_key"])
@pytest.mark.parametrize("text", NAMES.values(), ids=NAMES.keys())
def test_what_a_member_writes_for_a_name_gets_no_further_than_a_short_plain_remark(field, text):
    good, bad = node("good", "10.244.1.0/24"), node("bad", "10.244.2.0/24", created=2)
    value = json.loads(bad.value) | {field: [text] if field in {"endpoints", "subnets"} else text}

    members, peers = read([good, replace(bad, value=json.dumps(value).encode())])

    assert peers.keys() <= {"good", "bad"}
    assert peers["good"] == ["10.244.1.0/24"]
    assert field == "instance" or peers.keys() == {"good"}
    for each in map(str, describe_left_out(members.left_out)):
        assert each.isprintable()
        assert len(each) < 300


@pytest.mark.parametrize("text", NAMES.values(), ids=NAMES.keys())
def test_name_of_a_key_that_anybody_may_write_is_shown_harmless(text):
    kv = KeyValue(b"/overlay/office/nodes/" + text.encode(), b"{}", 1, 1, 1, 0)

    members, peers = read([node("good", "10.244.1.0/24"), kv])

    assert peers.keys() == {"good"}
    for remark in map(str, describe_left_out(members.left_out)):  # none for a key that no node can have
        assert remark.isprintable()
        assert len(remark) < 300


def test_wider_subnet_that_came_later_is_left_out():
    _, peers = read([node("early", "10.244.7.0/25", created=3), node("late", "10.244.0.0/17", created=9)])

    assert peers == {"early": ["10.244.7.0/25"]}


def test_document_comes_before_nodes():
    text = NETWORK + f'[peers.router]\npublic_key = "{key_text("router")}"\nsubnets = ["10.244.7.0/24"]\n'
    members, peers = read([node("paris", "10.244.7.0/24"), node("router", "10.244.8.0/24")], text)

    assert peers == {"router": ["10.244.7.0/24"]}
    assert "overlaps a prefix of peers.router" in str(members.left_out[0])
    assert "its public key is that of peers.router in the document" in str(members.left_out[1])


def test_one_key_pair_with_two_subnets_is_one_peer():
    kvs = [node("paris", "10.244.7.0/24"), node("paris", "10.244.8.0/24", created=2)]

    assert read(kvs)[1] == {"paris": ["10.244.7.0/24", "10.244.8.0/24"]}


def test_second_host_of_a_name_gets_its_subnet_behind_it():
    kvs = [node("paris", "10.244.7.0/24"), node("paris", "10.244.8.0/24", created=2, public_key=key("x"))]

    members, peers = read(kvs)

    assert peers == {"paris": ["10.244.7.0/24"], "paris-10.244.8.0": ["10.244.8.0/24"]}
    document = read_document(NETWORK, PATH)
    assert (
        name_for(
            members.everybody[1].value, OwnKeys(members.everybody[1].value.public_key), members, document
        )
        == "paris-10.244.8.0"
    )
    assert (
        name_for(
            members.everybody[0].value, OwnKeys(members.everybody[0].value.public_key), members, document
        )
        == "paris-10.244.7.0"
    )


def test_host_that_calls_itself_what_another_would_be_called_is_not_taken_for_it():
    kvs = [
        node("paris", "10.244.7.0/24"),
        node("paris-10.244.8.0", "10.244.9.0/24", created=2),
        node("paris", "10.244.8.0/24", created=3, public_key=key("x")),
    ]

    assert read(kvs)[1] == {
        "paris": ["10.244.7.0/24"],
        "paris-10.244.8.0": ["10.244.9.0/24"],
        "paris-2": ["10.244.8.0/24"],
    }


def test_own_subnet_is_what_this_host_says_and_not_what_etcd_has():
    own = Own("paris", OwnKeys(key("paris")), key("paris"), (parse_prefix("10.244.9.0/24"),))

    assert read([node("paris", "10.244.7.0/24")], own=own)[1] == {"paris": ["10.244.9.0/24"]}
    taken = read([node("tokyo", "10.244.9.0/24")], own=own)[1]
    assert taken == {"paris": [], "tokyo": ["10.244.9.0/24"]}


def test_own_name_that_the_document_has_is_another():
    text = NETWORK + f'[peers.paris]\npublic_key = "{key_text("router")}"\nsubnets = ["10.244.7.0/24"]\n'
    own = Own("paris", OwnKeys(key("x")), key("x"), (parse_prefix("10.244.9.0/24"),))

    assert sorted(read([], text, own)[1].values()) == [["10.244.7.0/24"], ["10.244.9.0/24"]]


def test_departed_keeps_its_address_unless_another_has_it():
    gone = NodeValue.parse("10.244.7.0-24", node("rome", "10.244.7.0/24").value)

    assert read([node("paris", "10.244.8.0/24")], departed=[gone])[1]["rome"] == []
    assert "rome" not in read([node("paris", "10.244.7.0/24")], departed=[gone])[1]


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b"[" * 100])
def test_garbage_is_left_out_and_told(value):
    kvs = [
        KeyValue(KEYS / "nodes/10.244.7.0-24", value),
        KeyValue(KEYS / "reserved/x", value),
        node("a", "10.244.8.0/24"),
    ]

    members, peers = read(kvs)

    assert peers == {"a": ["10.244.8.0/24"]}
    assert len(members.left_out) == 2


def test_a_few_of_many_are_told():
    assert describe_left_out(tuple("abcdefgh")) == [*"abcde", StoreRemark("and 3 more are left out")]


SUBNETS = st.integers(0, 15).flatmap(
    lambda number: st.sampled_from(
        [f"10.244.{number}.0/24", f"10.244.{number & 12}.0/22", f"10.244.{number}.128/25"]
    )
)
CLAIMS = st.lists(
    st.tuples(st.sampled_from("abcdef"), SUBNETS, st.integers(1, 9), st.sampled_from("uvwxyz")), max_size=10
)


@given(CLAIMS, st.randoms())
def test_any_claims_make_a_table_that_is_the_same_everywhere(claims, chance):
    by_key = {}
    for name, subnet, created, owner in claims:
        kv = node(name, subnet, created=created, public_key=key(owner))
        by_key[kv.key] = kv
    kvs = list(by_key.values())
    before = read(kvs)[1] if kvs else {}
    chance.shuffle(kvs)

    if kvs:
        after = read(kvs)[1]
        assert after == before
