"""Bulk units between real hosts: that they are used, and what happens to a transfer when one end changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from overlay.forwarding.native.aes import CRYPTOGRAPHY, LIBCRYPTO, VARIABLE
from tests.netns.network import (
    PATIENCE,
    PORT,
    Container,
    Host,
    Network,
    WireGuard,
    connect,
    nft,
    transfer_both_ways,
    udp_pair,
)
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

UDP_SEGMENT = 103  # linux/udp.h
BLOCK = 1 << 16
SIZE = 32 << 20


@dataclass(frozen=True)
class Site:
    """Two hosts, and a container behind each."""

    network: Network
    paris: Host
    tokyo: Host
    web: Container
    shop: Container

    def units(self) -> tuple[int, int]:
        """Return how many units Paris sent, and Tokyo opened."""
        return self.paris.peer(self.tokyo)["tx_units"], self.tokyo.peer(self.paris)["rx_units"]


def build(lab, directory, *, outer="IPv4", mtu=1500, offloads=True, **settings) -> Site:
    network = Network(lab, directory, mtu=mtu, offloads=offloads, **settings)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    if outer == "IPv6":
        for host in (paris, tokyo):
            host.settings["endpoint"] = f"[{host.outside6}]"
    web, shop = paris.container("web", mtu=mtu), tokyo.container("shop", mtu=mtu)
    network.start()
    paris.wait_up(tokyo)
    return Site(network, paris, tokyo, web, shop)


def use_units(site: Site, inner: str = "address") -> None:
    """Return once super-packets go as units both ways: before both have said hello, and after losses, they do not."""

    def go_as_units() -> bool:
        before = site.paris.peer(site.tokyo)
        transfer_both_ways(site.web.namespace, site.shop.namespace, getattr(site.shop, inner), 4 << 20)
        after = site.paris.peer(site.tokyo)
        return all(after[way] - before[way] > (4 << 20) / BLOCK / 2 for way in ("tx_units", "rx_units"))

    wait_until(go_as_units, PATIENCE, "units both ways")


@pytest.fixture(
    scope="module",
    params=[
        ({"outer": "IPv4"}, CRYPTOGRAPHY),
        ({"outer": "IPv6"}, LIBCRYPTO),
        ({"mtu": 9000}, LIBCRYPTO),
        ({"offloads": False}, CRYPTOGRAPHY),
    ],
    ids=["over IPv4", "over IPv6", "jumbo", "frames of wire size"],
)
def site(request, module_lab, tmp_path_factory):
    settings, library = request.param
    with pytest.MonkeyPatch.context() as patch:  # whichever is faster here
        patch.setenv(VARIABLE, library)
        built = build(module_lab, tmp_path_factory.mktemp("site"), **settings)
    yield built
    built.network.close()


@pytest.fixture
def fresh(lab, tmp_path):
    built = build(lab, tmp_path)
    yield built
    built.network.close()


# Units are used


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_between_containers_goes_as_units_both_ways(site, inner):
    use_units(site, inner)

    def goes_as_units():
        """Transfer much; on a busy machine, datagrams that are lost make it go as messages for a while."""
        before, back = site.units(), site.tokyo.peer(site.paris)["tx_units"]
        transfer_both_ways(site.web.namespace, site.shop.namespace, getattr(site.shop, inner), SIZE)
        there = site.units()[0] - before[0]
        return min(there, site.tokyo.peer(site.paris)["tx_units"] - back) > SIZE / BLOCK / 4

    wait_until(goes_as_units, PATIENCE, "a transfer as units both ways")


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_udp_super_packets_go_as_units(site, inner):
    use_units(site, inner)
    before = site.units()

    with udp_pair(site.web.namespace, site.shop.namespace, getattr(site.shop, inner)) as (near, far):
        near.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1200)
        for first in range(0, 400, 40):
            near.send(b"".join(number.to_bytes(4, "big") * 300 for number in range(first, first + 40)))
            received = [far.recv(2000) for _ in range(40)]

            assert received == [number.to_bytes(4, "big") * 300 for number in range(first, first + 40)]

    assert site.units()[0] - before[0] >= 9
    assert site.units()[1] - before[1] >= 9


def test_single_packets_go_as_messages(site):
    before = site.units()

    site.web.ping(site.shop.address, 20)

    assert site.units() == before


def test_nothing_is_refused(site):
    for host, other in ((site.paris, site.tokyo), (site.tokyo, site.paris)):
        assert host.faults(other) == {}


def test_switched_off_at_one_end_there_are_none_and_tcp_arrives(lab, tmp_path):
    site = build(lab, tmp_path, bulk=False)

    transfer_both_ways(site.web.namespace, site.shop.namespace, site.shop.address, 4 << 20)

    assert site.units() == (0, 0)
    site.network.close()


def test_tcp_arrives_unchanged_where_datagrams_are_lost(lab, tmp_path):
    site = build(lab, tmp_path, offloads=False)
    use_units(site)
    before = site.units()[1]
    nft(
        site.tokyo.namespace,
        "table inet lossy { chain input { type filter hook input priority 0;"
        " udp dport 51820 numgen random mod 1000 < 3 drop; }; }",
    )

    transfer_both_ways(site.web.namespace, site.shop.namespace, site.shop.address, 8 << 20)

    assert site.units()[1] > before
    site.network.close()


# In-band pings


def overlay_ping(host: Host, other: Host, *options: str) -> dict[str, Any]:
    """Return the output of ``overlay ping`` for three requests, which are answered."""
    done = host.overlay("ping", other.name, "-c", "3", "-i", "0.05", "--json", *options)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert (said["sent"], said["answered"], len(said["times_ms"])) == (3, 3, 3)
    return said


def test_ping_is_in_band_once_units_went(fresh):
    paris, tokyo = fresh.paris, fresh.tokyo
    assert overlay_ping(paris, tokyo)["way"] == "icmp"

    use_units(fresh)

    assert overlay_ping(paris, tokyo)["way"] == overlay_ping(tokyo, paris)["way"] == "in-band"
    assert overlay_ping(paris, tokyo, "--icmp")["way"] == "icmp"
    assert "seq=1 time=" in paris.overlay("ping", "tokyo", "-c", "1").stdout
    assert paris.faults(tokyo) == tokyo.faults(paris) == {}


def test_ping_in_band_needs_no_far_kernel(fresh):
    use_units(fresh)
    nft(
        fresh.tokyo.namespace,
        'table inet quiet { chain input { type filter hook input priority 0; iifname "overlay0" drop; }; }',
    )

    assert overlay_ping(fresh.paris, fresh.tokyo)["way"] == "in-band"
    assert fresh.paris.overlay("ping", "tokyo", "--icmp", "-c", "1", "-W", "0.3").returncode == 1


def test_ping_in_band_of_a_killed_agent_is_lost(fresh):
    use_units(fresh)
    fresh.tokyo.kill()

    done = fresh.paris.overlay("ping", "tokyo", "-c", "2", "-i", "0.05", "-W", "0.3")

    assert done.returncode == 1
    assert "no reply from tokyo" in done.stdout
    assert "whether UDP reaches it" in done.stderr


# Events in the middle of a transfer


class Flow:
    """A TCP connection over which one thread sends without end, and another counts what arrives."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.received = 0
        self._near, self._far, self._ends = near, far, threading.Event()
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        near.settimeout(None)
        far.settimeout(None)
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ends.is_set():
                block = os.urandom(BLOCK)
                self._near.sendall(block)
                self._sent.update(block)
                time.sleep(0.005)
            self._near.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._far.recv(1 << 18):
                self._got.update(data)
                self.received += len(data)

    def goes_on(self, patience: float = PATIENCE) -> None:
        """Return once another four megabytes have arrived."""
        wanted = self.received + (4 << 20)
        wait_until(lambda: self.received >= wanted, patience, "the transfer to go on")

    def goes_as_units(self, site: Site) -> None:
        """Return once another sixteen units have arrived."""
        wanted = site.units()[1] + 16
        wait_until(lambda: site.units()[1] >= wanted, PATIENCE, "units to arrive")

    def close(self) -> None:
        """End the transfer, and check that what arrived is what was sent."""
        self._ends.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        is_alive = any(thread.is_alive() for thread in self._threads)
        for each in (self._near, self._far):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        assert not is_alive
        assert self._got.digest() == self._sent.digest()


@contextlib.contextmanager
def flowing(site: Site) -> Iterator[Flow]:
    """Yield a transfer from Paris' container to Tokyo's that runs during the block."""
    near, far = connect(site.web.namespace, site.shop.namespace, site.shop.address)
    flow = Flow(near, far)
    try:
        flow.goes_on()
        yield flow
    finally:
        flow.close()


@pytest.mark.parametrize("end", ["sender", "receiver"])
@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_transfer_goes_on_after_an_end_was_started_again(fresh, end, way):
    host = fresh.paris if end == "sender" else fresh.tokyo
    with flowing(fresh) as flow:
        if way == "stopped":
            host.stop()
        else:
            host.kill()
        host.start()
        flow.goes_on()

        flow.goes_as_units(fresh)


def test_transfer_goes_on_while_keys_change(lab, tmp_path):
    times = {
        "rekey_after_time": 1.0,
        "reject_after_time": 8.0,
        "rekey_timeout": 0.5,
        "keepalive_timeout": 2.0,
    }
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    site = Site(network, paris, tokyo, paris.container("web"), tokyo.container("shop"))
    network.start(timing=times)
    paris.wait_up(tokyo)
    with flowing(site) as flow:
        for _ in range(5):
            handshakes = paris.log.count("handshake completed")
            wait_until(
                lambda seen=handshakes: paris.log.count("handshake completed") > seen, PATIENCE, "new keys"
            )
            flow.goes_on()
    assert site.units()[1] > 100
    network.close()


# Another implementation at the other end


@pytest.mark.skipif(
    not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"
)
def test_transfer_goes_on_while_wireguard_go_takes_an_agent_s_place_and_gives_it_back(fresh):
    paris, tokyo = fresh.paris, fresh.tokyo
    plain = as_wireguard(tokyo)
    with flowing(fresh) as flow:
        flow.goes_as_units(fresh)
        tokyo.stop()
        plain.start()
        plain.meet(paris)
        flow.goes_on()
        before = paris.peer(tokyo)["tx_units"]
        flow.goes_on()
        assert paris.peer(tokyo)["tx_units"] == before

        plain.stop()
        tokyo.start()
        flow.goes_on()

        flow.goes_as_units(fresh)


@pytest.mark.skipif(
    not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"
)
def test_wireguard_go_is_pinged_with_echo_requests(fresh):
    paris, tokyo = fresh.paris, fresh.tokyo
    use_units(fresh)
    assert overlay_ping(paris, tokyo)["way"] == "in-band"
    plain = as_wireguard(tokyo)
    tokyo.stop()
    plain.start()
    plain.meet(paris, endpoint=f"{paris.outside}:{PORT}")
    plain.ping(paris.address)

    assert overlay_ping(paris, tokyo)["way"] == "icmp"

    transfer_both_ways(fresh.web.namespace, fresh.shop.namespace, fresh.shop.address, 4 << 20)
    assert overlay_ping(paris, tokyo)["way"] == "icmp"
    plain.stop()


def as_wireguard(host: Host) -> WireGuard:
    """Return the node of *host*, with its namespace and key, as one that runs wireguard-go."""
    twin = WireGuard.__new__(WireGuard)
    twin.__dict__.update(vars(host))
    twin.interface = f"wg{os.getpid()}u"
    return twin
