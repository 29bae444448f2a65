"""What directors tell each other on real hosts: connections that go on when one is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.netns.test_services import Farm, listed
from tests.netns.topology import wait_until

# Sends each client 100,000 bytes in twenty seconds, and then its name.
SLOW_SERVER = """
import socket, sys, threading, time
name, port = sys.argv[1], int(sys.argv[2])
server = socket.create_server(("", port), backlog=128)
print("ready", flush=True)
def serve(connection):
    with connection:
        for _ in range(200):
            connection.sendall(b"x" * 500)
            time.sleep(0.1)
        connection.sendall(name.encode())
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
SLOW_CLIENT = """
import socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connections = [socket.create_connection((address, port), 10) for _ in range(count)]
print("open", flush=True)
for connection in connections:
    connection.settimeout(20)
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"x" * 100_000), len(received)
    print(received[100_000:].decode(), flush=True)
"""


@pytest.fixture
def farm(lab, tmp_path, request):
    made = Farm(lab, tmp_path, request.param)
    made.start()
    for host in (made.web1, made.web2):
        process = host.namespace.popen(
            sys.executable, "-c", SLOW_SERVER, host.name, "81", stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == "ready\n"
    yield made
    made.network.close()


SLOW = """
[services.slow]
address = "203.0.113.81"
ports = [81]
directors = ["lb1", "lb2"]
servers = ["web1", "web2"]
scheduler = "wlc"
"""


def flows(director):
    (service,) = listed(director, "slow")
    return [server["active_flows"] for server in service["servers"]]


@pytest.mark.parametrize(
    "farm", [SLOW, SLOW + "persistence = 60\n"], indirect=True, ids=["wlc", "persistent"]
)
def test_transfers_go_on_when_their_director_is_killed_and_when_it_is_back(farm):
    farm.wait_servers(farm.inside, "web1", "web2")
    client = farm.inside.namespace.popen(
        sys.executable, "-c", SLOW_CLIENT, "203.0.113.81", "81", "8", stdout=subprocess.PIPE
    )
    assert client.stdout.readline() == "open\n"
    wait_until(lambda: flows(farm.lb1) == flows(farm.lb2) and sum(flows(farm.lb2)) == 8)
    farm.lb1.process.send_signal(signal.SIGKILL)
    farm.lb1.process.wait()
    wait_until(lambda: "balanced by director=lb2" in farm.client.log)
    farm.lb1.start()
    wait_until(lambda: farm.client.log.count("balanced by director=lb1") > 0)
    assert client.poll() is None  # still under way
    said = client.communicate(timeout=60)[0].split()

    assert client.returncode == 0
    assert len(said) == 8


def state(director, name="web1"):
    (service,) = listed(director, "web")
    (server,) = [each for each in service["servers"] if each["name"] == name]
    return server


@pytest.mark.parametrize("farm", [""], indirect=True, ids=["web"])
def test_settings_reach_every_director_and_differences_are_named(farm):
    farm.wait_servers(farm.inside, "web1", "web2")
    done = farm.lb2.overlay("services", "drain", "web/web1")
    assert (done.returncode, done.stderr) == (0, "")
    assert state(farm.lb1)["state"] == state(farm.lb2)["state"] == "drained"
    assert state(farm.lb1)["set_by_hand"]
    wait_until(lambda: listed(farm.lb1, "web")[0]["not_heard"] == [])
    wait_until(lambda: state(farm.lb1)["differs_at"] == [])

    # One that begins anew is told what holds; while it is away, it is named.
    farm.lb1.process.send_signal(signal.SIGKILL)
    farm.lb1.process.wait()
    missed = farm.lb2.overlay("services", "weight", "web/web2", "7")
    assert missed.returncode == 1
    assert "Error: set here, but not confirmed by lb1: " in missed.stderr
    farm.lb1.start()
    wait_until(lambda: state(farm.lb1)["state"] == "drained" and state(farm.lb1, "web2")["weight"] == 7, 30)

    # A server that one of them cannot reach
    farm.lb1.namespace.run(
        "nft", "add table inet away; add chain inet away out { type filter hook output priority 0; }"
    )
    farm.lb1.namespace.run("nft", "add rule inet away out ip daddr 192.0.2.4 drop")
    wait_until(lambda: state(farm.lb1, "web2")["state"] == "down", 30)
    wait_until(lambda: [each["state"] for each in state(farm.lb2, "web2")["differs_at"]] == ["down"], 30)
    assert "web2 is down at lb1, weight 0, for " in farm.lb2.overlay("services", "web").stdout
