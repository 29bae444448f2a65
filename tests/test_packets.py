"""The second opinion itself: its fast computations give what the documents' own words say."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tests import packets


@given(st.binary(max_size=80) | st.sampled_from([b"\xff\xff" * 40, bytes(20), b"\xff\xfe\0\1", b"\xff"]))
def test_a_sum_is_the_one_of_words_whose_carry_is_brought_round_each_time(data):
    total = 0
    for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)):
        total += word
        if total > 0xFFFF:
            total -= 0xFFFF

    assert packets.ones_complement_sum(data) == total
