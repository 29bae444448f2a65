"""A busy forwarder only makes system calls that its filter lists, whatever the encapsulation."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.forwarding import native
from overlay.host.process.seccomp import CALLS, _rules
from tests.netns.network import PATIENCE, Network, transfer_both_ways
from tests.netns.test_services import Farm
from tests.netns.topology import wait_until
from tests.overlay.host.process.test_seccomp import needs_filter

pytestmark = [
    needs_filter,
    pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace: install it"),
]

BYTES = 2 << 20  # under strace each call takes long, and ten times as long on a busy machine
KINDS = {name: ({"encapsulation": name}, ()) for name in ENCAPSULATIONS}
KINDS |= {
    "gre with a key": ({"encapsulation": "gre", "gre_key": 7}, ()),
    "tap": ({"device": "tap", "prefix": ["10.244.0.0/16"]}, ()),
    "lanes": ({}, ("--lanes", "2")),
}


def tracer(pid):
    return int(re.search(r"^TracerPid:\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


@contextmanager
def calls_of(*hosts, directory):
    """Trace the block with strace; a system call that the filters of the hosts' forwarders do not list is a failure."""
    traced = []
    for host in hosts:
        pid, path = host.status()["forwarder_pid"], directory / f"{host.name}.calls"
        process = subprocess.Popen(["strace", "-f", "-qq", "-e", "signal=none", "-o", path, "-p", str(pid)])
        traced.append((pid, path, process))
    try:
        for pid, _, process in traced:
            wait_until(lambda pid=pid, process=process: tracer(pid) or process.poll() is not None, PATIENCE)
            if process.poll() is not None:
                pytest.skip("strace may not look at a process here")
        yield
    finally:
        for _, _, process in traced:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
    for pid, path, _ in traced:
        lines = path.read_text().splitlines()
        found = {match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line))}
        assert "epoll_wait" in found or "epoll_pwait" in found
        assert found <= {*CALLS, *_rules(pid)}
        assert [line for line in lines if re.search(r"= -1 (ENOSYS|EPERM)", line)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_carries_packets_between_two_hosts_makes_no_other_call(lab, tmp_path, kind):
    settings, options = KINDS[kind]
    if kind == "lanes" and native.core is None:
        pytest.skip(f"no compiled packet path: {native.missing}")
    network = Network(lab, tmp_path, **settings)
    more = [{"subnets": None, "address": [f"10.244.0.{number}"]} for number in (1, 2)]
    names = zip(("paris", "tokyo"), more if kind == "tap" else [{}, {}], strict=True)
    paris, tokyo = (network.host(name, **how) for name, how in names)
    start(network, options)
    address = "10.244.0.2" if kind == "tap" else tokyo.address

    with calls_of(paris, tokyo, directory=tmp_path):
        paris.ping(address, 3)
        transfer_both_ways(paris.namespace, tokyo.namespace, address, BYTES)

    network.close()


def start(network, options):
    for host in network.peers.values():
        host.launch(*options)
    for host in network.peers.values():
        host.wait_ready()


def test_what_balances_connections_makes_no_other_call(lab, tmp_path):
    farm = Farm(lab, tmp_path)
    farm.start()
    farm.wait_servers(farm.inside, "web1", "web2")

    with calls_of(farm.lb1, farm.lb2, farm.web1, directory=tmp_path):
        assert len(farm.ask(farm.inside, 40)) == 40
        farm.inside.ping(farm.web1.address, 3)

    farm.network.close()
