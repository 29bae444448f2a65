"""A forwarder under an attacker's control: its effects end when the agent has started another."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.netns import taken_over
from tests.netns.network import PATIENCE, Network
from tests.netns.test_life import proc_status
from tests.netns.topology import wait_until

PROGRAM = (sys.executable, str(Path(taken_over.__file__)))
LINES = 200  # of the log: fewer than any attack has steps
MEMORY = 200 * 1024  # KiB; an agent with two peers takes 60 MB


@pytest.fixture
def pair(lab, tmp_path, request):
    network = Network(lab, tmp_path)
    network.more = getattr(request, "param", "")
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.start()
    yield paris, tokyo
    network.close()


def under_attack(paris, attack, count=1):
    paris.launch_with(*PROGRAM, attack, count=count)
    paris.wait_ready()


def has_successor(paris):
    wait_until(lambda: "forwarder restarted" in paris.log, 1.5 * PATIENCE, "another forwarder")


def memory(host):
    """Return how much memory the agent of *host* uses, in KiB."""
    return int(proc_status(host.process.pid)["VmRSS"].split()[0])


def is_calm(paris, tokyo):
    """Return whether traffic flows both ways, also in large packets, and the log
    and the agent are of their usual size.
    """
    paris.ping(tokyo.address, 3)
    tokyo.ping(paris.address, 3)
    tokyo.namespace.run("ping", "-n", "-c3", "-i0.1", "-s", "8000", paris.address)
    assert "Traceback" not in paris.log, paris.log
    return len(paris.log.splitlines()) < LINES and memory(paris) < MEMORY


@pytest.mark.parametrize("attack", ["unfinished", "connected", "everything"])
def test_what_a_forwarder_did_to_its_sockets_and_the_tun_is_not_left_for_the_next(pair, attack):
    paris, tokyo = pair

    under_attack(paris, attack)
    has_successor(paris)

    assert is_calm(paris, tokyo)


@pytest.mark.parametrize("attack", ["reports", "counters", "nested"])
def test_forwarder_that_reports_without_end_is_ended_and_the_next_one_works(pair, attack):
    paris, tokyo = pair

    under_attack(paris, attack)
    assert paris.status()["node"] == "paris"
    has_successor(paris)

    assert paris.log.count("forwarder sends too many reports") == 1
    assert is_calm(paris, tokyo)


SERVICE = """
[services.web]
address = "203.0.113.80"
ports = 80
directors = ["paris", "tokyo"]
servers = ["paris", "tokyo"]
check = { kind = "tcp", every = 1, warmup = 0 }
"""


@pytest.mark.parametrize("pair", [SERVICE], indirect=True, ids=["services"])
def test_forwarder_that_tells_of_services_without_end_is_ended_and_nothing_of_it_believed(pair):
    paris, tokyo = pair

    under_attack(paris, "services")
    asked = paris.overlay("services", "--json")
    assert asked.returncode in {0, 1}
    assert "Traceback" not in asked.stderr
    has_successor(paris)

    assert paris.log.count("forwarder sends too many reports") == 1
    assert is_calm(paris, tokyo)
    wait_until(lambda: paris.overlay("services", "--json").returncode == 0, PATIENCE)
    for server in json.loads(paris.overlay("services", "--json").stdout)["services"][0]["servers"]:
        assert not server["set_by_hand"]
        assert 0 <= server["packets"] < 1000


@pytest.mark.parametrize("attack", ["places", "handshakes", "halves", "descriptors", "deaf"])
def test_agent_goes_on_answering_whatever_the_forwarder_says(pair, attack):
    paris, tokyo = pair
    under_attack(paris, attack)

    assert [row["name"] for row in paris.status()["peers"]] == ["tokyo"]
    assert "reloaded" in paris.reload()
    held = set(Path(f"/proc/{paris.process.pid}/fd").iterdir())
    assert len(held) < 64
    os.kill(paris.status()["forwarder_pid"], signal.SIGKILL)
    has_successor(paris)

    assert is_calm(paris, tokyo)


def test_forwarder_that_ends_at_once_each_time_is_started_ever_more_rarely(pair):
    paris, tokyo = pair
    under_attack(paris, "brief", count=4)

    # One that ends before the agent has passed everything to it does not even count as restarted.
    wait_until(
        lambda: paris.log.count("forwarder restarted") + paris.log.count("forwarder not restarted") >= 4,
        PATIENCE,
        "a forwarder that stays",
    )

    assert is_calm(paris, tokyo)
