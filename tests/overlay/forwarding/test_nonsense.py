from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.nonsense import sort_out
from overlay.wire.bulk import AES_256_GCM
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.sim import World

KNOWN = {7, 8}
SIZES = [8, 12, 16, 17, 31, 32, 100, 1400]


def rows_of(size, *heads):
    """Return rows of *size* bytes that begin with a type and an index each."""
    data = b"".join(struct.pack("<II", *head).ljust(size, b"x")[:size] for head in heads)
    return np.frombuffer(data, np.uint8).reshape(len(heads), size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "index", "reason"),
    [
        (0, 7, "unknown_type"),
        (6, 7, "unknown_type"),
        (0x01000004, 7, "unknown_type"),  # a reserved byte
        (0x00000101, 7, "unknown_type"),
        (4, 9, "unknown_index"),
        (4, 7, ""),
        (1, 9, ""),
        (2, 9, ""),
        (3, 9, ""),
        (0x01010005, 9, "unknown_index"),
        (0x01010005, 8, ""),
    ],
)
def test_a_row_is_refused_for_the_reason_that_it_has_alone(kind, index, reason, size):
    if kind == 4 and size < 32:
        reason = "transport_short"
    if kind & 0xFF == 5 and size < 17:
        reason = "fragment_short"

    refused, ours = sort_out(rows_of(size, (kind, index)), KNOWN, takes_units=True)

    assert refused == ({reason: [0]} if reason else {})
    assert ours == ([] if reason else [0])


def test_without_units_a_fragment_is_of_no_known_type():
    refused, ours = sort_out(rows_of(100, (5, 7), (5, 9)), KNOWN, takes_units=False)

    assert (refused, ours) == ({"unknown_type": [0, 1]}, [])


def test_what_may_be_ours_is_picked_out_of_the_rest_in_its_order():
    rows = rows_of(100, (9, 1), (4, 7), (4, 9), (1, 0), (5, 8), (5, 1))

    refused, ours = sort_out(rows, KNOWN, takes_units=True)

    assert refused == {"unknown_type": [0], "unknown_index": [2, 5]}
    assert ours == [1, 3, 4]


@pytest.fixture(scope="module")
def worlds():
    """Twice the same node b with a session, once with a kernel that merges and once with one that does not."""
    made = []
    for has_gro in (True, False):
        world = World(ciphers=[AES_256_GCM], has_gro=has_gro)
        a, b = world.pair()
        a.send(b)
        world.run(1)
        made.append((world, a, b))
    return made


HEADS = st.sampled_from(
    [
        b"\4\0\0\0",
        b"\5\0\1\1",
        b"\1\0\0\0",
        b"\2\0\0\0",
        b"\3\0\0\0",
        b"\0\0\0\0",
        b"\4\0\0\1",
        b"\xff\xff\xff\xff",
    ]
)


@examples(200)
@given(
    st.lists(st.tuples(HEADS, st.booleans(), st.binary(min_size=8, max_size=8)), min_size=1, max_size=12),
    st.sampled_from([*SIZES, 148]),
    st.integers(0, 40),
)
def test_a_merged_receive_is_counted_as_its_datagrams_are_one_by_one(worlds, heads, size, last):
    counted = []
    for _, a, b in worlds:
        index = next(iter(b.core.by_index))
        datagrams = [
            (head + (index if is_known else 4711).to_bytes(4, "little") + rest).ljust(size, b"x")[:size]
            for head, is_known, rest in heads
        ]
        if last:
            datagrams.append(b"\4\0\0\0".ljust(last, b"y")[: min(last, size)])
        before = b.drops
        ends = (a.addresses[0], 4000), (b.addresses[0], b.port)
        b.sockets[0].inbox += [Flight(*ends, each) for each in datagrams]
        b.turn()
        after = b.drops
        after.subtract(before)
        counted.append(+after)

    assert counted[0] == counted[1]
