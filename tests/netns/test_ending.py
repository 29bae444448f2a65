"""Agents that end with an error: no overlay packet leaves unencrypted until an operator allows it."""

from __future__ import annotations

import json
import os
import resource
import sys
from subprocess import DEVNULL

import pytest

from overlay.errors import HostError
from overlay.host import control
from tests.netns.network import PATIENCE, IcmpError, Network, icmp_error, is_silent, trace
from tests.netns.topology import wait_until

# An agent with a bug: a question that it does not know ends it.
FAULTY = """
import sys
from pathlib import Path
from overlay import answers
from overlay.config import Options
from overlay.lifecycle import run
from peers.stores import Location

def refusal(*_):
    raise ZeroDivisionError

answers.refusal = refusal
peers, key = map(Path, sys.argv[1:])
run(Options(Location.parse(str(peers)), key, "overlay0"), "debug")
"""


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    for node in made.peers.values():  # some end with a traceback, as they should
        node.log_path.unlink(missing_ok=True)
    made.close()


@pytest.fixture
def paris(network):
    """A host whose other routes lead to tokyo, unencrypted."""
    made, tokyo = network.host("paris"), network.host("tokyo")
    for family, gateway in (("-4", tokyo.outside), ("-6", tokyo.outside6)):
        made.namespace.run("ip", family, "route", "add", "default", "via", gateway)
    tokyo.start()
    return made


def launch_faulty(host, *, is_forked=True):
    host.write()
    host.is_forked = is_forked
    host._launch(FAULTY, ["-c", str(host.peers_path), str(host.key_path)])
    host.is_forked = True
    host.wait_ready()


def delete_interface(host):
    host.namespace.run("ip", "link", "delete", "overlay0")
    return 1


def meet_a_bug(host):
    with pytest.raises(HostError):
        control.request(host.control_path, {"op": "divide"})
    return 1


def leaks(sniffer, behind=bytes([10, 244])):
    """Return the frames that carry packets of the overlay unencrypted."""
    return [frame for frame in sniffer.frames() if frame[12:14] == b"\x08\x00" and behind == frame[30:32]]


@pytest.mark.parametrize("fault", [delete_interface, meet_a_bug])
def test_agent_that_ends_by_an_error_leaks_nothing_and_its_successor_takes_over(lab, network, paris, fault):
    web, shop = paris.container("web"), network.peers["tokyo"].container("shop")
    before = trace(paris.namespace)
    launch_faulty(paris, is_forked=fault is not meet_a_bug)
    web.ping(shop.address, 3)
    sniffer = paris.namespace.sniff("eth0")
    sender = web.namespace.popen("ping", "-n", "-i0.01", shop.address, stdout=DEVNULL, stderr=DEVNULL)

    assert fault(paris) == paris.process.wait(PATIENCE), paris.log
    assert "packets for the overlay stay blocked" in paris.log
    wait_until(lambda: "overlay0" not in paris.namespace.run("ip", "link"), PATIENCE, "the tun to vanish")
    lab.end_process(sender)  # the kernel limits how often it answers each sender
    assert icmp_error(web.namespace, shop.address) == IcmpError(3, 1, "10.244.1.1")
    paris.start()
    web.ping(shop.address, 3)

    assert "took over" in paris.log
    assert leaks(sniffer) == []
    paris.stop()
    assert trace(paris.namespace) == before


def test_start_that_fails_after_that_leaks_nothing_either(network, paris):
    shop = network.peers["tokyo"].container("shop")
    before = trace(paris.namespace)
    launch_faulty(paris)
    assert delete_interface(paris) == paris.process.wait(PATIENCE)
    sniffer = paris.namespace.sniff("eth0")

    # Its port is taken, which it finds out after it has taken over the routes of the previous agent.
    taken = paris.namespace.popen(
        sys.executable,
        "-c",
        "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 51820)); print(flush=True); sys.stdin.read()",
        stdout=-1,
        stdin=-1,
    )
    taken.stdout.readline()
    done = paris.overlay("up", "--peers", str(paris.peers_path), "--key", str(paris.key_path))
    taken.communicate()

    assert done.returncode == 1
    assert "51820" in done.stderr
    assert is_silent(paris.namespace, shop.address)
    assert leaks(sniffer) == []
    paris.start()
    paris.stop()
    assert trace(paris.namespace) == before


def test_down_removes_what_is_left_and_packets_leave_by_other_routes_again(network, paris):
    before = trace(paris.namespace)
    launch_faulty(paris)
    meet_a_bug(paris)
    paris.process.wait(PATIENCE)
    assert trace(paris.namespace) != before

    done = paris.overlay("down")

    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "no agent runs for overlay0; cleaned up after one that was killed or ended with an error: removed"
        in done.stdout
    )
    assert trace(paris.namespace) == before
    again = paris.overlay("down")
    assert (again.returncode, "no overlay agent runs for overlay0" in again.stderr) == (1, True)


def test_policy_routes_of_an_exit_leak_nothing_either(network, paris):
    tokyo = network.peers["tokyo"]
    tokyo.settings["subnets"] += ["0.0.0.0/0"]
    before = trace(paris.namespace)
    launch_faulty(paris)
    sniffer = paris.namespace.sniff("eth0")

    meet_a_bug(paris)
    paris.process.wait(PATIENCE)
    refused = paris.namespace.completed("ping", "-c1", "-W1", "203.0.113.9")

    assert refused.returncode != 0
    assert leaks(sniffer, bytes([203, 0])) == []
    assert paris.overlay("down").returncode == 0
    assert trace(paris.namespace) == before


def test_first_start_that_fails_leaves_the_host_as_it_was(network, paris):
    paris.settings["listen"] = "192.0.2.99"  # an address that this host does not have
    paris.settings["listen_port"] = 51821
    paris.write()
    before = trace(paris.namespace)
    paris.namespace.run("ip", "link", "add", "overlay0", "type", "bridge")

    done = paris.overlay("up", "--peers", str(paris.peers_path), "--key", str(paris.key_path))

    paris.namespace.run("ip", "link", "delete", "overlay0")
    assert done.returncode == 1
    assert trace(paris.namespace) == before


def test_agent_without_a_free_descriptor_goes_on_and_mends_itself_once_there_are_some(network, paris):
    """That does not mean that the interface was removed, and the forwarder that was killed in the meantime is
    restarted.
    """
    tokyo = network.peers["tokyo"]
    paris.start()
    paris.ping(tokyo.address)
    pid = paris.process.pid
    forwarder = paris.status()["forwarder_pid"]
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # an open connection stays open

    paris.namespace.run("ip", "address", "add", "192.0.2.77/24", "dev", "eth0")
    paris.process.send_signal(1)  # SIGHUP
    wait_until(lambda: "reload refused" in paris.log, PATIENCE, "the reload to fail")
    os.kill(forwarder, 9)
    wait_until(lambda: "forwarder not restarted" in paris.log, PATIENCE, "a failed restart")
    paris.namespace.run("ip", "address", "delete", "192.0.2.77/24", "dev", "eth0")
    wait_until(lambda: "network of the host changed" in paris.log, PATIENCE, "the change to be seen")
    assert paris.is_running, paris.log

    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: "forwarder restarted" in paris.log, PATIENCE, "another forwarder")
    assert "reloaded" in paris.reload()
    paris.ping(tokyo.address, 3)
    assert json.loads(paris.overlay("status", "--json").stdout)["node"] == "paris"
    assert "Traceback" not in paris.log
    paris.stop()
