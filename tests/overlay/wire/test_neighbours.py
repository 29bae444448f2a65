from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.neighbours import Claim, Question, announcement, question
from tests import packets
from tests.refusals import refused

ASKING, ASKED, BROADCAST = bytes.fromhex("02005e100001"), bytes.fromhex("02005e100002"), b"\xff" * 6
# RFC 826: who has 10.244.1.9? tell 10.244.2.0; and that 10.244.1.9 is at 02:00:5e:10:00:02
REQUEST = bytes.fromhex(
    "ffffffffffff 02005e100001 0806 0001 0800 06 04 0001 02005e100001 0af40200 000000000000 0af40109"
)
REPLY = bytes.fromhex(
    "02005e100001 02005e100002 0806 0001 0800 06 04 0002 02005e100002 0af40109 02005e100001 0af40200"
)


def solicitation(source="fd00::2", target="fd00::1", *, hops=255, options=b"\1\1" + ASKING, **changes):
    """Return the frame of RFC 4861 section 4.3, with *changes* to the fields of its message."""
    to = "ff02::1:ff00:1"
    fields = {"kind": 135, "code": 0, "flags": bytes(4), "check": None, **changes}
    body = (
        bytes([fields["kind"], fields["code"], 0, 0]) + fields["flags"] + ip_address(target).packed + options
    )
    packet = packets.ipv6(body, source, to, protocol=58, ttl=hops)
    check = packets.internet_checksum(packets.pseudo_header(packet, len(body)) + body)
    check = check if fields["check"] is None else fields["check"]
    packet = packet[:42] + check.to_bytes(2, "big") + packet[44:]
    return bytes.fromhex("3333ff000001") + ASKING + b"\x86\xdd" + packet


def test_arp_request_is_read_and_answered_as_the_rfc_has_it():
    question = Question.parse(REQUEST + bytes(18))  # padded to Ethernet's minimum

    assert question == Question(bytes([10, 244, 2, 0]), bytes([10, 244, 1, 9]), ASKING, BROADCAST)
    assert question.answer(ASKED) == REPLY


def test_solicitation_is_answered_with_an_advertisement():
    question = Question.parse(solicitation())
    answer = question.answer(ASKED)

    assert (question.source, question.target) == (ip_address("fd00::2").packed, ip_address("fd00::1").packed)
    assert answer[:14] == ASKING + ASKED + b"\x86\xdd"
    packet = answer[14:]
    assert packet[:8] == bytes.fromhex("60000000 0020 3a ff")
    assert (packet[8:24], packet[24:40]) == (question.target, question.source)
    # RFC 4861 section 4.4: type 136, code 0, solicited and override, the target, and its address as an option
    assert packet[40:42] + packet[44:] == bytes.fromhex("8800 60000000") + question.target + b"\2\1" + ASKED
    assert packets.is_l4_checksum_right(packet)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        REQUEST[:41],
        REPLY,
        REQUEST[:14] + b"\0\6" + REQUEST[16:],  # IEEE 802 rather than Ethernet
        REQUEST[:28] + bytes(4) + REQUEST[32:],  # looks whether the address is free (RFC 5227)
        solicitation(hops=254),
        solicitation(check=1),
        solicitation(code=1),
        solicitation(kind=136),
        solicitation(target="ff02::1"),
        solicitation("::", options=b""),  # looks whether the address is free (RFC 4862)
        solicitation("ff02::1"),
        solicitation(options=b"\1\0" + ASKING),
        solicitation(options=b"\1\2" + ASKING),
        solicitation()[:-1],
        solicitation(options=b"")[:-4],
        bytes(12) + b"\x86\xdd" + packets.udp(version=6),
        bytes(12) + b"\x86\xdd" + packets.udp(),
        bytes(12) + b"\x08\x00" + packets.udp(),
    ],
    ids=str,
)
def test_what_asks_nothing_is_refused(frame):
    with refused("neighbour"):
        Question.parse(frame)


@given(
    st.binary(max_size=100)
    | st.builds(
        lambda kind, rest: bytes(12) + kind + rest, st.sampled_from([b"\x08\x06", b"\x86\xdd"]), st.binary()
    )
    | st.builds(
        lambda at, byte: solicitation()[:at] + bytes([byte]) + solicitation()[at + 1 :],
        st.integers(0, 85),
        st.integers(0, 255),
    )
)
def test_any_bytes_are_a_question_or_refused(frame):
    try:
        question = Question.parse(frame)
    except PacketError:
        return
    assert len(question.source) == len(question.target)
    assert question.answer(ASKED)


def advertisement(target="fd00::1", options=b"\2\1" + ASKED, **changes):
    """Return the frame of RFC 4861 section 4.4, from the Ethernet address ASKING."""
    return solicitation(target=target, options=options, kind=136, **changes)


@pytest.mark.parametrize(
    ("frame", "address", "mac"),
    [
        (REPLY, "10.244.1.9", ASKED),
        (REQUEST, "10.244.2.0", ASKING),
        (announcement(bytes([10, 50, 2, 200]), ASKED), "10.50.2.200", ASKED),
        (announcement(ip_address("fd50:2::200").packed, ASKED), "fd50:2::200", ASKED),
        (advertisement(), "fd00::1", ASKED),
        (advertisement(options=b""), "fd00::1", ASKING),
        (advertisement(options=b"\x0e\1" + bytes(6) + b"\2\1" + ASKED), "fd00::1", ASKED),
        (advertisement(options=b"\2\2" + bytes(14)), "fd00::1", ASKING),
    ],
    ids=[
        "reply",
        "request",
        "gratuitous",
        "unsolicited",
        "advertisement",
        "no option",
        "second option",
        "long option",
    ],
)
def test_claim_of_an_address_is_read(frame, address, mac):
    assert Claim.parse(frame) == Claim(ip_address(address).packed, mac)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        REPLY[:41],
        REPLY[:14] + b"\0\6" + REPLY[16:],
        REPLY[:20] + b"\0\3" + REPLY[22:],
        REQUEST[:28] + bytes(4) + REQUEST[32:],  # looks whether the address is free
        solicitation(),
        advertisement(hops=254),
        advertisement(check=1),
        advertisement(code=1),
        advertisement("ff02::1"),
        advertisement(options=b"\2\0" + ASKED),
        advertisement()[:-1],
        bytes(12) + b"\x86\xdd" + packets.udp(version=6),
        bytes(12) + b"\x08\x00" + packets.udp(),
    ],
    ids=str,
)
def test_what_claims_nothing_is_refused(frame):
    with refused("neighbour"):
        Claim.parse(frame)


@given(
    st.binary(max_size=100)
    | st.builds(
        lambda at, byte: advertisement()[:at] + bytes([byte]) + advertisement()[at + 1 :],
        st.integers(0, 85),
        st.integers(0, 255),
    )
)
def test_any_bytes_are_a_claim_or_refused(frame):
    try:
        claim = Claim.parse(frame)
    except PacketError:
        return
    assert (len(claim.address) in {4, 16}, len(claim.mac)) == (True, 6)


@pytest.mark.parametrize(("target", "source"), [("10.244.1.9", "10.244.2.0"), ("fd00::1", "fd00::2")])
def test_question_is_read_as_one(target, source):
    target, source = ip_address(target).packed, ip_address(source).packed

    frame = question(target, source, ASKING)

    to = BROADCAST if len(target) == 4 else bytes.fromhex("3333ff000001")
    assert Question.parse(frame) == Question(source, target, ASKING, to)


def test_question_by_arp_is_as_the_rfc_has_it():
    assert question(bytes([10, 244, 1, 9]), bytes([10, 244, 2, 0]), ASKING) == REQUEST


def test_an_address_that_has_come_here_is_announced_by_arp():
    # Seen on the wire from keepalived 2.2.7 as it takes over
    announced = bytes.fromhex(
        "ffffffffffff 02005e100002 0806 0001 0800 06 04 0001 02005e100002 0a3202c8 000000000000 0a3202c8"
    )
    assert announcement(bytes([10, 50, 2, 200]), ASKED) == announced


@pytest.mark.parametrize(("is_router", "flags"), [(True, "a0000000"), (False, "20000000")])
def test_an_address_that_has_come_here_is_announced_by_neighbour_discovery(is_router, flags):
    address = ip_address("fd50:2::200").packed
    frame = announcement(address, ASKED, is_router=is_router)

    assert frame[:14] == bytes.fromhex("333300000001") + ASKED + b"\x86\xdd"
    packet = frame[14:]
    assert packet[:8] == bytes.fromhex("60000000 0020 3a ff")
    assert (packet[8:24], packet[24:40]) == (address, ip_address("ff02::1").packed)
    assert packet[40:42] + packet[44:] == bytes.fromhex(f"8800 {flags}") + address + b"\2\1" + ASKED
    assert packets.is_l4_checksum_right(packet)
