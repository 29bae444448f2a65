"""podman on two hosts; the agent attaches its containers by CNI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.netns.network import Network
from tests.netns.podman import NAME, PROGRAMS, REFERENCE, ULIMITS, Podman
from tests.netns.topology import wait_until


@pytest.fixture
def hosts(lab, tmp_path):
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not (REFERENCE / "portmap").exists():
        pytest.skip("the reference plugins of CNI are not installed in /usr/lib/cni")
    network = Network(lab, tmp_path)
    found = [network.host(name, address=f"10.244.255.{at}") for at, name in enumerate(("paris", "tokyo"), 1)]
    for host in found:
        host.namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        host.namespace.run("ip", "link", "set", "lo", "up")
    network.start()
    podmans = [Podman(host) for host in found]
    if (reason := podmans[0].hindrance()) is not None:
        pytest.skip(f"podman starts no containers here: {reason}")
    for podman in podmans:
        podman.install()
    yield podmans
    for podman in podmans:
        podman.remove_all()
    network.close()


def namespaces():
    """Return the network namespaces of podman that have a name."""
    return {name for name in os.listdir("/run/netns") if name.startswith(("netns-", "cni-"))}


def wait_served(podman, name, url):
    """Return once the container *name* gets the page at *url*: its server may have been started just now."""
    wait_until(lambda: podman("exec", name, "wget", "-qO-", url, check=False) == "here", what=url)


def devices(podman):
    links = json.loads(podman.host.namespace.run("ip", "-j", "link"))
    return [link["ifname"] for link in links if link["ifname"].startswith("oc")]


def test_containers_of_two_hosts_publish_restart_and_outlive_agents(hosts):
    paris, tokyo = hosts
    web, db = paris.start("web", "-p", "8080:80"), tokyo.start("db")
    assert (web.rpartition(".")[0], db.rpartition(".")[0]) == ("10.244.1", "10.244.2")

    # Both directions, and both IP versions
    wait_served(paris, "web", f"http://{db}/")
    wait_served(tokyo, "db", f"http://{web}/")
    six = json.loads(paris("inspect", "web"))[0]["NetworkSettings"]["Networks"][NAME]["GlobalIPv6Address"]
    tokyo.exec("db", "ping", "-c1", "-W30", six)

    # A published port, from another host and from a container there
    fetch = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=50).read().decode())"
    assert tokyo.host.namespace.python(fetch, f"http://{paris.host.outside}:8080/") == "here\n"
    assert tokyo.exec("db", "wget", "-qO-", f"http://{paris.host.settings['address']}:8080/") == "here"

    # Restarts of containers
    for _ in range(3):
        paris("restart", "-t0", "web")
    again = paris.address("web")
    wait_served(tokyo, "db", f"http://{again}/")
    assert len(devices(paris)) == 1

    # Restarts of the agent, clean and unclean, under traffic
    tokyo("exec", "-d", "db", "sh", "-c", f"while :; do wget -qO- http://{again}/; sleep 0.1; done")
    for end in (paris.host.stop, paris.host.kill, paris.host.kill):
        end()
        paris.host.start()
        wait_until(lambda: tokyo.run("exec", "db", "ping", "-c1", "-W1", again).returncode == 0, what="paris")
        wait_served(tokyo, "db", f"http://{again}/")
    assert len(devices(paris)) == 1

    # podman killed while it starts containers: it leaves namespaces and mounts that it has no record of
    before = namespaces()
    for number, delay in enumerate(("0.2", "0.4", "0.6")):
        options = ("-d", *ULIMITS, "--name", f"k{number}", f"--network={NAME}")
        command = ("run", *options, "--rootfs", str(paris.folder / "rootfs"), "busybox", "sleep", "1000")
        paris.run(*command, before=("timeout", "-sKILL", delay))
    new = namespaces() - before
    assert tokyo.exec("db", "wget", "-qO-", f"http://{again}/") == "here"

    # A requested address; the end
    assert paris.start("asked", "--ip", "10.244.1.77") == "10.244.1.77"
    for podman in hosts:
        podman.remove_all()
    for name in new & namespaces():
        subprocess.run(["ip", "netns", "delete", name], check=False)
    wait_until(lambda: not devices(paris) and not devices(tokyo), what="the agents to forget all containers")
    done = paris.host.overlay(
        "cni", "uninstall", "--conf-dir", str(paris.networks), "--bin-dir", str(paris.plugins)
    )
    assert done.returncode == 0, done.stderr
    assert list(paris.networks.glob("*overlay*")) == []
