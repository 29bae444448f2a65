from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap.encapsulation import Ends
from overlay.encap.vxlan import ENCAPSULATION
from overlay.errors import PacketError
from tests.overlay.wire.test_neighbours import ASKED, ASKING, BROADCAST, REPLY, REQUEST, solicitation

prefix, strip, frames = ENCAPSULATION.clear.prefix, ENCAPSULATION.clear.strip, ENCAPSULATION.clear.frames

# RFC 7348 section 5, figure 1: the I flag, 24 bits reserved, VNI 1234567, 8 bits reserved; then the inner Ethernet
# header: destination, source, EtherType
HEADER = bytes.fromhex("08000000 12d68700")
ENDS = Ends(1234567, own_mac=ASKING, mac=ASKED)
ECHO = bytes.fromhex("4500001c00010000400165020af402000af401000800f7fe00010000")
TO_FAR, TO_US = ASKED + ASKING, ASKING + ASKED


def test_prefix_is_the_header_of_the_rfc_and_that_of_ethernet():
    assert prefix(ENDS) == {4: HEADER + TO_FAR + b"\x08\x00", 6: HEADER + TO_FAR + b"\x86\xdd"}


def test_overhead_is_that_of_the_rfc():
    assert [ENCAPSULATION.overhead(version, ENDS) for version in (4, 6)] == [50, 70]


@pytest.mark.parametrize(
    "header", [HEADER, bytes.fromhex("ffffffff 12d687ff")], ids=["sent", "reserved bits set"]
)
def test_packet_is_found_behind_both_headers(header):
    payload = header + TO_US + b"\x08\x00" + ECHO + bytes(18)

    assert strip(payload) == (22, 22 + len(ECHO), 1234567)
    frames.admit(payload, ENDS)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "vxlan_short"),
        (HEADER + TO_US + b"\x08", "vxlan_short"),
        (b"\xf7" + HEADER[1:] + TO_US + b"\x08\x00" + ECHO, "vxlan_flags"),
        (HEADER + TO_US + b"\x81\x00\x00\x05\x08\x00" + ECHO, "vlan"),
        (HEADER + TO_US + b"\x88\xa8\x00\x05\x08\x00" + ECHO, "vlan"),
        (HEADER + TO_US + b"\x88\xcc" + ECHO, "ethertype"),
        (HEADER + REQUEST, "neighbour"),
        (HEADER + solicitation(), "neighbour"),
        (HEADER + solicitation(kind=136), "neighbour"),
        (HEADER + TO_US + b"\x08\x00", "inner_short"),
        (HEADER + TO_US + b"\x08\x00" + ECHO[:-1], "inner_length"),
        (HEADER + TO_US + b"\x86\xdd" + ECHO, "inner_version"),
        (HEADER + TO_US + b"\x08\x00\x60" + bytes(39), "inner_version"),
    ],
)
def test_what_is_no_packet_is_refused_by_its_reason(payload, reason):
    with pytest.raises(PacketError) as raised:
        strip(payload)

    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("destination", "reason"),
    [(ASKED, "mac"), (BROADCAST, "multicast"), (bytes.fromhex("01005e000001"), "multicast")],
)
def test_frame_for_another_is_refused(destination, reason):
    with pytest.raises(PacketError) as raised:
        frames.admit(HEADER + destination + ASKED + b"\x08\x00" + ECHO, ENDS)

    assert raised.value.reason == reason


def test_question_is_found_and_answered_in_its_tunnel():
    identifier, question = frames.question(HEADER + REQUEST)

    assert identifier == 1234567
    assert frames.answer(question, Ends(1234567, own_mac=ASKED)) == HEADER + REPLY


@given(st.binary(max_size=120) | st.builds(lambda rest: HEADER + rest, st.binary(max_size=120)))
def test_any_bytes_hold_a_question_or_none(payload):
    found = frames.question(payload)

    assert found is None or found[1].answer(ASKED)
