"""A router that reports a narrow link behind it: peers that do not answer probes are sent what fits, and senders are
informed.
"""

from __future__ import annotations

import re
import shutil

import pytest

from tests.netns.network import PATIENCE, Network, connect, ping, transfer
from tests.netns.test_path_mtu import move
from tests.netns.topology import wait_until

LIMIT = 1400  # bytes of an IP packet
ON_LINK = (("-4", ["192.0.2.0/24"]), ("-6", ["2001:db8::/64", "metric", "256"]))
ROUTER, ROUTER6 = "192.0.2.254", "2001:db8::fe"


class Site:
    """Paris runs our agent; between it and Tokyo is a router."""

    def __init__(self, network, paris, tokyo, outer):
        self.network, self.paris, self.tokyo, self.outer = network, paris, tokyo, outer
        self.web, self.shop = paris.container("web"), tokyo.container("shop", mtu=1420)
        self.router = network.lab.namespace(network.namespace_name("router"))
        end = self.router.end("eth0", f"{ROUTER}/24", f"{ROUTER6}/64")
        network.lab.plug(network.underlay, end, offloads=False)
        self.router.run(
            *("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
            *("net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0"),
            *("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"),
        )
        for one, other in ((paris, tokyo), (tokyo, paris)):
            one.namespace.run(
                *("sysctl", "-qw", "net.ipv4.conf.all.accept_redirects=0"),
                *("net.ipv4.conf.eth0.accept_redirects=0", "net.ipv6.conf.eth0.accept_redirects=0"),
            )
            one.namespace.run("ip", "route", "add", other.outside, "via", ROUTER)
            one.namespace.run("ip", "-6", "route", "add", other.outside6, "via", ROUTER6)

    def become_narrow(self):
        for version, prefix in ON_LINK:
            self.router.run(
                "ip", version, "route", "replace", *prefix, "dev", "eth0", "mtu", "lock", str(LIMIT)
            )

    def become_wide(self):
        """Become wide again, and make the hosts' kernels forget, which otherwise takes them ten minutes."""
        for version, prefix in ON_LINK:
            self.router.run("ip", version, "route", "replace", *prefix, "dev", "eth0", "mtu", "1500")
            for host in (self.paris, self.tokyo):
                host.namespace.run("ip", version, "route", "flush", "cache")


def echo(namespace, address, size):
    """Return what ping says about a packet of *size* bytes that must not be fragmented; an error also ends it."""
    headers = 48 if ":" in address else 28
    done = namespace.completed(
        *("ping", "-n", "-c", "1", "-W", "30", "-M", "do", "-s", str(size - headers), address)
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=["IPv4", "IPv6"])
def clear(request, module_lab, tmp_path_factory):
    """Two agents, unencrypted."""
    network = Network(module_lab, tmp_path_factory.mktemp("clear"), offloads=False, encapsulation="udp")
    paris, tokyo = network.host("paris"), network.host("tokyo")
    for host in (paris, tokyo):
        host.key_path.unlink()
        host.settings["public_key"] = None
        if request.param == "IPv6":
            host.settings["endpoint"] = f"[{host.outside6}]"
    site = Site(network, paris, tokyo, 28 if request.param == "IPv4" else 48)
    network.start()
    yield site
    network.close()


@pytest.fixture(scope="module", params=["IPv4", "IPv6"])
def wireguard(request, module_lab, tmp_path_factory):
    """Tokyo runs wireguard-go, which does not answer probes."""
    if not (shutil.which("wireguard-go") and shutil.which("wg")):
        pytest.skip("needs wireguard-go and wg")
    network = Network(module_lab, tmp_path_factory.mktemp("wireguard"), offloads=False)
    paris, tokyo = network.host("paris"), network.wireguard("tokyo")
    if request.param == "IPv6":
        tokyo.settings["endpoint"] = f"[{tokyo.outside6}]"
    site = Site(network, paris, tokyo, 60 if request.param == "IPv4" else 80)
    tokyo.start()
    tokyo.meet(paris)
    network.start()
    paris.wait_up(tokyo)
    yield site
    network.close()


def knows(host, peer, mtu):
    """Send something, so that the kernel is asked, and return whether *host* shows that *mtu* for *peer*."""
    ping(host.namespace, peer.address)
    return host.peer(peer)["path_mtu"] == mtu


def check_tcp_and_status(site, inner, widest, narrowest):
    paris, tokyo = site.paris, site.tokyo
    address = getattr(site.shop, inner)
    ping(site.web.namespace, address)
    near, far = connect(site.web.namespace, site.shop.namespace, address)
    with near, far:
        move(near, far, 2 << 20)
        wait_until(lambda: knows(paris, tokyo, widest), PATIENCE, "the wide path to be known")

        site.become_narrow()
        try:
            move(near, far, 2 << 20)
            wait_until(lambda: knows(paris, tokyo, narrowest), PATIENCE, "the narrow path to be known")
            transfer(far, near, 2 << 20)
            later, beyond = connect(site.web.namespace, site.shop.namespace, address)
            with later, beyond:
                transfer(later, beyond, 2 << 20)
            paris.ping(getattr(tokyo, inner))
            assert "1 received" in echo(paris.namespace, getattr(tokyo, inner), narrowest)
            told = [echo(paris.namespace, getattr(tokyo, inner), narrowest + 1) for _ in range(2)]
            assert all(re.search(rf"mtu ?[=:] ?{narrowest}\b", each) for each in told), told
        finally:
            site.become_wide()

    wait_until(lambda: knows(paris, tokyo, widest), PATIENCE, "the path's MTU to rise")
    for host in (paris, tokyo):
        for version in ("-4", "-6"):
            host.namespace.run("ip", version, "route", "flush", "cache")


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_in_the_clear_completes_and_senders_hear_of_the_right_mtu(clear, inner):
    check_tcp_and_status(clear, inner, 1500 - clear.outer, LIMIT - clear.outer)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_with_wireguard_go_completes_and_senders_hear_of_the_right_mtu(wireguard, inner):
    check_tcp_and_status(wireguard, inner, 1420, (LIMIT - wireguard.outer) // 16 * 16)
