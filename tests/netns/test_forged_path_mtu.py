"""A stranger who claims a small path MTU, by an ICMP error that quotes one of the host's datagrams."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from tests import packets
from tests.netns.network import PATIENCE, PORT, Network, connect, transfer
from tests.netns.topology import wait_until

FORGED = 600  # bytes; more than Linux's minimum, net.ipv4.route.min_pmtu
ICMP, IPV6 = 1, 41
SIZE = 8 << 20


def forge(stranger, paris, tokyo):
    """Let *stranger* claim to Paris that the path to Tokyo has an MTU of FORGED bytes."""
    quoted = packets.ipv4(
        struct.pack("!4H", PORT, PORT, 1400, 0), source=paris.outside, destination=tokyo.outside, protocol=17
    )
    error = struct.pack("!BBHHH", 3, 4, 0, 0, FORGED) + quoted
    error = error[:2] + packets.internet_checksum(error).to_bytes(2, "big") + error[4:]
    with stranger.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, ICMP) as raw:
        raw.sendto(error, (paris.outside, 0))


def believed(paris, tokyo):
    """Return the path MTU to Tokyo that Paris' kernel believes; None if it has learned none."""
    (route,) = json.loads(paris.namespace.run("ip", "-j", "route", "get", tokyo.outside))
    return {each for metrics in route.get("metrics", []) for each in [metrics.get("mtu")]}


@pytest.fixture
def attacked(lab, tmp_path):
    network = Network(lab, tmp_path, offloads=False)
    network.stranger = lab.namespace(network.namespace_name("stranger"))
    lab.plug(network.underlay, network.stranger.end("eth0", "192.0.2.99/24"), offloads=False)
    yield network
    network.close()


def outer_sizes(sniffer):
    """Return the sizes of the IPv4 packets that were seen, and how many of them are fragments."""
    seen = [frame[14:] for frame in sniffer.frames() if frame[12:14] == b"\x08\x00" and frame[23] == 17]
    fragments = [packet for packet in seen if packet[6] & 0x3F or packet[7]]
    return [int.from_bytes(packet[2:4], "big") for packet in seen], len(fragments)


def test_an_agent_of_ours_goes_by_its_probes(attacked):
    paris, tokyo = attacked.host("paris"), attacked.host("tokyo")
    attacked.start()
    near, far = connect(paris.namespace, tokyo.namespace, tokyo.address)
    with near, far:
        transfer(near, far, SIZE)
    wait_until(lambda: paris.peer(tokyo)["path_mtu"] == 1420, PATIENCE, "the path to be searched")
    paris.ping(tokyo.address)

    for _ in range(3):
        forge(attacked.stranger, paris, tokyo)
    sniffer = tokyo.namespace.sniff("eth0")
    near, far = connect(paris.namespace, tokyo.namespace, tokyo.address)
    with near, far:
        transfer(near, far, SIZE)

    sizes, fragments = outer_sizes(sniffer)
    assert max(sizes) > 1400
    assert not fragments
    assert paris.peer(tokyo)["path_mtu"] == 1420
    assert not paris.peer(tokyo)["notes"]
    assert believed(paris, tokyo) == set()
    assert paris.peer(tokyo)["kernel_path_mtu"] is None


def test_an_agent_of_ours_that_had_no_super_packet_yet_is_asked_at_once(attacked):
    paris, tokyo = attacked.host("paris"), attacked.host("tokyo")
    attacked.start()
    paris.ping(tokyo.address)

    forge(attacked.stranger, paris, tokyo)

    wait_until(lambda: believed(paris, tokyo) == {FORGED}, PATIENCE, "the kernel to believe it")
    largest = ("ping", "-n", "-c1", "-W1", "-M", "do", "-s", "1392", tokyo.address)
    wait_until(
        lambda: (
            paris.ping(tokyo.address, 3)
            or (paris.namespace.completed(*largest).returncode == 0 and paris.peer(tokyo)["tx_packets"] > 10)
        ),
        PATIENCE,
        "the largest packet to pass",
    )
    wait_until(lambda: paris.peer(tokyo)["path_mtu"] == 1420, PATIENCE, "the answer to the probe")


def test_of_a_plain_peer_the_kernels_word_counts_and_is_told(attacked):
    paris, tokyo = attacked.host("paris"), attacked.host("tokyo")
    attacked.settings["bulk"] = False
    attacked.start()
    paris.ping(tokyo.address)

    forge(attacked.stranger, paris, tokyo)

    wait_until(
        lambda: paris.ping(tokyo.address) or paris.peer(tokyo)["notes"], PATIENCE, "a note on what was told"
    )
    row = paris.peer(tokyo)
    assert row["kernel_path_mtu"] == FORGED
    assert 0 < row["kernel_path_mtu_expires"] <= 600
    assert "`ip route flush cache`" in " ".join(row["notes"])
    paris.namespace.run("ip", "route", "flush", "cache")
    assert paris.peer(tokyo)["kernel_path_mtu"] is None
    assert not paris.peer(tokyo)["notes"]


def test_beside_a_plain_peer_on_the_same_socket_both_are_treated_as_they_are(attacked):
    paris, tokyo = attacked.host("paris"), attacked.host("tokyo")
    rome = attacked.host("rome", public_key=None, encapsulation=None)
    rome.settings["public_key"] = rome.public_key
    attacked.start()
    for other in (tokyo, rome):
        paris.ping(other.address)
    near, far = connect(paris.namespace, tokyo.namespace, tokyo.address)
    with near, far:
        transfer(near, far, SIZE)
    wait_until(lambda: paris.peer(tokyo)["path_mtu"] == 1420, PATIENCE, "the path to be searched")

    forge(attacked.stranger, paris, tokyo)
    forge(attacked.stranger, paris, rome)
    sniffer = tokyo.namespace.sniff("eth0")
    near, far = connect(paris.namespace, tokyo.namespace, tokyo.address)
    with near, far:
        transfer(near, far, SIZE)

    sizes, fragments = outer_sizes(sniffer)
    assert max(sizes) > 1400
    assert not fragments
    assert paris.peer(rome)["kernel_path_mtu"] == FORGED
