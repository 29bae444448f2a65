"""Directors that synchronize connections on real hosts: connections survive when one is killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from overlay.host import control
from tests.netns.test_services import Farm, listed
from tests.netns.topology import wait_until

# Sends each client 500 bytes every tenth of a second; at the end of its input, its name and how often it did so.
SLOW_SERVER = """
import socket, sys, threading
name, port = sys.argv[1], int(sys.argv[2])
server = socket.create_server(("", port), backlog=128)
over = threading.Event()
def serve(connection):
    count = 0
    with connection:
        while not over.wait(0.1):
            connection.sendall(b"x" * 500)
            count += 1
        connection.sendall(f" {name} {count}".encode())
def accept():
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=False).start()
threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
over.set()
"""
SLOW_CLIENT = """
import socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connections = [socket.create_connection((address, port), 60) for _ in range(count)]
print("open", flush=True)
for connection in connections:
    connection.settimeout(60)
    received, name, count = b"".join(iter(lambda: connection.recv(65536), b"")).decode().split()
    assert received == "x" * (500 * int(count)), len(received)
    print(name, flush=True)
"""


@pytest.fixture
def farm(lab, tmp_path, request):
    made = Farm(lab, tmp_path, request.param)
    made.start()
    made.slow = [
        host.namespace.popen(
            *(sys.executable, "-c", SLOW_SERVER, host.name, "81"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for host in (made.web1, made.web2)
    ]
    for process in made.slow:
        assert process.stdout.readline() == "ready\n"
    yield made
    made.network.close()


SLOW = """
[services.slow]
address = "203.0.113.81"
ports = [81]
directors = ["lb1", "lb2"]
servers = ["web1", "web2"]
"""


def flows(director):
    (service,) = control.request(director.control_path, {"op": "services", "name": "slow"})["services"]
    return [server["active_flows"] for server in service["servers"]]


def active_for(host):
    """Return the director that *host* sends to, according to its log."""
    return ["lb1", *re.findall("balanced by director=(\\w+)", host.log)][-1]


@pytest.mark.parametrize(
    ("farm", "is_drained"),
    [
        (SLOW + 'scheduler = "wlc"\n', False),
        (SLOW + 'scheduler = "wlc"\npersistence = 60\n', False),
        (SLOW, True),
        (SLOW + 'scheduler = "sh"\n', True),
    ],
    indirect=["farm"],
    ids=["wlc", "persistent", "maglev", "sh"],
)
def test_transfers_go_on_while_directors_are_killed_in_turn(farm, is_drained):
    """Where directors derive the servers themselves, one server is drained: they could not derive its connections."""
    farm.wait_servers(farm.inside, "web1", "web2")
    client = farm.inside.namespace.popen(
        sys.executable, "-c", SLOW_CLIENT, "203.0.113.81", "81", "8", stdout=subprocess.PIPE
    )
    assert client.stdout.readline() == "open\n"
    wait_until(lambda: sum(flows(farm.lb1)) == 8)
    places = flows(farm.lb1)
    drained = places.index(max(places))
    server = f"web{drained + 1}"
    if is_drained:
        drain(farm.lb1, f"slow/{server}")
    told = [drained] if is_drained else [0, 1]
    for killed, other in ((farm.lb1, farm.lb2), (farm.lb2, farm.lb1)):
        wait_until(lambda other=other: all(flows(other)[each] == places[each] for each in told))
        if is_drained:  # a director that has just started is told by the other while that lives
            wait_until(lambda other=other: state(other, server, "slow")["state"] == "drained")
        wait_until(lambda: active_for(farm.client) == "lb1")
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        wait_until(lambda other=other: active_for(farm.client) == other.name)
        killed.start()
    assert client.poll() is None  # still under way
    for process in farm.slow:
        process.stdin.close()
    said = client.communicate(timeout=60)[0].split()

    assert client.returncode == 0
    assert [said.count(name) for name in ("web1", "web2")] == places


def drain(director, server):
    """Drain *server* at both directors: on a busy machine, the other may be late to confirm it."""
    wait_until(lambda: director.overlay("services", "drain", server).returncode == 0)


def state(director, name="web1", service="web"):
    (service,) = listed(director, service)
    (server,) = [each for each in service["servers"] if each["name"] == name]
    return server


@pytest.mark.parametrize("farm", [""], indirect=True, ids=["web"])
def test_settings_reach_every_director_and_differences_are_named(farm):
    farm.wait_servers(farm.inside, "web1", "web2")
    drain(farm.lb2, "web/web1")
    assert state(farm.lb1)["state"] == state(farm.lb2)["state"] == "drained"
    assert state(farm.lb1)["set_by_hand"]
    wait_until(lambda: listed(farm.lb1, "web")[0]["not_heard"] == [])
    wait_until(lambda: state(farm.lb1)["differs_at"] == [])

    # A restarted director is told which settings are in force; while it is away, it is named.
    farm.lb1.process.send_signal(signal.SIGKILL)
    farm.lb1.process.wait()
    missed = farm.lb2.overlay("services", "weight", "web/web2", "7")
    assert missed.returncode == 1
    assert "Error: set here, but not confirmed by lb1: " in missed.stderr
    farm.lb1.start()
    wait_until(lambda: state(farm.lb1)["state"] == "drained" and state(farm.lb1, "web2")["weight"] == 7)

    # A server that one director cannot reach
    farm.lb1.namespace.run(
        "nft", "add table inet away; add chain inet away out { type filter hook output priority 0; }"
    )
    farm.lb1.namespace.run("nft", "add rule inet away out ip daddr 192.0.2.4 drop")
    wait_until(lambda: state(farm.lb1, "web2")["state"] == "down")
    wait_until(lambda: [each["state"] for each in state(farm.lb2, "web2")["differs_at"]] == ["down"])
    assert "web2 is down at lb1, weight 0, for " in farm.lb2.overlay("services", "web").stdout
