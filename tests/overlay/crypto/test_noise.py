from __future__ import annotations

import os

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto import noise
from overlay.crypto.keys import PrivateKey
from overlay.errors import PacketError
from overlay.wire.messages import Initiation, Response
from tests.overlay.crypto.models import SlowNode, slow_kdf, slow_mac1
from tests.overlay.crypto.vectors import unhex, vectors
from tests.refusals import refused

A, B = PrivateKey(b"a" * 32), PrivateKey(b"b" * 32)
SECRET = A.exchange(B.public)
STAMP = bytes.fromhex("400000006000000a00000000")
NO_PSK = noise.NO_PRESHARED_KEY

secrets = st.binary(min_size=32, max_size=32)
psks = st.one_of(st.just(NO_PSK), secrets)
indices = st.integers(0, 2**32 - 1)
stamps = st.binary(min_size=12, max_size=12)


def begin(entropy=os.urandom):
    return noise.create_initiation(
        static=A,
        responder_public=B.public,
        static_secret=SECRET,
        timestamp=STAMP,
        sender_index=1,
        entropy=entropy,
    )


def opened(message):
    return noise.open_timestamp(noise.open_static(B, message), SECRET)


def respond(message, psk=NO_PSK, entropy=os.urandom):
    return noise.create_response(opened(message), preshared_key=psk, sender_index=2, entropy=entropy)


def finish(state, response, psk=NO_PSK):
    return noise.consume_response(state, response, static=A, preshared_key=psk)


def with_mac1(message, receiver):
    body = message.build()[:-32]
    return body + slow_mac1(receiver.public, body) + bytes(16)


@given(secrets, secrets, secrets, secrets, psks, indices, indices, stamps)
def test_both_roles_agree_byte_for_byte_with_the_whitepaper_s_formulas(s_i, s_r, e_i, e_r, psk, i, r, stamp):
    initiator, responder = PrivateKey(s_i), PrivateKey(s_r)
    secret = initiator.exchange(responder.public)
    slow_initiator = SlowNode(s_i, responder.public, psk)
    slow_responder = SlowNode(s_r, initiator.public, psk)

    initiation, state = noise.create_initiation(
        static=initiator,
        responder_public=responder.public,
        static_secret=secret,
        timestamp=stamp,
        sender_index=i,
        entropy=lambda _: e_i,
    )
    assert with_mac1(initiation, responder) == slow_initiator.initiation(i, e_i, stamp)

    read = noise.open_timestamp(noise.open_static(responder, initiation), secret)
    response, theirs = noise.create_response(read, preshared_key=psk, sender_index=r, entropy=lambda _: e_r)
    assert read.initiator_public == initiator.public
    assert read.timestamp == stamp
    assert with_mac1(response, initiator) == slow_responder.response_to(
        with_mac1(initiation, responder), r, e_r
    )

    ours = noise.consume_response(state, response, static=initiator, preshared_key=psk)
    slow_initiator.finish(response.build())
    assert ours.transport_keys() == (slow_initiator.send, slow_initiator.receive)
    assert theirs.transport_keys() == (slow_responder.send, slow_responder.receive)
    assert ours.transport_keys() == theirs.transport_keys()[::-1]
    assert list(ours.export(b"label")) == slow_kdf(2, slow_initiator.c, b"label")


@pytest.mark.parametrize("recorded", vectors("wireguard_go")["handshake"], ids=lambda table: table["name"])
def test_a_handshake_recorded_with_wireguard_go_is_understood(recorded):
    own, its, psk, index, ephemeral, first, second, its_first = unhex(
        recorded,
        "our_private", "its_private", "preshared_key", "sender_index", "ephemeral", "initiation", "response",
        "its_initiation",
    )  # fmt: skip
    ours, theirs = PrivateKey(own), PrivateKey(its)
    secret = ours.exchange(theirs.public)
    sent = Initiation.parse(first)

    stamp = noise.open_timestamp(noise.open_static(theirs, sent), secret).timestamp
    initiation, state = noise.create_initiation(
        static=ours,
        responder_public=theirs.public,
        static_secret=secret,
        timestamp=stamp,
        sender_index=int.from_bytes(index, "little"),
        entropy=lambda _: ephemeral,
    )
    result = noise.consume_response(state, Response.parse(second), static=ours, preshared_key=psk or NO_PSK)
    read = noise.open_timestamp(noise.open_static(ours, Initiation.parse(its_first)), secret)

    assert with_mac1(initiation, theirs) == first
    assert len(result.transport_keys()) == 2
    assert read.initiator_public == theirs.public
    assert read.timestamp > stamp


def flip(message, bit):
    changed = bytearray(message.build())
    changed[bit // 8] ^= 1 << bit % 8
    return type(message).parse(bytes(changed))


@given(st.integers(8 * 8, 116 * 8 - 1))
def test_a_flipped_bit_of_an_initiation_is_refused(bit):
    message, _ = begin()

    with pytest.raises(PacketError):
        opened(flip(message, bit))


@given(st.integers(12 * 8, 60 * 8 - 1))
def test_a_flipped_bit_of_a_response_is_refused_and_the_state_still_good(bit):
    message, state = begin()
    response, theirs = respond(message)

    with pytest.raises(PacketError):
        finish(state, flip(response, bit))

    assert finish(state, response).transport_keys() == theirs.transport_keys()[::-1]


def test_another_preshared_key_is_refused():
    message, state = begin()
    response, _ = respond(message, psk=b"p" * 32)

    with refused("response_seal"):
        finish(state, response, psk=b"q" * 32)


def test_a_response_to_another_initiation_is_refused():
    message, _ = begin()
    _, other_state = begin()
    response, _ = respond(message)

    with refused("response_seal"):
        finish(other_state, response)


def test_an_initiation_to_another_node_is_refused():
    message, _ = begin()

    with refused("initiation_static"):
        noise.open_static(PrivateKey(b"c" * 32), message)


def test_who_knows_only_public_keys_cannot_make_a_timestamp():
    # An impostor can seal A's public key, as anybody can, but lacks DH(A, B).
    impostor = PrivateKey(b"i" * 32)
    claimed = SlowNode(b"i" * 32, B.public).initiation(1, b"e" * 32, STAMP)
    read = noise.open_static(B, Initiation.parse(claimed))

    with refused("initiation_timestamp"):
        noise.open_timestamp(read, SECRET)

    assert read.initiator_public == impostor.public


@pytest.mark.parametrize("point", vectors("crypto")["low_order"]["points"])
def test_an_ephemeral_key_of_low_order_is_refused(point):
    message, state = begin()
    response, _ = respond(message)
    weak = bytes.fromhex(point)

    with refused("low_order_point"):
        noise.open_static(B, Initiation(1, weak, message.sealed_static, message.sealed_timestamp))
    with refused("low_order_point"):
        finish(state, Response(2, 1, weak, response.sealed_nothing))


def test_exports_agree_between_the_roles_and_differ_by_label():
    message, state = begin()
    response, theirs = respond(message)
    ours = finish(state, response)

    keys = {*ours.export(b"one"), *ours.export(b"two"), *ours.transport_keys()}

    assert ours.export(b"one") == theirs.export(b"one")
    assert len(keys) == 6


def test_nothing_can_be_derived_after_wipe():
    message, state = begin()
    ours = finish(state, respond(message)[0])
    ours.wipe()

    with pytest.raises(AssertionError, match="wiped"):
        ours.export(b"label")
    with pytest.raises(AssertionError, match="wiped"):
        ours.transport_keys()


def test_no_repr_shows_a_key():
    message, state = begin()
    read = noise.open_static(B, message)
    ours = finish(state, respond(message)[0])

    shown = repr(state) + repr(read) + repr(opened(message)) + repr(ours)

    assert repr(state.chaining_key) not in shown
    assert repr(read.chaining_key) not in shown


def test_seeded_entropy_repeats_both_messages_byte_for_byte():
    def run():
        message, _ = begin(lambda size: b"s" * size)
        return message, respond(message, entropy=lambda size: b"t" * size)[0]

    assert run() == run()


def test_the_slow_twin_refuses_too():
    message, _ = begin()

    with pytest.raises(InvalidTag):
        SlowNode(b"c" * 32, A.public).response_to(message.build(), 2, b"e" * 32)
