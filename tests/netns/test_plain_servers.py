"""A real server that is a plain Linux host without an agent: it has a tunnel, and runs the commands that ``overlay
check`` prints.

The tunnel is the kernel's if it has one, otherwise the tests' own under the same name.
"""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from overlay.wire.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6
from tests.netns.network import PATIENCE, Network, Node
from tests.netns.topology import wait_until

RAW_TUNNEL = Path(__file__).with_name("raw_tunnel.py")
VIPS = {4: "192.0.2.100", 6: "2001:db8::100"}  # on-link on the underlay
ROUTER = {4: "192.0.2.254", 6: "2001:db8::254"}
FAR_ROUTER = {4: "198.51.100.1", 6: "2001:db8:7::1"}
CLIENT = {4: "198.51.100.7", 6: "2001:db8:7::7"}
LENGTH = {4: 24, 6: 64}
DEVICES = {4: ("ipip", "tunl0"), 6: ("sit", "sit0")}
SEGMENT = {4: 1380, 6: 1360}  # of TCP, that fits into the tunnels
UPLOAD = 200_000
# Answers over TCP and UDP with the client's address and the number of bytes received.
SERVER = """
import contextlib, socket, sys, threading
address = sys.argv[1]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, 80), family=family)
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind((address, 53))
print("ready", flush=True)
def answer():
    while True:
        data, client = datagrams.recvfrom(2000)
        datagrams.sendto(f"{client[0]} {len(data)}".encode(), client)
threading.Thread(target=answer, daemon=True).start()
while True:
    connection, client = listener.accept()
    with connection, contextlib.suppress(OSError):  # a check may have reset it
        size = len(connection.makefile("rb").read())
        connection.sendall(f"{client[0]} {size}".encode())
"""


class Site:
    """One director, one plain server, and a client behind a router of the link that both are on."""

    def __init__(self, lab, directory, version):
        self.lab, self.version, self.vip = lab, version, VIPS[version]
        self.network = network = Network(lab, directory)
        self.lb1 = network.host("lb1")
        plain = {"public_key": None, "encapsulation": "ipip", "subnets": None, "address": "10.244.0.22"}
        self.plain = network._plug(Node(network, "plain", 2, "none", plain))
        network.more = (
            f'[services.web]\naddress = "{self.vip}"\nports = [80, 53]\nprotocol = ["tcp", "udp"]\n'
            'directors = ["lb1"]\nservers = ["plain"]\n'
        )
        self.router = lab.namespace(network.namespace_name("router"))
        self.client = lab.namespace(network.namespace_name("visitor"))
        near = [f"{ROUTER[each]}/{LENGTH[each]}" for each in (4, 6)]
        lab.plug(network.underlay, self.router.end("eth0", *near))
        far = [f"{FAR_ROUTER[each]}/{LENGTH[each]}" for each in (4, 6)]
        own = [f"{CLIENT[each]}/{LENGTH[each]}" for each in (4, 6)]
        lab.veth(self.router.end("eth1", *far), self.client.end("eth0", *own))
        self.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for each in (4, 6):
            self.client.run("ip", "route", "add", "default", "via", FAR_ROUTER[each])
            for node in (self.lb1, self.plain):
                node.namespace.run("ip", "route", "add", "default", "via", ROUTER[each])
            # The server answers clients through another route than its default one
            network = ip_network(f"{CLIENT[each]}/{LENGTH[each]}", strict=False)
            self.plain.namespace.run("ip", "route", "add", str(network), "via", ROUTER[each])
        for setting in ("ipv4.conf.eth0.forwarding", "ipv6.conf.all.forwarding"):
            self.lb1.namespace.run("sysctl", "-qw", f"net.{setting}=1")

    def commands(self):
        """Return what ``overlay check`` says the plain server needs."""
        self.lb1.write()
        told = self.lb1.overlay("check", "--peers", str(self.lb1.peers_path), "--json")
        assert told.stdout, told.stderr
        return [each["command"] for each in json.loads(told.stdout)["server_commands"]["plain"]]

    def play_tunnel(self, device):
        """Run the tests' own tunnel at the server; it accepts packets from everyone, as the kernel's does."""
        if (Path("/sys/module") / DEVICES[self.version][0]).is_dir():
            pytest.skip("the kernel's own tunnel is loaded, and has the name of the device")
        process = self.plain.namespace.popen(
            *(sys.executable, str(RAW_TUNNEL), "--device", device, "ipip", "any", "-", "-"),
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == "ready\n"

    def serve(self):
        process = self.plain.namespace.popen(sys.executable, "-c", SERVER, self.vip, stdout=subprocess.PIPE)
        assert process.stdout.readline() == "ready\n"

    def upload(self):
        """Return the server's answer to a connection that sends much, and the size of its segments."""
        with self.client.entered():
            connection = socket.create_connection((self.vip, 80), timeout=PATIENCE)
        with connection:
            connection.sendall(bytes(UPLOAD))
            connection.shutdown(socket.SHUT_WR)
            said = connection.makefile().read()
            return said, connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)

    def ask(self, size):
        """Return the server's answer to one datagram."""
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        with self.client.entered():
            asking = socket.socket(family, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(PATIENCE)
            asking.connect((self.vip, 53))  # an answer from elsewhere is not received
            asking.send(bytes(size))
            return asking.recv(100).decode()

    def answers_to(self, frames):
        """Return the frames that go from the virtual address to the client."""
        way = ip_address(self.vip).packed + ip_address(CLIENT[self.version]).packed
        at, kind = (26, ETHERTYPE_IPV4) if self.version == 4 else (22, ETHERTYPE_IPV6)
        return [
            frame
            for frame in frames
            if int.from_bytes(frame[12:14], "big") == kind and frame[at : at + len(way)] == way
        ]


@pytest.fixture(params=[(tunnel, version) for tunnel in ("played", "kernel") for version in (4, 6)], ids=str)
def site(request, lab, tmp_path):
    tunnel, version = request.param
    module, device = DEVICES[version]
    if tunnel == "kernel":
        lab.require_module(module)
    made = Site(lab, tmp_path, version)
    needed = made.commands()
    assert needed[0] == f"modprobe {module}"
    if tunnel == "played":
        made.play_tunnel(device)
        needed = needed[1:]
    for command in needed:
        made.plain.namespace.run("sh", "-c", command)
    made.serve()
    made.lb1.start()
    wait_until(lambda: made.client.completed("ping", "-c1", "-W1", made.vip).returncode == 0, PATIENCE)
    yield made
    made.network.close()


def test_plain_server_with_what_check_prints_hears_clients_and_answers_them_directly(site):
    at_director, at_router = (each.sniff("eth0") for each in (site.lb1.namespace, site.router))

    said, segment = site.upload()
    told = [site.ask(size) for size in (1, 1300)]

    client = CLIENT[site.version]
    assert said == f"{client} {UPLOAD}"
    assert told == [f"{client} 1", f"{client} 1300"]
    assert segment <= SEGMENT[site.version]
    assert site.answers_to(at_router.frames())
    assert site.answers_to(at_director.frames()) == []


def test_client_hears_that_the_host_of_its_server_cannot_be_reached(site):
    """The director's own kernel finds out, as a router of the underlay would: nothing answers there any more."""
    site.plain.namespace.run("ip", "link", "set", "eth0", "down")

    with site.client.entered(), pytest.raises(OSError, match="No route to host") as failure:
        socket.create_connection((site.vip, 80), timeout=PATIENCE)

    assert failure.value.errno == errno.EHOSTUNREACH
