"""wg-quick sets up a full tunnel on overlay-wg as on any WireGuard device, and takes it down again."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest

from overlay.host.sockets.uapi_socket import DIRECTORY
from tests.netns.network import PATIENCE, ping
from tests.netns.topology import wait_until
from tests.netns.wg_device import Device, generate, new_name

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("wg", "wg-quick", "wireguard-go", "nft"))),
    reason="needs wg, wg-quick, wireguard-go and nft",
)


@pytest.fixture(scope="module")
def hosts(module_lab):
    a, b = module_lab.namespace("a"), module_lab.namespace("b")
    module_lab.veth(
        a.end("eth0", "192.0.2.1/24", "2001:db8::1/64"), b.end("eth0", "192.0.2.2/24", "2001:db8::2/64")
    )
    return a, b


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("bin") / "overlay-wg"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m overlay.wg "$@"\n')
    path.chmod(0o755)
    return path


def processes(name):
    """Return the commands that have *name* as their last argument."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if name.encode() in words:
            found.append(int(entry))
    return found


def test_full_tunnel_comes_up_carries_and_goes_without_a_trace(hosts, program, tmp_path):
    a, b = hosts
    other = Device(b, "10.7.0.2/24", "fd07::2/64", port=51821, program=("wireguard-go",))
    private, public = generate(a)
    other.set("peer", public, "allowed-ips", "10.7.0.1/32,fd07::1/128")
    b.ip("address add 198.51.100.7/32 dev lo", "address add 2001:db8:f::7/128 dev lo")
    name = new_name()
    path = tmp_path / f"{name}.conf"
    path.touch(mode=0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {private}\nAddress = 10.7.0.1/24, fd07::1/64\n"
        f"[Peer]\nPublicKey = {other.public}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.2:51821\n"
    )
    before = a.dump()
    environment = {"WG_QUICK_USERSPACE_IMPLEMENTATION": str(program)}

    up = a.completed("wg-quick", "up", str(path), env=environment)

    assert up.returncode == 0, up.stderr
    try:
        for address in ("198.51.100.7", "2001:db8:f::7"):  # there is only a route through the tunnel
            ping(a, address, 3)
        shown = a.run("wg", "show", name, "fwmark").strip()
        assert shown == "0xca6c"
        asked = a.completed(
            sys.executable, "-m", "overlay", "ping", "--interface", name, "198.51.100.7", "-c1"
        )
        assert asked.returncode == 0, asked.stdout + asked.stderr
        assert len(processes(name)) == 1
    finally:
        down = a.completed("wg-quick", "down", str(path), env=environment)
    assert down.returncode == 0, down.stderr
    wait_until(lambda: not processes(name), PATIENCE, "overlay-wg to end")
    assert not (DIRECTORY / f"{name}.sock").exists()
    after = a.dump()
    marked = "net/ipv4/conf/all/src_valid_mark"  # which wg-quick sets, and leaves behind
    assert {
        key: [each for each in lines if "src_valid_mark" not in each] for key, lines in after.items()
    } == {key: [each for each in lines if "src_valid_mark" not in each] for key, lines in before.items()}, (
        marked
    )


def test_second_interface_of_the_name_is_refused_anywhere_and_a_signal_ends_the_first(hosts, program):
    a, b = hosts
    device = Device(a, port=51900)

    refused = b.completed(program, device.name)

    assert refused.returncode == 1
    assert f"{device.path} is answered by another process" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    (process,) = processes(device.name)
    os.kill(process, signal.SIGTERM)
    wait_until(lambda: not processes(device.name), PATIENCE, "overlay-wg to end")
    assert not device.path.exists()
    assert device.name not in a.run("ip", "link", "show")


def test_name_that_exists_is_refused_with_a_sentence(hosts, program):
    a, _ = hosts

    refused = a.completed(program, "eth0")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("overlay-wg: interface eth0 exists already")
    assert refused.stderr.endswith("choose another name\n")
    assert len(refused.stderr.splitlines()) == 1
