from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.forwarding import unreachable
from overlay.forwarding.unreachable import Silent, Unreachable
from tests import packets

ERRORS_BURST = int(unreachable.ERRORS_BURST)
NODE_V4, NODE_V6 = ip_address("10.244.1.1").packed, ip_address("fd00:244:1::1").packed


class FakeRaw:
    """A raw ICMP socket that keeps what it is given, or refuses it."""

    def __init__(self, error=None):
        self.sent, self.error, self.is_closed = [], error, False

    def sendto(self, data, address):
        if self.error:
            raise self.error
        self.sent.append((data, address))

    def close(self):
        self.is_closed = True


class Sender:
    """Unreachable, with what it wrote into the tun."""

    def __init__(self, raw=None, addresses=(NODE_V4, NODE_V6)):
        self.written = []
        self.unreachable = Unreachable(lambda buffers: self.written.append(b"".join(buffers)))
        self.unreachable.send_from(list(addresses), raw)

    def tell(self, packet, now=0.0, mtu=0):
        self.unreachable.tell(memoryview(packet), now, mtu)


def test_an_ipv4_error_leaves_through_the_raw_socket():
    raw = FakeRaw()
    sender = Sender(raw)
    packet = packets.udp(b"x", source="10.244.1.9")

    sender.tell(packet)

    ((message, address),) = raw.sent
    assert address == ("10.244.1.9", 0)
    assert message[:2] == bytes([3, 1])
    assert message[8:] == packet
    assert sender.written == []


def test_without_a_raw_socket_the_destination_stands_as_source():
    sender = Sender()
    packet = packets.udp(b"x", source="10.244.1.9", destination="10.244.2.9")

    sender.tell(packet)

    (written,) = sender.written
    assert written[:10] == bytes(10)
    assert (written[22:26], written[26:30]) == (packet[16:20], packet[12:16])


def test_an_ipv6_error_enters_by_the_tun_from_the_node_s_address():
    sender = Sender(FakeRaw())
    packet = packets.udp(b"x", version=6)

    sender.tell(packet)

    (written,) = sender.written
    assert (written[18:34], written[34:50]) == (NODE_V6, packet[8:24])


def test_a_node_without_an_ipv6_address_lends_the_destination_s():
    sender = Sender(addresses=[NODE_V4])
    packet = packets.udp(b"x", version=6)

    sender.tell(packet)

    assert sender.written[0][18:34] == packet[24:40]


def test_nobody_is_told_of_an_error_about_an_error():
    sender = Sender()

    sender.tell(packets.ipv4(bytes([3, 1]) + bytes(6), protocol=1))

    assert sender.written == []


def test_errors_to_one_address_are_few():
    sender = Sender()
    for number in range(1000):
        sender.tell(packets.udp(b"x", source="10.244.1.9"), number / 1000)
        sender.tell(packets.udp(b"x", version=6, source="fd00::9"), number / 1000)

    assert len(sender.written) == 2 * (20 + 9)


def test_another_address_has_its_own_rate():
    sender = Sender()
    for _ in range(50):
        sender.tell(packets.udp(b"x", source="10.244.1.9"))
    sender.tell(packets.udp(b"x", source="10.244.1.10"))

    assert len(sender.written) == 21


@pytest.mark.parametrize("other", ["fc00::9", "fd00::8", "fd00:0:0:1::9"])
def test_ipv6_addresses_that_differ_in_any_byte_have_rates_of_their_own(other):
    sender = Sender()
    for _ in range(50):
        sender.tell(packets.udp(b"x", version=6, source="fd00::9"))
    sender.tell(packets.udp(b"x", version=6, source=other))

    assert len(sender.written) == ERRORS_BURST + 1


@pytest.mark.parametrize(
    ("version", "source", "destinations"),
    [(4, "10.244.1.9", ("10.244.2.9", "11.244.2.9")), (6, "fd00::9", ("fd00::1", "fc00::1"))],
)
def test_the_rate_is_that_of_the_sender_wherever_it_sends(version, source, destinations):
    sender = Sender()
    for _ in range(50):
        for destination in destinations:
            sender.tell(packets.udp(b"x", version=version, source=source, destination=destination))

    assert len(sender.written) == ERRORS_BURST


def test_a_raw_socket_that_refuses_is_no_matter():
    sender = Sender(FakeRaw(OSError(1, "EPERM")))

    sender.tell(packets.udp(b"x"))

    assert sender.written == []


def test_a_tun_that_refuses_is_no_matter():
    def refuse(buffers):
        raise OSError(5, "EIO")

    unreachable = Unreachable(refuse)
    unreachable.send_from([], None)

    unreachable.tell(packets.udp(b"x"), 0.0)
    unreachable.tell(packets.udp(b"x", version=6), 0.0)


def test_a_raw_socket_that_is_replaced_is_closed():
    first, second = FakeRaw(), FakeRaw()
    sender = Sender(first)

    sender.unreachable.send_from([], second)

    assert (first.is_closed, second.is_closed) == (True, False)


def test_the_sender_of_a_packet_too_big_learns_the_mtu():
    raw = FakeRaw()
    sender = Sender(raw)

    sender.tell(packets.udp(bytes(1400), source="10.244.1.9"), mtu=1344)
    sender.tell(packets.udp(bytes(1400), version=6), mtu=1344)

    ((message, _),) = raw.sent
    assert message[:2] + message[4:8] == bytes([3, 4, 0, 0]) + (1344).to_bytes(2, "big")
    (written,) = sender.written
    assert written[50:52] + written[54:58] == bytes([2, 0]) + (1344).to_bytes(4, "big")


def test_a_bridge_tells_nobody():
    written = []

    Silent(written.append).tell(packets.udp(b"x", source="10.244.1.9"), 0.0)

    assert written == []


def test_ipv6_senders_whose_addresses_differ_in_any_byte_have_rates_of_their_own():
    sender = Sender()
    for at in range(16):
        source = bytearray(ip_address("fd00:9::9").packed)
        source[at] ^= 0x40
        packet = packets.udp(b"x", version=6, source=str(ip_address(bytes(source))))
        for _ in range(ERRORS_BURST + 5):
            sender.tell(packet)

    assert len(sender.written) == 16 * ERRORS_BURST


def test_one_ipv6_sender_has_one_rate_whatever_it_sends_to():
    sender = Sender()
    for number in range(ERRORS_BURST + 5):
        sender.tell(packets.udp(b"x", version=6, source="fd00:9::9", destination=f"fd00:{number + 1:x}00::1"))

    assert len(sender.written) == ERRORS_BURST


def test_the_error_of_a_borrowed_source_is_a_whole_packet():
    lender = Sender(addresses=())
    packet = packets.udp(b"x" * 40, version=6, source="fd00:9::9", destination="fd00:8::8")
    packet4 = packets.udp(b"x" * 40, source="10.9.9.9", destination="10.8.8.8")

    lender.tell(packet)
    lender.tell(packet4)

    error, error4 = (written[10:] for written in lender.written)
    assert (error[8:24], error[24:40]) == (packet[24:40], packet[8:24])
    assert (error[40:42], error[48:]) == (b"\1\3", packet)
    assert packets.is_l4_checksum_right(error)
    assert (error4[12:16], error4[16:20], error4[20:22]) == (packet4[16:20], packet4[12:16], b"\3\1")
    assert packets.with_total_length(error4) == error4


def test_a_packet_that_goes_nowhere_is_not_called_too_big():
    sender = Sender()

    for version in (4, 6):
        sender.unreachable.tell(memoryview(packets.udp(b"x", version=version)), 0.0)

    assert [written[10 + at : 12 + at] for written, at in zip(sender.written, (20, 40), strict=True)] == [
        b"\3\1", b"\1\3",
    ]  # fmt: skip


@pytest.mark.parametrize("version", [4, 6])
def test_sender_of_a_packet_of_which_the_beginning_is_there_is_told(version):
    sender = Sender()
    packet = packets.udp(bytes(100), version=version)
    least = 28 if version == 4 else 48

    sender.unreachable.tell_of_part(packet[: least - 1], 0.0)
    assert sender.written == []
    sender.unreachable.tell_of_part(packet[:least], 0.0)
    assert sender.written[0].endswith(packet[:least])
    sender.unreachable.tell_of_part(b"\x70" * 60, 0.0)
    assert len(sender.written) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_about_a_virtual_address_comes_from_it(version):
    raw = FakeRaw()
    sender = Sender(raw)
    source, virtual = ("10.244.1.9", "203.0.113.80") if version == 4 else ("fd00::9", "2001:db8::80")
    sender.unreachable.is_virtual = lambda address: address == ip_address(virtual).packed

    sender.tell(packets.udp(b"x", version=version, source=source, destination=virtual))

    (written,) = sender.written
    at = 10 + 12 if version == 4 else 10 + 8
    assert written[at : at + (4 if version == 4 else 16)] == ip_address(virtual).packed
    assert raw.sent == []
