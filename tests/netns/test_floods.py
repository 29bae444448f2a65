"""A flood of SYNs from spoofed sources: the director admits few of them, and established connections continue."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.netns.test_services import VIP, Farm
from tests.netns.topology import wait_until

FEW = 100  # new connections per second
# Echoes each line, forever.
ECHO = """
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
server = socketserver.ThreadingTCPServer(("", int(sys.argv[1])), Echo)
server.daemon_threads = True
print("ready", flush=True)
server.serve_forever()
"""
TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], 80), 20) as connection:
    stream = connection.makefile("rw")
    for line in sys.stdin:
        stream.write(line)
        stream.flush()
        print(stream.readline(), end="", flush=True)
"""


@pytest.fixture
def farm(lab, tmp_path):
    made = Farm(lab, tmp_path, f"new_flows_per_second = {FEW}\n")
    for host, port in ((made.web1, "80"), (made.web2, "8080")):
        process = host.namespace.popen(sys.executable, "-c", ECHO, port, stdout=subprocess.PIPE)
        assert process.stdout.readline() == "ready\n"
    made.network.start()
    yield made
    made.network.close()


def say(client, text):
    client.stdin.write(text + "\n")
    client.stdin.flush()
    return client.stdout.readline()


def knows(farm):
    """Return whether the director considers both servers up."""
    (told,) = farm.lb1.services("web")
    return all(each["state"] == "up" and each["reason"] for each in told["servers"])


def flows(farm):
    """Return how many connections the director tracks."""
    (told,) = farm.lb1.services("web")
    return sum(each["active_flows"] + each["inactive_flows"] for each in told["servers"])


def test_flood_of_syns_is_held_to_a_few_and_established_connections_go_on(farm):
    visitor = farm.lab.namespace(farm.network.namespace_name("visitor"))
    farm.lab.plug(farm.network.underlay, visitor.end("eth0", "192.0.2.200/24"))
    visitor.run("ip", "route", "add", VIP, "via", farm.lb1.outside)
    farm.lb1.namespace.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")
    wait_until(lambda: knows(farm))
    client = farm.inside.namespace.popen(
        sys.executable, "-c", TALK, VIP, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert say(client, "before") == "before\n"
    assert "firewall of this host" not in farm.lb1.log  # it is not the client's to correct

    flood = visitor.popen(
        sys.executable, "-m", "scripts.benchmarks.syns", VIP, "80", "2", stdout=subprocess.PIPE
    )
    assert flood.stdout.readline() == "ready\n"
    for number in range(20):
        assert say(client, f"during {number}") == f"during {number}\n"
    assert flood.wait(60) == 0

    assert json.loads(flood.stdout.read())["sent"] > 2000
    assert flows(farm) < 1000  # five a second, and those before the flood was one
    assert json.loads(farm.lb1.overlay("status", "--json").stdout)["drops"]["tun_overrun"] == 0
