"""ip_vs and keepalived as directors, and our agents at real servers, which know the directors from the service in the
peers file.
"""

from __future__ import annotations

import collections
import shutil
import socket
import subprocess
import sys

import pytest

from tests.netns.network import PATIENCE, Network, Node
from tests.netns.topology import wait_until

VIP, PORT = "192.0.2.100", 80  # on-link on the underlay
# Answers over TCP and UDP with its name and the address of the client.
SERVER = """
import contextlib, socket, sys, threading
name, address = sys.argv[1:]
listener = socket.create_server(("", 80))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind((address, 80))
print("ready", flush=True)
def answer():
    while True:
        _, client = datagrams.recvfrom(2000)
        datagrams.sendto(f"{name} {client[0]}".encode(), client)
threading.Thread(target=answer, daemon=True).start()
while True:
    connection, client = listener.accept()
    with connection, contextlib.suppress(OSError):  # a check may have reset it
        connection.sendall(f"{name} {client[0]}".encode())
"""


class Site:
    """A director without an agent, two servers with agents, and a client on the link that all share."""

    def __init__(self, lab, directory):
        lab.require_module("ip_vs")
        self.lab = lab
        self.network = network = Network(lab, directory)
        self.servers = [network.host(name) for name in ("paris", "berlin")]
        foreign = {"public_key": None, "encapsulation": "ipip", "subnets": ["10.244.3.0/24"]}
        self.director = network._plug(Node(network, "tokyo", 3, "none", foreign))
        network.more = (
            f'[services.web]\naddress = "{VIP}"\nports = {PORT}\nprotocol = ["tcp", "udp"]\n'
            'directors = ["tokyo"]\nservers = ["paris", "berlin"]\n'
        )
        self.client = lab.namespace(network.namespace_name("visitor"))
        lab.plug(network.underlay, self.client.end("eth0", "192.0.2.200/24"))
        director = self.director.namespace
        director.run("ip", "address", "add", f"{VIP}/32", "dev", "eth0")
        director.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        self.processes = {}
        network.start()
        for server in self.servers:
            wait_until(lambda: VIP in server.namespace.run("ip", "address"), PATIENCE)  # noqa: B023  at once
            self.serve(server)

    def serve(self, server):
        process = server.namespace.popen(
            sys.executable, "-c", SERVER, server.name, VIP, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == "ready\n"
        self.processes[server.name] = process

    def connect(self, count=8):
        """Return the answers of servers to so many connections, and the client address; an error for one that fails."""
        said = collections.Counter()
        for _ in range(count):
            with self.client.entered():
                try:
                    connection = socket.create_connection((VIP, PORT), timeout=PATIENCE)
                except ConnectionRefusedError as error:
                    said[type(error).__name__] += 1
                    continue
            with connection:
                said[connection.makefile().read()] += 1
        return said

    def ask(self, count=8):
        """Return the answers of servers to so many datagrams, each from another port."""
        said = collections.Counter()
        for _ in range(count):
            with self.client.entered():
                asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with asking:
                asking.settimeout(PATIENCE)
                asking.connect((VIP, PORT))
                asking.send(b"who are you?")
                said[asking.recv(100).decode()] += 1
        return said


@pytest.fixture
def site(lab, tmp_path):
    made = Site(lab, tmp_path)
    yield made
    made.network.close()


BOTH = {"paris 192.0.2.200": 4, "berlin 192.0.2.200": 4}


def test_ip_vs_spreads_clients_over_our_servers(site):
    if shutil.which("ipvsadm") is None:
        pytest.skip("ipvsadm is not installed")
    ipvsadm = site.director.namespace.run
    for kind in ("-t", "-u"):
        ipvsadm("ipvsadm", "-A", kind, f"{VIP}:{PORT}", "-s", "rr")
        for server in site.servers:
            ipvsadm("ipvsadm", "-a", kind, f"{VIP}:{PORT}", "-r", server.outside, "-i")

    assert site.connect() == BOTH
    assert site.ask() == BOTH


def test_keepalived_spreads_clients_and_takes_a_server_out_that_fails(site, tmp_path):
    if shutil.which("keepalived") is None:
        pytest.skip("keepalived is not installed")
    reals = "".join(
        f"real_server {server.outside} {PORT} {{\nTCP_CHECK {{\nconnect_timeout 3\nretry 0\n}}\n}}\n"
        for server in site.servers
    )
    config = tmp_path / "keepalived.conf"
    config.write_text(
        f"virtual_server {VIP} {PORT} {{\ndelay_loop 0.5\nlb_algo rr\nlb_kind TUN\nprotocol TCP\n{reals}}}\n"
    )
    with (tmp_path / "keepalived.log").open("w") as log:
        site.director.namespace.popen(
            *("keepalived", "-n", "-l", "-D", "-C", "-f", config),
            *("-p", tmp_path / "keepalived.pid", "-c", tmp_path / "checkers.pid"),
            stdout=log,
            stderr=log,
        )
    wait_until(lambda: site.connect(1).keys() < BOTH.keys(), PATIENCE)

    assert site.connect() == BOTH

    site.lab.end_process(site.processes["paris"])
    wait_until(lambda: site.connect().keys() == {"berlin 192.0.2.200"}, PATIENCE)
    site.serve(site.servers[0])
    wait_until(lambda: site.connect() == BOTH, PATIENCE)
