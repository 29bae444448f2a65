"""Every node is a director: each balances its own connections, and nothing has to move when one dies."""

from __future__ import annotations

import signal

import pytest

from tests.netns.farm import ask, names, serve
from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until

VIPS = {4: "203.0.113.80", 6: "2001:db8:80::80"}
SERVICE = """
[services.web]
address = ["203.0.113.80", "2001:db8:80::80"]
ports = [80]
protocol = ["tcp", "udp"]
directors = "all"
servers = ["web1", "web2"]
check = { kind = "tcp", every = 0.5, timeout = 10, retries = 0, warmup = 0 }
"""


class Site:
    """Two servers, two hosts that are not servers, and a container behind three of them."""

    def __init__(self, lab, directory):
        self.network = network = Network(lab, directory)
        self.web1, self.web2, self.paris, self.tokyo = (
            network.host(name) for name in ("web1", "web2", "paris", "tokyo")
        )
        network.more = SERVICE
        self.places = {
            "paris itself": self.paris,
            "behind paris": self.paris.container("paris-box"),
            "behind tokyo": self.tokyo.container("tokyo-box"),
            "behind a server": self.web1.container("web1-box"),
        }
        self.servers = [serve(each.namespace, 80, each.name) for each in (self.web1, self.web2)]
        for host in (self.web1, self.web2, self.paris, self.tokyo):
            host.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        network.start()

    def asked(self, place, version, protocol="tcp"):
        return names(ask(self.places[place].namespace, VIPS[version], 20, protocol))


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    made = Site(module_lab, tmp_path_factory.mktemp("site"))
    yield made
    made.network.close()


@pytest.mark.parametrize("version", VIPS)
@pytest.mark.parametrize("place", ["paris itself", "behind paris", "behind tokyo", "behind a server"])
def test_what_starts_at_a_node_is_balanced_there(site, place, version):
    # A server that came up before the other gets more connections at first, so the other gets the next ones.
    for protocol in ("tcp", "udp"):
        wait_until(lambda: set(site.asked(place, version, protocol)) == {"web1", "web2"}, PATIENCE)  # noqa: B023


def test_a_node_that_dies_moves_nothing(site):
    wait_until(lambda: set(site.asked("behind paris", 4)) == {"web1", "web2"}, PATIENCE)
    site.tokyo.process.send_signal(signal.SIGKILL)
    site.tokyo.process.wait()
    try:
        assert set(site.asked("behind paris", 4)) == {"web1", "web2"}
    finally:
        site.tokyo.start()


def test_every_node_finds_a_server_down_by_itself(site):
    site.network.lab.end_process(site.servers[1])
    try:
        for place in ("paris itself", "behind paris", "behind a server"):
            wait_until(lambda place=place: set(site.asked(place, 4)) == {"web1"}, PATIENCE, place)
    finally:
        site.servers[1] = serve(site.web2.namespace, 80, site.web2.name)
