from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire import frames
from overlay.wire.control import is_control
from overlay.wire.frames import Announcement, Solicitation
from tests import packets
from tests.hypothesis_profiles import examples

A, B = bytes.fromhex("02005e100001"), bytes.fromhex("02005e100002")

# The example of RFC 826: X asks for Y, by Ethernet and IPv4; addresses as above.
REQUEST = bytes.fromhex(
    "ffffffffffff 02005e100001 0806  0001 0800 06 04 0001  02005e100001 0a000001  000000000000 0a000002"
)
REPLY = bytes.fromhex(
    "02005e100001 02005e100002 0806  0001 0800 06 04 0002  02005e100002 0a000002  02005e100001 0a000001"
)


def nd(kind, source, target, *, flags=0, options=b"", hop_limit=255, code=0, destination="ff02::1:ff00:2"):
    """Return an ICMPv6 neighbour message, built field by field as RFC 4861 sections 4.3 and 4.4 draw it."""
    body = struct.pack("!BBHB3x", kind, code, 0, flags) + packets.ip_address(target).packed + options
    packet = packets.ipv6(body, source, destination, protocol=58, ttl=hop_limit)
    total = packets.internet_checksum(packets.pseudo_header(packet, len(body)) + body)
    return packet[:42] + struct.pack("!H", total) + packet[44:]


def solicitation(source="fd00::1", target="fd00::2", **more):
    return b"\x33\x33\xff\x00\x00\x02" + A + b"\x86\xdd" + nd(135, source, target, **more)


def advertisement(target="fd00::2", mac=B, flags=0x60, **more):
    more.setdefault("options", b"\2\1" + mac)
    return A + mac + b"\x86\xdd" + nd(136, target, target, flags=flags, destination="fd00::1", **more)


def v6(text):
    return packets.ip_address(text).packed


# In a payload


def test_a_frame_is_two_bytes_before_itself_and_zeros_behind():
    assert frames.build(b"frame of some kind", 3) == b"\xe0\x03frame of some kind\0\0\0"


@examples(300)
@given(frame=st.binary(min_size=14, max_size=200), padding=st.integers(0, 255))
def test_a_frame_comes_back_as_long_as_it_was(frame, padding):
    payload = frames.build(frame, padding)

    begin, end = frames.parse(payload)

    assert payload[begin:end] == frame


@examples(300)
@given(payload=st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\xe0" + rest))
def test_any_payload_is_a_frame_inside_it_or_refused(payload):
    try:
        begin, end = frames.parse(payload)
    except PacketError:
        return

    assert 2 == begin <= end - 14 <= len(payload) - 14


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "no_frame"),
        (b"\x45" + bytes(40), "no_frame"),
        (b"\xe1" + bytes(40), "no_frame"),
        (b"\xe0\0" + bytes(13), "frame_short"),
        (b"\xe0\2" + bytes(15), "frame_padding"),
    ],
)
def test_anything_but_a_frame_is_refused(payload, reason):
    with pytest.raises(PacketError) as caught:
        frames.parse(payload)

    assert caught.value.reason == reason


def test_a_frame_is_not_a_control_message():
    assert not is_control(frames.build(REQUEST))


def test_an_ip_header_is_at_a_multiple_of_four():
    assert frames.FRAME_OVERHEAD % 4 == 0


# Contents


@pytest.mark.parametrize(
    ("tags", "at"), [("", 14), ("8100 0005", 18), ("88a8 0005 8100 0006", 22), ("8100 0005 " * 3, 0)]
)
def test_an_ip_packet_is_found_behind_vlan_tags(tags, at):
    frame = A + B + bytes.fromhex(tags) + b"\x08\x00" + packets.udp(b"x")

    assert frames.ip_start(frame) == at


@pytest.mark.parametrize(
    "rest",
    [
        b"\x08\x00" + bytes(40),
        b"\x08\x00\x45" + bytes(18),
        b"\x86\xdd\x60" + bytes(38),
        b"\x08\x06",
        b"\x81\x00",
    ],
)
def test_anything_without_a_whole_header_is_not_an_ip_packet(rest):
    assert frames.ip_start(A + B + rest) == 0


# Who has which address


def test_an_arp_request_asks_and_says_where_its_sender_is():
    assert frames.read_neighbour(REQUEST) == (
        Solicitation(A, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])),
        Announcement(A, bytes([10, 0, 0, 1])),
    )


def test_an_arp_probe_says_nothing():
    probe = REQUEST[:28] + bytes(4) + REQUEST[32:]

    assert frames.read_neighbour(probe) == (Solicitation(A, bytes(4), bytes([10, 0, 0, 2])), None)


def test_an_arp_reply_says_and_asks_nothing():
    assert frames.read_neighbour(REPLY) == (None, Announcement(B, bytes([10, 0, 0, 2])))


def test_a_neighbour_solicitation_asks_and_says_nothing():
    assert frames.read_neighbour(solicitation()) == (Solicitation(A, v6("fd00::1"), v6("fd00::2")), None)


@pytest.mark.parametrize("flags", [0x60, 0xE0])
def test_a_neighbour_advertisement_says_who_is_a_router(flags):
    said = Announcement(B, v6("fd00::2"), is_router=flags == 0xE0)

    assert frames.read_neighbour(advertisement(flags=flags)) == (None, said)


def test_the_link_address_may_come_behind_other_options():
    options = b"\x0e\1" + bytes(6) + b"\2\1" + B

    assert frames.read_neighbour(advertisement(options=options))[1] == Announcement(B, v6("fd00::2"))


BROKEN = {
    "another hardware": REQUEST[:15] + b"\6" + REQUEST[16:],
    "another protocol": REQUEST[:16] + b"\x86\xdd" + REQUEST[18:],
    "another operation": REQUEST[:21] + b"\3" + REQUEST[22:],
    "half an ARP packet": REQUEST[:41],
    "a VLAN tag": REQUEST[:12] + b"\x81\0\0\5" + REQUEST[12:],
    "a wrong checksum": solicitation()[:-1] + b"\x03",
    "a hop limit from elsewhere": solicitation(hop_limit=254),
    "another code": solicitation(code=1),
    "another message": A + B + b"\x86\xdd" + nd(134, "fd00::1", "fd00::2"),
    "half a solicitation": solicitation()[:-1],
    "no link address": advertisement(options=b""),
    "an option of no length": advertisement(options=b"\2\0" + B),
    "a link address of another length": advertisement(options=b"\2\2" + bytes(14)),
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_malformed_asks_and_says_nothing(frame):
    assert frames.read_neighbour(frame) == (None, None)


@examples(300)
@given(
    frame=st.sampled_from([b"", REQUEST, solicitation(), advertisement()]),
    cut=st.integers(0, 100),
    noise=st.binary(max_size=90),
)
def test_any_bytes_are_read_without_an_exception(frame, cut, noise):
    frames.read_neighbour(frame[:cut] + noise)
    frames.ip_start(frame[:cut] + noise)


# What a kernel believes

HOP_BY_HOP = bytes([58, 0, 1, 4, 0, 0, 0, 0])
NAMED = b"\1\1" + A


def message(kind, rest, options, source="fd00::1"):
    """Return a frame with an ICMPv6 message whose fixed part has *rest* behind its checksum."""
    body = struct.pack("!BBH", kind, 0, 0) + rest + options
    packet = packets.ipv6(body, source, "fd00::2", protocol=58, ttl=255)
    total = packets.internet_checksum(packets.pseudo_header(packet, len(body)) + body)
    return B + A + b"\x86\xdd" + packet[:42] + struct.pack("!H", total) + packet[44:]


def behind(frame, *headers):
    """Return *frame* with extension headers, each naming the next, before its ICMPv6 message."""
    extensions, protocol = b"", 58
    for number, header in reversed(headers):
        extensions, protocol = bytes([protocol]) + header[1:] + extensions, number
    length = len(frame) - 54 + len(extensions)
    return frame[:18] + struct.pack("!HB", length, protocol) + frame[21:54] + extensions + frame[54:]


IPV4_ADDRESS, TARGET = bytes([10, 0, 0, 2]), v6("fd00::2")
CLAIMS = {
    "a reply": (REPLY, [IPV4_ADDRESS]),
    "a request": (REQUEST, [bytes([10, 0, 0, 1])]),
    "a probe": (REQUEST[:28] + bytes(4) + REQUEST[32:], []),
    "hardware type 6": (REPLY[:15] + b"\6" + REPLY[16:], [IPV4_ADDRESS]),
    "hardware type 7": (REPLY[:15] + b"\7" + REPLY[16:], []),
    "another protocol": (REPLY[:16] + b"\x86\xdd" + REPLY[18:], []),
    "a tag": (REPLY[:12] + b"\x81\0\0\0" + REPLY[12:], [IPV4_ADDRESS]),
    "many tags": (REPLY[:12] + b"\x81\0\0\0" * 4 + b"\x88\xa8\0\0" + REPLY[12:], [IPV4_ADDRESS]),
    "a tagged advertisement": (
        advertisement()[:12] + b"\x81\0\0\0" + advertisement()[12:],
        [TARGET],
    ),
    "an advertisement": (advertisement(), [TARGET]),
    "an advertisement of nothing": (advertisement(options=b""), []),
    "a solicitation": (solicitation(), []),
    "a solicitation that names its sender": (solicitation(options=NAMED), [v6("fd00::1")]),
    "a solicitation of nobody": (solicitation(source="::", options=NAMED), []),
    "a router solicitation": (message(133, bytes(4), NAMED), [v6("fd00::1")]),
    "a router advertisement": (message(134, bytes(12), NAMED), [v6("fd00::1")]),
    "a redirect": (message(137, bytes(4) + TARGET + bytes(16), b"\2\1" + A), [TARGET]),
    "an echo": (message(128, bytes(20), NAMED), []),
    "UDP behind an extension header": (
        behind(solicitation(), (0, HOP_BY_HOP))[:54] + b"\x11" + bytes(60),
        [],
    ),
    "a later fragment": (behind(advertisement(), (44, b"\0\0\0\x08" + bytes(4))), []),
    "a hop limit from elsewhere": (behind(advertisement(hop_limit=254), (0, HOP_BY_HOP)), []),
    "ping behind an extension header": (behind(message(128, bytes(20), b""), (0, HOP_BY_HOP)), []),
}


@pytest.mark.parametrize(("frame", "addresses"), CLAIMS.values(), ids=CLAIMS.keys())
def test_what_a_kernel_would_believe_is_a_claim(frame, addresses):
    assert frames.read_claims(frame) == addresses
    assert not addresses or frames.may_claim(frame)


FIXED = {133: 8, 134: 16, 135: 24, 136: 24, 137: 40}  # bytes before the options, RFC 4861 section 4


@pytest.mark.parametrize(("kind", "size"), FIXED.items())
def test_a_message_ends_where_the_packet_says_and_is_not_shorter_than_its_fixed_part(kind, size):
    def claims(frame):
        return frames.read_claims(frame)

    option = (b"\2\1" if kind in {136, 137} else b"\1\1") + A
    named = [TARGET if kind in {136, 137} else v6("fd00::1")]
    rest = (bytes(4) + TARGET).ljust(size - 4, b"\0")[: size - 4]

    assert claims(message(kind, rest, option)) == named
    assert claims(message(kind, rest, option) + bytes(6)) == named  # Ethernet's padding
    assert claims(message(kind, rest, b"") + option) == []
    assert claims(message(kind, rest, b"")) == []
    assert claims(message(kind, rest[:-1], b"")) == []
    assert claims(message(kind, rest, option)[:-1]) == []


@pytest.mark.parametrize("size", [23, 24, 32])
@pytest.mark.parametrize("kind", [135, 136])
def test_a_neighbour_message_is_read_from_its_least_size_on(kind, size):
    rest = (bytes(4) + TARGET + (b"\2\1" if kind == 136 else b"\1\1") + A)[: size - 4]

    asked, said = frames.read_neighbour(message(kind, rest, b""))

    assert asked == (Solicitation(A, v6("fd00::1"), TARGET) if kind == 135 and size >= 24 else None)
    assert said == (Announcement(A, TARGET) if kind == 136 and size == 32 else None)


@pytest.mark.parametrize("kind", [133, 134, 135, 136, 137])
@pytest.mark.parametrize(
    "headers",
    [[(0, HOP_BY_HOP)], [(60, HOP_BY_HOP)], [(0, HOP_BY_HOP), (43, HOP_BY_HOP)], [(44, bytes(8))]],
    ids=["hop-by-hop", "destination", "two", "fragment"],
)
def test_neighbour_discovery_behind_extension_headers_is_refused(kind, headers):
    frame = behind(message(kind, bytes(40), NAMED), *headers)
    assert frames.may_claim(frame)

    with pytest.raises(PacketError) as caught:
        frames.read_claims(frame)

    assert caught.value.reason == "neighbour"


@examples(300)
@given(
    frame=st.sampled_from([b"", REPLY, solicitation(), behind(advertisement(), (0, HOP_BY_HOP))]),
    cut=st.integers(0, 100),
    noise=st.binary(max_size=90),
)
def test_any_bytes_claim_something_or_nothing_or_are_refused(frame, cut, noise):
    frames.may_claim(frame[:cut] + noise)
    try:
        frames.read_claims(frame[:cut] + noise)
    except PacketError as error:
        assert error.reason == "neighbour"  # noqa: PT017  either may come


# Answers


def test_an_arp_answer_is_that_of_the_owner():
    asked, _ = frames.read_neighbour(REQUEST)

    assert frames.build_answer(asked, B) == REPLY


@pytest.mark.parametrize("is_router", [False, True])
def test_a_neighbour_advertisement_is_that_of_the_owner_without_override(is_router):
    asked, _ = frames.read_neighbour(solicitation())

    assert frames.build_answer(asked, B, is_router=is_router) == advertisement(
        flags=0xC0 if is_router else 0x40
    )
