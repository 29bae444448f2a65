from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.noise import HandshakeResult
from overlay.forwarding.bulk.units import LEAD, Cutter, UnitKey, make_aead, open_unit
from overlay.wire.bulk import FRAGMENT_HEADER, FRAGMENT_HEADER_SIZE, TYPE_FRAGMENT, key_label
from tests import units
from tests.overlay.crypto.vectors import vectors

VECTORS = vectors("bulk")
counters = st.integers(0, 2**64 - 1)


@pytest.fixture(params=VECTORS.values(), ids=VECTORS)
def vector(request):
    return request.param


def key_of(vector):
    way = {"initiator": "initiator_to_responder", "responder": "responder_to_initiator"}
    return bytes.fromhex(vector[way[vector["sender"]]])


def datagrams_of(vector):
    return [bytes.fromhex(each) for each in vector["datagrams"]]


def plain_of(vector):
    return units.plaintext(bytes.fromhex(vector["packet"]), vector["gso_type"], vector["segment"])


# The vectors match the text


def test_keys_of_the_vectors_follow_from_the_text(vector):
    keys = units.unit_keys(bytes.fromhex(vector["chaining_key"]), vector["cipher"])

    assert [key.hex() for key in keys] == [
        vector["initiator_to_responder"],
        vector["responder_to_initiator"],
    ]


def test_datagrams_of_the_vectors_follow_from_the_text(vector):
    cipher, counter = vector["cipher"], vector["counter"]
    sealed = units.sealed(key_of(vector), cipher, counter, plain_of(vector))
    piece = vector["datagram_size"] - 16

    assert units.datagrams(sealed, cipher, vector["receiver_index"], counter, piece) == datagrams_of(vector)


# The implementation matches the vectors


@pytest.mark.parametrize("is_initiator", [True, False])
def test_handshake_gives_the_keys_of_the_vectors_in_either_role(vector, is_initiator):
    result = HandshakeResult(bytes.fromhex(vector["chaining_key"]), is_initiator=is_initiator)

    keys = result.export(key_label(vector["cipher"]))

    assert [key.hex() for key in keys] == [
        vector["initiator_to_responder"],
        vector["responder_to_initiator"],
    ]


def test_cutter_makes_the_datagrams_of_the_vectors(vector):
    key = UnitKey(vector["cipher"], key_of(vector), vector["receiver_index"])
    key.counter = vector["counter"]
    packet, size = bytes.fromhex(vector["packet"]), vector["datagram_size"]

    parts = Cutter().cut(
        key, vector["gso_type"], vector["segment"], packet[:40], memoryview(packet)[40:], size
    )

    sent = [bytes(part[at : at + size]) for part in parts for at in range(0, len(part), size)]
    assert sent == datagrams_of(vector)
    assert key.counter == vector["counter"] + 1


def test_what_the_vectors_hold_opens_to_their_packets(vector):
    opens = make_aead(vector["cipher"], key_of(vector)).decrypt_into
    sealed = b"".join(each[FRAGMENT_HEADER_SIZE:] for each in datagrams_of(vector))

    unit = open_unit(opens, vector["counter"], memoryview(bytearray(LEAD) + sealed))

    assert bytes(unit[LEAD:]) == plain_of(vector)


# The header


def test_headers_of_the_vectors_are_read_field_by_field(vector):
    count = len(vector["datagrams"])

    assert [FRAGMENT_HEADER.unpack_from(each) for each in datagrams_of(vector)] == [
        (TYPE_FRAGMENT, number, count, vector["cipher"], vector["receiver_index"], vector["counter"])
        for number in range(count)
    ]


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), counters)
def test_a_header_is_built_as_the_text_says(number, count, cipher, index, counter):
    header = FRAGMENT_HEADER.pack(TYPE_FRAGMENT, number, count, cipher, index, counter)

    assert header == units.fragment(number, count, cipher, index, counter, b"")
    assert len(header) == FRAGMENT_HEADER_SIZE
