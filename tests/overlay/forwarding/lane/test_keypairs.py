"""What two nodes make of their lanes tells tests/two_nodes/test_lanes.py."""

from __future__ import annotations

import hashlib
import hmac

from overlay.forwarding.lane.keypairs import lane_of
from overlay.session.outputs import InstallKeypair
from overlay.wire.bulk import AES_256_GCM

SEND, RECEIVE, UNIT_SEND, UNIT_RECEIVE = (bytes([number]) * 32 for number in range(1, 5))
MADE = InstallKeypair(
    7, 0x5A000100, 0xA5000203, SEND, RECEIVE, True, 1.0, 2.0, ("192.0.2.1", 51820),
    [(AES_256_GCM, UNIT_SEND, UNIT_RECEIVE)],
)  # fmt: skip


def derived(key, lane):
    """Return HKDF-BLAKE2s (RFC 5869) of *key*, one block, as Python's hmac has it."""
    secret = hmac.new(key, b"overlay lane v1 " + bytes([lane]), hashlib.blake2s).digest()
    return hmac.new(secret, b"\1", hashlib.blake2s).digest()


def test_every_key_of_a_lane_is_derived_from_that_of_the_session():
    made = lane_of(MADE, 3)

    assert (made.send_key, made.receive_key) == (derived(SEND, 3), derived(RECEIVE, 3))
    assert made.unit_keys == [(AES_256_GCM, derived(UNIT_SEND, 3), derived(UNIT_RECEIVE, 3))]


def test_no_two_lanes_have_a_key_or_an_index_in_common():
    made = [MADE, *(lane_of(MADE, lane) for lane in range(1, 8))]

    keys = [key for each in made for key in (each.send_key, each.receive_key, *each.unit_keys[0][1:])]
    assert len(set(keys)) == 8 * 4
    assert len({each.local_index for each in made}) == len({each.remote_index for each in made}) == 8


def test_indices_differ_in_the_three_lowest_bits_alone():
    assert {lane_of(MADE, lane).local_index >> 3 for lane in range(8)} == {MADE.local_index >> 3}
