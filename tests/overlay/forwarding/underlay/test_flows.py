from __future__ import annotations

import pytest

from overlay.forwarding.underlay.flows import hash_flow
from tests import packets


@pytest.mark.parametrize("version", [4, 6])
def test_packets_of_one_flow_have_one_number_and_flows_different_ones(version):
    flows = [
        {
            hash_flow(
                memoryview(build(bytes(size), version=version, ports=(40000 + port, 443), tos=size % 4))
            )
            for build in (packets.tcp, packets.udp)
            for size in (1, 60, 1300)
        }
        for port in range(64)
    ]

    assert [len(flow) for flow in flows] == [1] * 64
    assert len(set.union(*flows)) == 64
    assert len({number % 16 for flow in flows for number in flow}) == 16


def test_fragments_of_one_packet_have_one_number():
    first = packets.udp(bytes(100), fragment=0x2000)
    later = packets.ipv4(bytes([7]) * 100, protocol=packets.UDP, fragment=13)

    assert hash_flow(memoryview(first)) == hash_flow(memoryview(later))


@pytest.mark.parametrize("version", [4, 6])
def test_packets_without_ports_are_told_apart_by_their_addresses(version):
    build, other = (packets.ipv4, "10.0.0.3") if version == 4 else (packets.ipv6, "fd00::3")

    numbers = [hash_flow(memoryview(build(body, protocol=1))) for body in (b"", bytes(8), b"\1" * 80)]

    assert len(set(numbers)) == 1
    assert hash_flow(memoryview(build(b"", protocol=1, destination=other))) != numbers[0]


@pytest.mark.parametrize(("version", "ends"), [(4, range(12, 24)), (6, range(8, 44))])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_flows_that_differ_in_one_byte_of_an_address_or_a_port_are_told_apart(version, ends, build):
    packet = build(bytes(60), version=version)
    others = [packet[:at] + bytes([packet[at] ^ 0x40]) + packet[at + 1 :] for at in ends]

    numbers = {hash_flow(memoryview(each)) for each in (packet, *others)}

    assert len(numbers) == 1 + len(ends)


@pytest.mark.parametrize(("version", "ends"), [(4, range(12, 24)), (6, range(8, 44))])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_bytes_beside_the_addresses_and_ports_tell_no_flows_apart(version, ends, build):
    packet = build(bytes(60), version=version)
    kinds = {0, 6, 7, 9} if version == 4 else {0, 6}  # the field that says whether there are ports at all
    others = [
        packet[:at] + bytes([packet[at] ^ 0x40]) + packet[at + 1 :]
        for at in range(len(packet))
        if at not in ends and at not in kinds
    ]

    assert {hash_flow(memoryview(each)) for each in others} == {hash_flow(memoryview(packet))}
