"""Our schedulers and those of the kernel's ip_vs choose the same server for each flow of a story.

Every packet of a client is sent to a director with ip_vs, and given to a balancer of ours.  Flows begin and end, so
that both count how many each server has, by the same rules.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import socket
from ipaddress import ip_address

import pytest

from tests import packets
from tests.netns.topology import PATIENCE, wait_until
from tests.overlay.forwarding.services.conftest import World
from tests.packets import ACK, FIN, SYN

VIP = "192.0.2.100"  # the address that World has
REAL = {number: f"10.98.0.{11 + number}" for number in range(3)}
FLOWS = 60
# Weights in the order of adding, and how likely a flow ends when another one has begun.
STORIES = [((4, 3, 2), 0), ((4, 3, 2), 0.4), ((5, 1, 1), 0.4), ((100, 50, 50), 0.4), ((4, 0, 2), 0.4)]
ETHERNET, IPV4 = 14, 20


class Director:
    """A host with ip_vs between a client and three servers; only a recorder is behind their addresses."""

    def __init__(self, lab):
        lab.require_module("ip_vs")
        if shutil.which("ipvsadm") is None:
            pytest.skip("ipvsadm is not installed")
        self.host, client, servers = (lab.namespace(name) for name in ("director", "client", "servers"))
        lab.veth(client.end("eth0"), self.host.end("eth0", "10.97.0.1/24"), offloads=False)
        lab.veth(servers.end("eth0"), self.host.end("eth1", "10.98.0.1/24"), offloads=False)
        self.host.run("ip", "address", "add", f"{VIP}/32", "dev", "lo")
        for setting in ("all.rp_filter=0", "eth0.rp_filter=0", "all.forwarding=1"):
            self.host.run("sysctl", "-qw", f"net.ipv4.conf.{setting}")
        self.host.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
        self.host.run("ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
        for address in (*REAL.values(), *(f"198.51.100.{number}" for number in range(1, 9))):
            device = "eth1" if address in REAL.values() else "eth0"
            neighbor = ("lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", device)
            self.host.run("ip", "neighbour", "add", address, *neighbor)
        self._mac = bytes.fromhex(
            self.host.run("cat", "/sys/class/net/eth0/address").strip().replace(":", "")
        )
        self._ports = itertools.count(1000)
        self._at_servers, self._at_client = servers.sniff("eth0"), client.sniff("eth0")
        with client.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        lab.on_exit(self._socket.close)
        self._socket.bind(("eth0", 0))

    def serve(self, scheduler, weights):
        """Configure a single service, adding its servers one after the other; return its port.

        It is another one each time, because a new service at the same port would inherit the flows of the previous one.
        """
        port = next(self._ports)
        service = f"{VIP}:{port}"
        self.host.run("ipvsadm", "-C")
        self.host.run("ipvsadm", "-A", "-t", service, "-s", scheduler)
        for number, weight in enumerate(weights):
            self.host.run("ipvsadm", "-a", "-t", service, "-r", REAL[number], "-i", "-w", str(weight))
        return port

    def send(self, packet):
        """Return the number of the server that the packet of a client goes to; None if it was refused."""
        self._at_servers.frames()
        self._at_client.frames()
        self._socket.send(self._mac + bytes.fromhex("020000000001 0800") + packet)
        went = []

        def is_answered():
            went.extend(number for frame in self._at_servers.frames() if (number := _to(frame)) is not None)
            went.extend(None for frame in self._at_client.frames() if _is_refusal(frame))
            return went

        wait_until(is_answered, PATIENCE)
        (number,) = went
        return number


def _to(frame):
    """Return the number of the server that an encapsulated packet is for."""
    if frame[12:14] != b"\x08\x00" or frame[ETHERNET + 9] != socket.IPPROTO_IPIP:
        return None
    address = str(ip_address(frame[ETHERNET + 16 : ETHERNET + IPV4]))
    return next(number for number, each in REAL.items() if each == address)


def _is_refusal(frame):
    """Return whether a frame carries an ICMP error from the service's address."""
    return (
        frame[12:14] == b"\x08\x00"
        and frame[ETHERNET + 9] == socket.IPPROTO_ICMP
        and frame[ETHERNET + 12 : ETHERNET + 16] == ip_address(VIP).packed
    )


def story(chance, to_port, ending):
    """Yield the packets of flows, some of which end.

    Whether the packet was taken is sent in return.
    """
    open_flows = []
    for port in range(10_000, 10_000 + FLOWS):
        client = f"198.51.100.{chance.randint(1, 8)}"
        was_taken = yield _packet(to_port, client, port, SYN)
        if was_taken:
            yield _packet(to_port, client, port, ACK)
            open_flows.append((client, port))
        if open_flows and chance.random() < ending:
            ended = open_flows.pop(chance.randrange(len(open_flows)))
            yield _packet(to_port, *ended, FIN | ACK)


def _packet(to_port, client, port, flags):
    return packets.tcp(b"", ports=(port, to_port), flags=flags, source=client, destination=VIP)


@pytest.fixture(scope="module")
def director(module_lab):
    return Director(module_lab)


@pytest.mark.parametrize(("weights", "ending"), STORIES, ids=str)
@pytest.mark.parametrize("scheduler", ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"])
def test_the_kernel_and_ours_choose_the_same_servers(director, scheduler, weights, ending):
    port = director.serve(scheduler, weights)
    ours = World()
    ours.serve(scheduler=scheduler, ports=((port, port),))
    # ip_vs has the server that was added last at the head of its list.
    ours.servers(*(ours.row(number, weight=weights[number]) for number in reversed(range(3))))
    by_kernel, by_ours = [], []
    events = story(random.Random(str(weights)), port, ending)
    packet = next(events)
    with contextlib.suppress(StopIteration):
        while True:
            by_kernel.append(director.send(packet))
            by_ours.append(ours.send(packet))
            packet = events.send(by_kernel[-1] is not None)

    assert len(by_kernel) > FLOWS
    assert "".join(map(letter, by_ours)) == "".join(map(letter, by_kernel))


def letter(number):
    return "-" if number is None else "ABC"[number]
