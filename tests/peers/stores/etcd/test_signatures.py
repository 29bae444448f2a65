"""Only hosts that the administrator has signed take part."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.addresses import parse_prefix
from peers.stores.etcd import signatures
from peers.stores.etcd.commands import Commands
from peers.stores.etcd.layout import NodeValue, format_key
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.messages import KeyValue
from peers.stores.etcd.signatures import JoinToken, SigningKey, Trust
from tests.peers.examples import key

ADMIN, OTHER = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
RUN = Commands(EtcdLocation.parse("etcd", "//10.0.0.5:2379/office"))
SUBNET = parse_prefix("10.244.7.0/24")
PARIS = NodeValue("paris", key("paris"), (SUBNET,), "0" * 32)
TOKEN = JoinToken(SigningKey(b"\x03" * 32), 2_000_000_000)


def objection(value, *kept, node=PARIS):
    trust = Trust(ADMIN.public, "office", RUN)
    names = [node, *(NodeValue(name, key(name), (SUBNET,), "0" * 32) for name in ("b", "c"))]
    rows = zip(names, (value, *kept), strict=False)
    trust.learn(
        {
            format_key(each.public_key): KeyValue(b"", data, created)
            for created, (each, data) in enumerate(rows)
            if data is not None
        }
    )
    return trust.objection(node)


def test_public_key_of_the_specification_comes_from_its_seed():
    """RFC 8032 section 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

    assert SigningKey(seed).public.hex() == public


def test_node_is_trusted_if_the_administrator_vouches_for_it():
    assert objection(signatures.vouch(ADMIN, "office", PARIS.public_key, "paris", SUBNET)) is None
    assert objection(signatures.vouch(ADMIN, "office", PARIS.public_key)) is None
    assert "is not enrolled" in objection(None)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (signatures.vouch(OTHER, "office", PARIS.public_key, "paris"), "wrong signature"),
        (signatures.vouch(ADMIN, "home", PARIS.public_key, "paris"), "wrong signature"),
        (signatures.vouch(ADMIN, "office", key("tokyo"), "paris"), "wrong signature"),
        (signatures.vouch(ADMIN, "office", PARIS.public_key, "tokyo"), "enrolled as tokyo"),
        (
            signatures.vouch(ADMIN, "office", PARIS.public_key, "paris", parse_prefix("10.244.8.0/24")),
            "enrolled with 10.244.8.0/24",
        ),
        (b"{}", "wrong signature"),
        (b"\xff", "wrong signature"),
    ],
)
def test_wrong_vouching_is_none(value, said):
    assert said in objection(value)


@pytest.mark.parametrize(
    "change", [{"name": "tokyo"}, {"name": None}, {"subnet": None}, {"subnet": "10.244.9.0/24"}]
)
def test_vouching_that_was_changed_is_wrong(change):
    value = json.loads(signatures.vouch(ADMIN, "office", PARIS.public_key, "paris", SUBNET))

    assert "wrong signature" in objection(json.dumps(value | change).encode())


def by_token(token=TOKEN, admin=ADMIN, network="office", node=PARIS, key=None):
    kept = token.value(admin, network)
    return signatures.vouch_by_token(key or token.key, kept, network, node.public_key, node.name)


def test_token_vouches_for_one_node():
    first = by_token()
    assert objection(first) is None
    second = by_token(node=NodeValue("b", key("b"), (SUBNET,), "0" * 32))
    assert objection(first, second) is None
    trust = Trust(ADMIN.public, "office", RUN)
    trust.learn(
        {
            format_key(key("b")): KeyValue(b"", second, 1),
            format_key(PARIS.public_key): KeyValue(b"", first, 2),
        }
    )
    assert trust.objection(PARIS) == "its join token has served another node"


@pytest.mark.parametrize("name", [format_key(key("b")), "rubbish", format_key(bytes(32))])
@pytest.mark.parametrize("change", [{}, {"signature": "rubbish"}, {"name": "b"}])
def test_who_names_a_token_without_having_it_does_not_use_it_up(name, change):
    """Before, its public half was in etcd; the first key that named it counted as the node that it served."""
    trust = Trust(ADMIN.public, "office", RUN)
    copied = json.dumps(json.loads(by_token()) | change).encode()
    genuine = KeyValue(b"", by_token(), 2)

    trust.learn({name: KeyValue(b"", copied, 1), format_key(PARIS.public_key): genuine})

    assert trust.objection(PARIS) is None


@pytest.mark.parametrize(
    "value",
    [
        by_token(admin=OTHER),
        by_token(network="home"),
        by_token(key=OTHER),
        by_token(JoinToken(TOKEN.key, 2_000_000_000, "tokyo")),
        json.dumps(
            json.loads(by_token()) | {"token": json.loads(by_token())["token"] | {"expires": 3_000_000_000}}
        ).encode(),
        json.dumps(json.loads(by_token()) | {"token": 7}).encode(),
    ],
)
def test_token_that_the_administrator_did_not_make_so_is_none(value):
    assert "wrong signature" in objection(value)


@pytest.mark.parametrize("name", ["token", "name", "subnet", "expires", "key", "signature"])
@pytest.mark.parametrize("wrong", [[], {}, ["paris"], {"a": []}, 7, 1.5, True, "\ud800", "\x1b[2J"])
def test_vouching_by_a_token_with_any_value_in_any_place_is_none(name, wrong):
    """Before, a list as the token's name ended every agent: it was looked up in a set."""
    found = json.loads(by_token())
    place = found if name == "token" else found["token"]
    place[name] = wrong

    assert "wrong signature" in objection(json.dumps(found).encode())


def test_what_vouched_once_is_forgotten():
    trust = Trust(ADMIN.public, "office", RUN)
    for number in range(100):
        kept = json.dumps({"signature": number}).encode()
        trust.learn({format_key(PARIS.public_key): KeyValue(b"", kept, number)})
        trust.objection(PARIS)

    assert len(trust._known) == 1


def test_token_is_read_as_it_was_printed_and_its_errors_do_not_repeat_it():
    assert JoinToken.read_key(f" {TOKEN.format()}\n").public == TOKEN.key.public
    with pytest.raises(ValueError, match="is not a join token") as caught:
        JoinToken.read_key(TOKEN.format()[:-1])
    assert TOKEN.format()[20:40] not in str(caught.value)
    assert signatures.expiry_of(TOKEN.value(ADMIN, "office")) == (2_000_000_000, None)


def test_secrets_do_not_show():
    assert ADMIN.format() not in repr(ADMIN)
    assert ADMIN.format() not in repr(TOKEN)
    assert SigningKey.parse(ADMIN.format()).public == ADMIN.public


def test_document_is_trusted_if_it_is_the_administrators_and_no_earlier_one():
    trust = Trust(ADMIN.public, "office", RUN)
    one, two = (signatures.sign_document(ADMIN, "office", number, "text") for number in (1, 2))

    assert trust.document_objection("text", one) is None
    assert "is not that of the administrator" in trust.document_objection("other", two)
    assert "is not that" in trust.document_objection(
        "text", signatures.sign_document(OTHER, "office", 9, "text")
    )
    assert "is not signed" in trust.document_objection("text", None)
    assert "signature is none" in trust.document_objection("text", b"x")
    assert trust.document_objection("text", two) is None
    assert "is an earlier one (number 1, after number 2)" in trust.document_objection("text", one)
    assert signatures.serial_of(two) == 2
    assert signatures.serial_of(b"x") == signatures.serial_of(None) == 0


@given(st.binary(max_size=300))
def test_any_value_vouches_for_nobody(data):
    assert objection(data) is not None
    assert Trust(ADMIN.public, "office", RUN).document_objection("text", data) is not None
