from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap.encapsulation import Ends
from overlay.encap.gre import ENCAPSULATION, finisher, sequence, strip
from overlay.errors import PacketError
from tests import packets

ECHO = packets.ipv4(bytes.fromhex("0800f7fe00010000"), protocol=1)
IPV6 = packets.udp(b"x", version=6)

# The figures of RFC 2784 section 2 and RFC 2890 section 2, in bytes.
BASIC = bytes.fromhex("0000 0800")
KEYED = bytes.fromhex("2000 0800 0000002a")  # K, key 42
NUMBERED = bytes.fromhex("1000 0800 00000007")  # S, number 7
BOTH = bytes.fromhex("3000 86dd ffffffff 00000008")  # K and S, IPv6


def with_checksum(flags, rest, packet):
    """A payload with C: the flags, the EtherType and the rest of its header, and *packet*."""
    header = bytes([0x80 | flags]) + rest[:3]
    body = header + b"\0\0\0\0" + rest[3:] + packet
    value = packets.internet_checksum(body)
    return body[:4] + value.to_bytes(2, "big") + body[6:]


def built(packet, finish, ends, sent=0):
    """The payload of *packet*, before which *sent* were built."""
    payload = bytearray(ENCAPSULATION.clear.prefix(ends)[packet[0] >> 4] + packet)
    if finish is not None:
        finish(memoryview(payload), sent)
    return bytes(payload)


def test_what_is_sent_has_a_key_where_there_is_one_and_nothing_else():
    prefix = ENCAPSULATION.clear.prefix

    assert prefix(Ends()) == {4: BASIC, 6: bytes.fromhex("0000 86dd")}
    assert prefix(Ends(42)) == {4: KEYED, 6: bytes.fromhex("2000 86dd 0000002a")}
    assert prefix(Ends(0)) == {4: bytes.fromhex("2000 0800 00000000"), 6: bytes.fromhex("2000 86dd 00000000")}
    assert [ENCAPSULATION.overhead(4, ends) for ends in (Ends(), Ends(7))] == [24, 28]


# What Debian's kernel 6.1 sent by `ip tunnel add mode gre ... csum seq key 42`, behind the outer header: two pings.
KERNELS = [
    "b000080047d400000000002a 00000001 45000024abeb400040017ad90a0900010a0900020800e8d7031700010001020304050607",
    "b000080047d300000000002a 00000002 45000024ac11400040017ab30a0900010a0900020800e8d6031700020001020304050607",
]
KERNELS_CHECKSUM = "8000080077ff0000 45000024a971400040017d530a0900010a0900020800e8e7030700010001020304050607"
KERNELS_SEQUENCE = "1000080000000001 45000024aa66400040017c5e0a0900010a0900020800e8df030f00010001020304050607"


@pytest.mark.parametrize(
    ("ends", "skipped", "payloads"),
    [
        (Ends(42, has_checksum=True, has_sequence=True), 9, KERNELS),
        (Ends(has_checksum=True), 0, [KERNELS_CHECKSUM]),
        (Ends(has_sequence=True), 9, [KERNELS_SEQUENCE]),
    ],
)
def test_what_is_sent_is_what_a_kernel_sends(ends, skipped, payloads):
    payloads = [bytes.fromhex(payload) for payload in payloads]
    finish, size = finisher(ends), len(ENCAPSULATION.clear.prefix(ends)[4])

    made = [built(payload[size:], finish, ends, sent) for sent, payload in enumerate(payloads, skipped)]

    assert made == payloads
    assert [strip(payload)[:1] for payload in payloads] == [(size,)] * len(payloads)
    assert ENCAPSULATION.overhead(4, ends) == 20 + size


@pytest.mark.parametrize("remembered", [0, 1, 7, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("lost", [0, 1, 5])
def test_a_far_end_that_remembers_any_number_takes_all_but_three_at_most_after_a_restart(remembered, lost):
    ends = Ends(has_sequence=True)
    finish, refused = finisher(ends), 0
    for count in range(200):
        number = sequence(built(ECHO, finish, ends, count))
        if count < lost:
            continue
        if 0 < (number - remembered) % 2**32 < 2**31:  # RFC 2890 section 2.2
            remembered = number
        else:
            refused += 1

    assert refused <= 3
    assert remembered == 199 - 8


def test_numbers_go_on_behind_the_largest():
    ends = Ends(has_sequence=True)
    finish = finisher(ends)

    numbers = [sequence(built(ECHO, finish, ends, 2**32 + sent)) for sent in (7, 8)]

    assert numbers == [2**32 - 1, 0]


@given(
    ends=st.builds(
        Ends, st.none() | st.integers(0, 2**32 - 1), has_checksum=st.booleans(), has_sequence=st.booleans()
    ),
    body=st.binary(max_size=50),
    version=st.sampled_from([4, 6]),
)
def test_strip_takes_what_is_finished_and_refuses_it_damaged(ends, body, version):
    packet = packets.udp(body, version=version)
    payload = built(packet, finisher(ends), ends)
    damaged = payload[:-1] + bytes([payload[-1] ^ 1])

    start, end, key = strip(payload)

    assert (payload[start:end], key) == (packet, ends.identifier)
    assert (sequence(payload) is not None) == ends.has_sequence
    if ends.has_checksum:
        with pytest.raises(PacketError, match="gre_checksum"):
            strip(damaged)


def test_a_checksum_that_a_kernel_left_to_its_card_is_not_looked_at():
    whole = packets.udp(bytes(200))
    unfinished, _ = packets.as_super_packet(whole, 1)
    ends = Ends(has_checksum=True)
    # The card would have completed both: the outer checksum covers the completed inner one.
    inside = built(whole, finisher(ends), ends)[:8] + unfinished
    outside = ENCAPSULATION.clear.prefix(ends)[4] + whole

    assert [payload[strip(payload)[0] :] for payload in (inside, outside)] == [unfinished, whole]


@pytest.mark.parametrize(
    ("header", "packet", "key", "number"),
    [
        (BASIC, ECHO, None, None),
        (KEYED, ECHO, 42, None),
        (NUMBERED, ECHO, None, 7),
        (BOTH, IPV6, 0xFFFFFFFF, 8),
        (b"\x03\xf8" + BASIC[2:], ECHO, None, None),  # bits 6 to 12 "MUST be ignored"
    ],
)
def test_headers_of_the_documents_are_taken(header, packet, key, number):
    payload = header + packet + b"padding"

    assert strip(payload) == (len(header), len(header) + len(packet), key)
    assert sequence(payload) == number


@pytest.mark.parametrize(
    ("flags", "rest", "at", "key", "number"),
    [
        (0, bytes.fromhex("000800"), 8, None, None),
        (0x20, bytes.fromhex("000800 00000007"), 12, 7, None),
        (0x30, bytes.fromhex("000800 00000007 00000009"), 16, 7, 9),
    ],
)
@given(size=st.integers(0, 9), bit=st.integers(0, 8 * 28 - 1))
def test_a_right_checksum_is_taken_and_a_wrong_one_refused(flags, rest, at, key, number, size, bit):
    payload = with_checksum(flags, rest, ECHO + bytes(size))
    changed = bytearray(payload)
    changed[at + bit // 8] ^= 1 << bit % 8
    assert any(payload[4:6])  # zero is left to a card

    assert strip(payload) == (at, at + len(ECHO), key)
    assert sequence(payload) == number
    with pytest.raises(PacketError) as raised:
        strip(changed)
    assert raised.value.reason == "gre_checksum"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "gre_short"),
        (BASIC[:3], "gre_short"),
        (KEYED[:7], "gre_short"),
        (BOTH[:11], "gre_short"),
        (bytes.fromhex("0001 0800") + ECHO, "gre_version"),  # PPTP's is version 1
        (bytes.fromhex("0007 0800") + ECHO, "gre_version"),
        (bytes.fromhex("4000 0800") + ECHO, "gre_flags"),  # routing, of RFC 1701
        (bytes.fromhex("0800 0800") + ECHO, "gre_flags"),
        (bytes.fromhex("0400 0800") + ECHO, "gre_flags"),
        (bytes.fromhex("0000 6558") + ECHO, "gre_protocol"),  # Ethernet
        (bytes.fromhex("0000 86dd") + ECHO, "gre_protocol"),  # IPv4 said to be IPv6
        (BASIC + IPV6, "gre_protocol"),
        (BASIC, "inner_short"),
        (BASIC + ECHO[:-1], "inner_length"),
        (BASIC + b"\x50" + bytes(40), "inner_version"),
    ],
)
def test_what_is_refused_is_so_by_its_reason(payload, reason):
    with pytest.raises(PacketError) as raised:
        strip(payload)

    assert raised.value.reason == reason
