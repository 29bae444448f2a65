"""Docker's real daemon, on two hosts: containers in the overlay by our driver, whatever is killed in between."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal

import pytest

from tests.netns import dockerd
from tests.netns.dockerd import STATE, Dock
from tests.netns.network import PATIENCE, Network, ping
from tests.netns.topology import wait_until


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    """Both hosts.  The daemons take most of the time to start, so all tests share them."""
    dockerd.require()
    network = Network(module_lab, tmp_path_factory.mktemp("site"))
    made = [Dock(network, name) for name in ("paris", "tokyo")]
    for dock in made:
        dock.host.namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        dock.start()
        dock.daemon.start()
        dock.daemon.load_image()
        if dock.has_bridge:
            dock.host.namespace.run("iptables", "-P", "FORWARD", "DROP")  # as Docker does on most hosts
    yield made
    for dock in made:
        dock.daemon.close()
    network.close()


@pytest.fixture
def docks(site):
    for dock in site:
        if not dock.host.is_running:  # after a test that failed
            dock.start()
    yield site
    for dock in site:
        dock.daemon.clear()


def pings(dock, container, address):
    """Return whether *address* answers a container."""
    return dock.daemon.completed("exec", container, "ping", "-c1", "-W2", address).returncode == 0


def reach(dock, container, address):
    wait_until(lambda: pings(dock, container, address), PATIENCE, f"{address} to answer a container")


def fetch(dock, container, address, port):
    """Return the page that a container gets from there; nothing while nobody listens."""
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30 {address} {port}"
    return "".join(dock.daemon.completed("exec", container, "sh", "-c", script).stdout.splitlines()[-1:])


def fetch_from(namespace, address, port):
    """Return the page that a host gets from there."""
    with namespace.entered():
        connection = http.client.HTTPConnection(address, port, timeout=PATIENCE)
        connection.connect()
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read().decode().strip()


def is_served(namespace, address, port):
    """Return whether a host gets the page there: the server of a container may be about to listen."""
    try:
        return fetch_from(namespace, address, port) == "here"
    except OSError:
        return False


def serve(dock, *options):
    """Start a container with a page at port 80."""
    return dock.daemon.run("--network", "net", *options, command=("httpd", "-f", "-p", "80", "-h", "/www"))


def tables(dock):
    return dock.host.namespace.run("nft", "list", "tables")


def test_containers_of_two_hosts_reach_each_other_and_leave_nothing(docks):
    paris, tokyo = docks
    for dock in docks:
        dock.create()
    web = serve(tokyo, "-p", "8080:80")
    client, other = paris.daemon.run("--network", "net", "--ip", "10.244.1.77"), serve(paris)
    there = tokyo.address(web)

    assert paris.address(client) == "10.244.1.77"
    assert there.startswith("10.244.2.")
    reach(paris, client, there)
    reach(tokyo, web, "10.244.1.77")
    reach(paris, client, paris.address(other))
    reach(paris, client, tokyo.host.outside)
    ping(paris.host.namespace, paris.address(other))
    assert "mtu 1420" in paris.daemon.inside(client, "ip", "link", "show", "eth0")
    wait_until(lambda: fetch(paris, client, there, 80) == "here", PATIENCE)
    for address in (tokyo.host.address, tokyo.host.outside):
        assert fetch(paris, client, address, 8080) == "here"
        assert fetch_from(paris.host.namespace, address, 8080) == "here"
        assert fetch_from(tokyo.host.namespace, address, 8080) == "here"
        assert fetch(tokyo, web, address, 8080) == "here"  # itself, by its host

    for dock, containers in ((paris, (client, other)), (tokyo, (web,))):
        dock.daemon.docker("rm", "-f", *containers)
        assert dock.devices() == []
        assert dock.lent() == []
        assert ".ports" not in tables(dock)
        dock.daemon.docker("network", "rm", "net")
        assert json.loads((STATE / f"{dock.driver}.docker.json").read_text()) == {"networks": []}


def test_ipv6_and_a_network_that_leads_nowhere_else(docks):
    paris, tokyo = docks
    for dock in docks:
        number = dock.host.number
        dock.create(
            "net", "--ipv6", "--subnet", f"fd00:244:{number}::/64", *(["--internal"] if dock is paris else [])
        )
    web, client = serve(tokyo), paris.daemon.run("--network", "net")
    shown = tokyo.daemon.inspect(web)["NetworkSettings"]["Networks"]["net"]

    assert shown["GlobalIPv6Address"].startswith("fd00:244:2::")
    reach(paris, client, shown["GlobalIPv6Address"])
    reach(paris, client, shown["IPAddress"])
    assert not pings(paris, client, tokyo.host.outside)
    assert "default" not in paris.daemon.inside(client, "ip", "route")


def test_agent_that_starts_again_finds_everything(docks):
    paris, tokyo = docks
    for dock in docks:
        dock.create()
    web, client = serve(tokyo, "-p", "8080:80"), paris.daemon.run("--network", "net")
    there = tokyo.address(web)
    reach(paris, client, there)

    for number in (signal.SIGTERM, signal.SIGKILL):
        for dock in docks:
            if number == signal.SIGKILL:
                dock.host.kill()
            else:
                dock.host.stop()
                assert ".ports" not in tables(dock)
            dock.start()

        reach(paris, client, there)
        wait_until(lambda: fetch(paris, client, tokyo.host.outside, 8080) == "here", PATIENCE)
        second = tokyo.daemon.run("--network", "net")
        assert tokyo.address(second) != there
        reach(paris, client, tokyo.address(second))
        tokyo.daemon.docker("rm", "-f", second)
        assert tokyo.lent() == [there]
    tokyo.daemon.docker("restart", "-t", "0", web)
    reach(paris, client, tokyo.address(web))
    wait_until(lambda: is_served(paris.host.namespace, tokyo.host.outside, 8080), PATIENCE)
    tokyo.daemon.docker("rm", "-f", web)
    assert (tokyo.devices(), tokyo.lent()) == ([], [])
    assert ".ports" not in tables(tokyo)


def test_dockerd_that_starts_again_has_its_containers_back_and_nothing_twice(docks):
    paris, tokyo = docks
    for dock in docks:
        dock.create()
    web = serve(tokyo, "--restart", "always", "-p", "8080:80")
    gone, client = tokyo.daemon.run("--network", "net"), paris.daemon.run("--network", "net")
    reach(paris, client, tokyo.address(web))
    reach(paris, client, tokyo.address(gone))

    for number in (signal.SIGTERM, signal.SIGKILL):
        tokyo.daemon.stop(number)
        tokyo.daemon.start()

        wait_until(lambda: tokyo.daemon.inspect(web)["State"]["Running"], PATIENCE)
        wait_until(lambda: tokyo.address(web), PATIENCE)
        reach(paris, client, tokyo.address(web))
        wait_until(lambda: is_served(paris.host.namespace, tokyo.host.outside, 8080), PATIENCE)
        assert len(tokyo.devices()) == 1
        assert tokyo.lent() == [tokyo.address(web)]
        tokyo.daemon.docker("start", gone)
        reach(paris, client, tokyo.address(gone))
    tokyo.daemon.docker("rm", "-f", web, gone)
    assert (tokyo.devices(), tokyo.lent()) == ([], [])


def test_container_that_dies_with_the_agent_away_is_forgotten(docks):
    paris, _ = docks
    paris.create()
    web = serve(paris, "-p", "8080:80")
    pid = paris.daemon.inspect(web)["State"]["Pid"]
    paris.host.kill()

    os.kill(pid, signal.SIGKILL)
    paris.start()

    wait_until(lambda: (paris.devices(), paris.lent()) == ([], []), PATIENCE)
    paris.daemon.docker("start", web)
    wait_until(lambda: is_served(paris.host.namespace, paris.host.outside, 8080), PATIENCE)
    assert len(paris.devices()) == 1


def test_what_cannot_be_is_said_in_a_sentence(docks):
    paris, _ = docks
    create = ("network", "create", "-d", paris.driver)
    ours = ("--ipam-driver", paris.driver)

    def refused(*arguments):
        done = paris.daemon.completed(*arguments)
        assert done.returncode != 0
        return done.stderr

    assert "takes its addresses from this host's own subnet: write --subnet 10.244.1.0/24" in refused(
        *create, *ours, "x"
    )
    assert "10.9.0.0/24 is not a subnet of this host" in refused(
        *create, *ours, "--subnet", "10.9.0.0/24", "x"
    )
    assert f"create the network with --ipam-driver {paris.driver}" in refused(
        *create, "--subnet", "10.9.0.0/24", "x"
    )
    assert "--ip-range is not supported" in refused(
        *create, *ours, "--subnet", paris.subnet, "--ip-range", "10.244.1.128/25", "x"
    )
    assert "the option foo is not known" in refused(
        *create, *ours, "--subnet", paris.subnet, "-o", "foo=bar", "x"
    )
    paris.create()
    first = serve(paris, "-p", "8080:80", "--ip", "10.244.1.9")
    run = ("run", "-d", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "net")
    assert "port 8080 of tcp is taken on this host" in refused(*run, "-p", "8080:81", "box", "sleep", "9")
    assert "10.244.1.9 belongs to another container" in refused(
        *run, "--ip", "10.244.1.9", "box", "sleep", "9"
    )
    assert "as in -p 8080:80" in refused(*run, "-p", "80", "box", "sleep", "9")
    created = paris.daemon.docker("ps", "-aq", "--no-trunc").split()
    paris.daemon.docker("rm", "-f", *created)
    assert (paris.devices(), paris.lent()) == ([], [])
    assert first in created
