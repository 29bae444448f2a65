"""The kernel's ip_vs as a director of LVS/TUN, and our agent on a real server; skipped if the kernel has no ip_vs."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading

import pytest

from tests.netns.network import PATIENCE, Network, Node

SERVICE, PORT = "10.99.0.1", 8080
CLIENTS = 10  # one of the kernel's own errors would fragment some of them


@pytest.fixture(params=["alone", "beside the kernel's ipip"])
def balanced(lab, tmp_path, request):
    """Tokyo directs SERVICE to Paris, which runs our agent and answers clients directly."""
    lab.require_module("ip_vs")
    if request.param != "alone":
        lab.require_module("ipip")
    if shutil.which("ipvsadm") is None:
        pytest.skip("ipvsadm is not installed")
    network = Network(lab, tmp_path, encapsulation="ipip")
    paris = network.host("paris")
    tokyo = network._plug(Node(network, "tokyo", 2, "none", {}))
    tokyo.settings |= {"public_key": None, "sources": ["0.0.0.0/0"]}
    client = network._plug(Node(network, "client", 3, "none", {}))
    del network.peers["client"]
    # The service's address on a device that does not answer ARP requests, and no reverse path filter.
    paris.namespace.run("ip", "address", "add", f"{SERVICE}/32", "dev", "lo")
    for setting in ("conf.all.arp_ignore=1", "conf.all.arp_announce=2", "conf.all.rp_filter=0"):
        paris.namespace.run("sysctl", "-qw", f"net.ipv4.{setting}")
    paris.namespace.run("sysctl", "-qw", "net.ipv4.conf.default.rp_filter=0")
    tokyo.namespace.run("ip", "address", "add", f"{SERVICE}/32", "dev", "eth0")
    tokyo.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    tokyo.namespace.run("ipvsadm", "-A", "-t", f"{SERVICE}:{PORT}", "-s", "rr")
    tokyo.namespace.run("ipvsadm", "-a", "-t", f"{SERVICE}:{PORT}", "-r", paris.outside, "-i")
    client.namespace.run("ip", "route", "add", SERVICE, "via", tokyo.outside)
    network.start()
    yield paris, client
    network.close()


def test_a_client_talks_with_the_service_on_a_real_server_behind_the_director(balanced):
    paris, client = balanced
    with paris.namespace.entered():
        listener = socket.create_server((SERVICE, PORT))

    def echo():
        for _ in range(CLIENTS):
            accepted, _ = listener.accept()
            with accepted, contextlib.suppress(OSError):
                accepted.sendall(accepted.recv(100).upper())

    listener.settimeout(PATIENCE)
    server = threading.Thread(target=echo)
    server.start()
    answers = []
    with listener, client.namespace.entered():
        for _ in range(CLIENTS):
            with socket.create_connection((SERVICE, PORT), timeout=PATIENCE) as near:
                near.sendall(b"hello")
                answers.append(near.recv(100))
    server.join()

    assert answers == [b"HELLO"] * CLIENTS
