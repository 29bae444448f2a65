"""Hosts with several lanes: every flow arrives in order, whatever happens in the meantime."""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from overlay.forwarding import native
from tests.hypothesis_profiles import PROFILE
from tests.netns.network import PATIENCE, PYTHON, Network, transfer_both_ways
from tests.netns.test_services import Farm
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from tests.netns.network import Host

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")

# Many flows of numbered datagrams: the receiver reports how many arrived, and how many after a later one.
SENDER = """
import socket, sys, time
address, flows, count, size = sys.argv[1], *map(int, sys.argv[2:5])
sockets = [socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
for number, each in enumerate(sockets):
    each.connect((address, 7000))
rest = bytes(size - 8)
for n in range(count):
    for number, each in enumerate(sockets):
        each.send(number.to_bytes(4, "big") + n.to_bytes(4, "big") + rest)
    time.sleep(0.001)
"""
RECEIVER = """
import select, socket, sys
address, flows = sys.argv[1], int(sys.argv[2])
receiving = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
receiving.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
receiving.bind((address, 7000))
print("ready", flush=True)
newest, came, late = [-1] * flows, 0, 0
waited = [receiving, sys.stdin]  # which is closed when all has been sent
while ready := select.select(waited, [], [], None if len(waited) == 2 else 0.5)[0]:
    if sys.stdin in ready:
        waited.remove(sys.stdin)
    if receiving not in ready:
        continue
    data = receiving.recv(65536)
    number, n = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    came += 1
    late += n <= newest[number]
    newest[number] = max(n, newest[number])
print(came, late)
"""


# So many flows that each of four lanes gets some, however the kernel distributes them
FLOWS, COUNT = 48, 200
SIZE = 200


@dataclasses.dataclass
class Pair:
    """Two hosts, each with that many lanes."""

    lanes: int
    paris: Host
    tokyo: Host


@pytest.fixture(params=[2, 4] if PROFILE == "thorough" else [4])
def pair(request, lab, tmp_path):
    network = Network(lab, tmp_path)
    hosts = [network.host(name) for name in ("paris", "tokyo")]
    for each in hosts:
        each.launch("--lanes", str(request.param))
    for each in hosts:
        each.wait_ready()
    pair = Pair(request.param, *hosts)
    wait_open(pair)
    return pair


def wait_open(pair):
    """Return once every lane carries packets: one that was given up on a busy machine is tried again in a minute."""
    wait_until(lambda: are_open(pair), 2 * PATIENCE, "all lanes to be open")


def are_open(pair):
    """Return whether every lane carries packets in both directions; make the two send some."""
    pair.paris.namespace.run("ping", "-c1", "-W1", pair.tokyo.address, check=False)
    rows = pair.paris.peer(pair.tokyo), pair.tokyo.peer(pair.paris)
    return [row["open_lanes"] for row in rows] == [pair.lanes] * 2


def begin(sender, receiver, count=COUNT):
    """Have flows go from one node to another; return a function that waits, and returns how many datagrams arrived, and
    how many of them late.
    """
    receiving = receiver.namespace.popen(
        *(PYTHON, "-c", RECEIVER, receiver.address, str(FLOWS)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert receiving.stdout.readline() == "ready\n"
    arguments = receiver.address, str(FLOWS), str(count), str(SIZE)
    sending = sender.namespace.popen(PYTHON, "-c", SENDER, *arguments)

    def outcome():
        assert sending.wait(PATIENCE) == 0
        came, late = receiving.communicate(timeout=PATIENCE)[0].split()
        return int(came), int(late)

    return outcome


def lanes_at_work(host):
    """Return how many threads of a host's forwarder have used the processor."""
    tasks = Path(f"/proc/{host.status()['forwarder_pid']}/task")
    return sum(int(line.split()[0]) > 0 for line in (each.read_text() for each in tasks.glob("*/schedstat")))


@pytest.mark.parametrize("pair", [2, 4], indirect=True)
def test_every_flow_arrives_in_its_order_in_both_directions(pair):
    there, back = begin(pair.paris, pair.tokyo), begin(pair.tokyo, pair.paris)

    for came, late in (there(), back()):
        assert late == 0
        assert came > FLOWS * COUNT / 10  # on a busy machine, a queue may be full
    for host in (pair.paris, pair.tokyo):
        assert host.status()["lanes"] == pair.lanes
        assert lanes_at_work(host) == pair.lanes
        carried = host.status()["lane_traffic"]
        assert len(carried) == pair.lanes
        for each in carried:  # each lane sends flows of its own, and receives those of a lane of the other
            assert min(each["rx_packets"], each["tx_packets"]) >= COUNT / 10
        assert host.faults(pair.tokyo if host is pair.paris else pair.paris) == {}


def test_order_is_kept_but_for_a_moment_while_sockets_are_replaced(pair):
    there = begin(pair.paris, pair.tokyo, count=1500)
    for port in (4500, 51820):
        pair.tokyo.settings["listen_port"] = port
        assert "reloaded" in pair.tokyo.reload()
        pair.paris.wait_peer(
            pair.tokyo, "at its new port", lambda row, port=port: row["endpoint"].endswith(f":{port}")
        )

    came, late = there()
    # Datagrams waiting in a replaced socket are read along with those of its successor, as with a single lane.
    assert late < came / 10
    assert came > FLOWS * 1500 / 10


def test_a_forwarder_that_is_started_again_has_its_lanes(pair):
    forwarder = pair.paris.status()["forwarder_pid"]
    os.kill(forwarder, signal.SIGKILL)
    wait_until(lambda: pair.paris.status()["forwarder_pid"] not in {None, forwarder}, PATIENCE)
    wait_open(pair)

    came, late = begin(pair.paris, pair.tokyo)()

    assert (came > FLOWS * COUNT / 10, late) == (True, 0)
    assert pair.paris.status()["lanes"] == pair.lanes


def test_a_host_is_followed_to_another_address_by_whatever_lane_speaks_first(pair):
    address = pair.paris.outside
    for number in range(101, 105):
        before, address = address, f"192.0.2.{number}"
        pair.paris.move(address, before)

        pair.paris.ping(pair.tokyo.address)

        pair.tokyo.wait_peer(
            pair.paris, "moved", lambda row, address=address: row["endpoint"] == f"{address}:51820"
        )
    came, late = begin(pair.tokyo, pair.paris)()
    assert (came > FLOWS * COUNT / 10, late) == (True, 0)
    wait_open(pair)


def test_streams_arrive_unchanged_by_units_of_several_lanes(pair):
    paris, tokyo = pair.paris, pair.tokyo
    for _ in range(4):
        transfer_both_ways(paris.namespace, tokyo.namespace, tokyo.address, 4 << 20)

    rows = paris.peer(tokyo), tokyo.peer(paris)
    assert all(row["rx_units"] > 0 for row in rows)
    assert paris.faults(tokyo) == tokyo.faults(paris) == {}


@pytest.mark.parametrize("encapsulation", ["udp", "vxlan"])
def test_flows_in_the_clear_keep_their_order(lab, tmp_path, encapsulation):
    network = Network(lab, tmp_path, encapsulation=encapsulation)
    paris, tokyo = (network.host(name) for name in ("paris", "tokyo"))
    for each in (paris, tokyo):
        each.launch("--lanes", "4")
    for each in (paris, tokyo):
        each.wait_ready()
    there, back = begin(paris, tokyo), begin(tokyo, paris)

    for came, late in (there(), back()):
        assert (came > FLOWS * COUNT / 10, late) == (True, 0)
    for host in (paris, tokyo):
        carried = host.status()["lane_traffic"]
        assert all(each["tx_packets"] >= COUNT / 10 for each in carried)


def test_connections_to_a_virtual_service_go_by_lanes(lab, tmp_path):
    farm = Farm(lab, tmp_path)
    farm.serve(farm.web1, 80)
    farm.serve(farm.web2, 8080)
    for host in farm.network.peers.values():
        host.launch("--lanes", "4")
    for host in farm.network.peers.values():
        host.wait_ready()
    farm.wait_servers(farm.client.namespace, "web1", "web2")

    servers = farm.servers(farm.client.namespace, 60)

    assert servers.keys() == {"web1", "web2"}
    assert sum(servers.values()) == 60
    carried = farm.lb1.status()["lane_traffic"]
    assert sum(each["tx_packets"] > 0 for each in carried) > 1
    farm.network.close()


def test_a_tap_has_one_lane_and_the_agent_says_so(lab, tmp_path):
    network = Network(lab, tmp_path, device="tap")
    paris, tokyo = (
        network.host(name, subnets=None, address=[f"10.244.0.{number}"])
        for number, name in enumerate(("paris", "tokyo"), 1)
    )
    for each in (paris, tokyo):
        each.launch("--lanes", "4")
    for each in (paris, tokyo):
        each.wait_ready()

    paris.ping("10.244.0.2", 2)

    status = paris.status()
    assert (status["lanes"], status["lane_traffic"]) == (1, [])
    assert (
        "this node has one lane instead of the 4 that --lanes asks for: a tap device has one"
        in status["notes"]
    )


@pytest.mark.skipif(
    not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"
)
def test_no_counter_goes_twice_to_wireguard_go(lab, tmp_path):
    network = Network(lab, tmp_path)
    ours, theirs = network.host("ours"), network.wireguard("theirs")
    ours.launch("--lanes", "4")
    ours.wait_ready()
    theirs.start()
    theirs.meet(ours)
    ours.namespace.run("ping", "-c1", "-w60", theirs.address)
    sniffer = ours.namespace.sniff("eth0")
    sniffer._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE

    came, late = begin(ours, theirs)()

    assert (came > FLOWS * COUNT / 10, late) == (True, 0)
    used = collections.Counter(each for frame in sniffer.frames() for each in messages(frame, ours.outside))
    assert sum(used.values()) >= came
    assert max(used.values()) == 1


def messages(frame, source):
    """Return the receiver index and counter of each transport message in a frame that a host has sent,
    merged or not.
    """
    packet, size = frame[14:], 4 * (frame[14] & 15)
    if frame[12:14] != b"\x08\0" or packet[9] != 17 or packet[12:16] != socket.inet_aton(source):
        return
    payload = packet[size + 8 :]
    sealed = 32 + -(-(SIZE + 28) // 16) * 16
    for at in range(0, len(payload), sealed):
        if payload[at : at + 4] == b"\4\0\0\0":
            yield payload[at + 4 : at + 16]
