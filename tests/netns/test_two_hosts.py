"""Two hosts with a container each and a LAN behind one: what passes between them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from overlay.forwarding import native
from tests.netns.network import (
    Container,
    Host,
    Network,
    connect,
    deliver,
    ping,
    transfer,
    transfer_both_ways,
    udp_pair,
)
from tests.netns.topology import wait_until

LAN = "192.168.77.0/24"
STREAMS = 50


@dataclass(frozen=True)
class Site:
    """The hosts and what is behind them."""

    network: Network
    paris: Host
    tokyo: Host
    web: Container  # in Paris
    shop: Container  # in Tokyo
    lan: Container  # x


def build(lab, directory, outer) -> Site:
    network = Network(lab, directory)
    paris, tokyo = network.host("paris", is_forked=False), network.host("tokyo")
    if outer == "IPv6":
        for host in (paris, tokyo):
            host.settings["endpoint"] = f"[{host.outside6}]"
    tokyo.settings["subnets"] += [LAN, "fd00:77::/64"]
    web, shop = paris.container("web"), tokyo.container("shop")
    printer = lab.container(
        tokyo.namespace,
        network.namespace_name("printer"),
        "192.168.77.9/24",
        "fd00:77::9/64",
        gateways=("192.168.77.1", "fd00:77::1"),
        bridge="lan0",
    )
    network.start()
    paris.wait_up(tokyo)
    return Site(network, paris, tokyo, web, shop, Container(printer, "192.168.77.9", "fd00:77::9"))


@pytest.fixture(scope="module", params=["IPv4", "IPv6", "IPv4 without the compiled path"])
def site(request, module_lab, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if "without" in request.param:
            patch.setenv("OVERLAY_NATIVE", "0")
        built = build(module_lab, tmp_path_factory.mktemp("site"), request.param)
    yield built
    built.network.close()


def test_packets_go_by_the_path_that_is_there(site, request):
    is_compiled = native.core is not None and "without" not in request.node.callspec.id

    assert site.paris.status()["packet_path"] == ("compiled" if is_compiled else "interpreted")


def test_underlay_is_of_the_family_of_the_endpoints(site, request):
    endpoint = site.paris.peer(site.tokyo)["endpoint"]

    assert endpoint in {f"{site.tokyo.outside}:51820", f"[{site.tokyo.outside6}]:51820"}
    assert endpoint.startswith("[") == ("IPv6" in request.node.callspec.id)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_containers_and_hosts_reach_each_other(site, inner):
    for one, other in (
        (site.web, site.shop),
        (site.shop, site.web),
        (site.paris, site.tokyo),
        (site.tokyo, site.paris),
        (site.web, site.tokyo),
        (site.paris, site.shop),
    ):
        one.ping(getattr(other, inner), 3)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_container_and_lan_behind_the_other_host_reach_each_other(site, inner):
    site.web.ping(getattr(site.lan, inner), 3)
    site.lan.ping(getattr(site.web, inner), 3)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_flood_of_pings_is_answered_to_the_last(site, inner):
    ping(site.web.namespace, getattr(site.shop, inner), 500, interval=0)


@pytest.mark.parametrize("inner", ["address", "address6"])
@pytest.mark.parametrize("size", [0, 1, 1392, 1393, 8000, 60000])
def test_pings_of_any_size_are_answered(site, inner, size):
    ping(site.web.namespace, getattr(site.shop, inner), 2, "-s", str(size))


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_transfers_between_containers_arrive_unchanged_both_ways(site, inner):
    transfer_both_ways(site.web.namespace, site.shop.namespace, getattr(site.shop, inner), 4 << 20)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_transfers_between_hosts_arrive_unchanged_both_ways(site, inner):
    transfer_both_ways(site.paris.namespace, site.tokyo.namespace, getattr(site.tokyo, inner), 4 << 20)


def test_tcp_transfer_to_the_lan_arrives_unchanged(site):
    near, far = connect(site.web.namespace, site.lan.namespace, site.lan.address)
    with near, far:
        transfer(near, far, 4 << 20)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_fifty_tcp_streams_at_once_arrive_unchanged(site, inner):
    pairs = [
        connect(site.web.namespace, site.shop.namespace, getattr(site.shop, inner)) for _ in range(STREAMS)
    ]
    done = []

    def move(near, far):
        with near, far:
            transfer(near, far, 256 << 10)
        done.append(True)

    threads = [
        threading.Thread(target=move, args=pair if number % 2 else pair[::-1])
        for number, pair in enumerate(pairs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == STREAMS


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_datagrams_arrive_whole_and_unchanged_both_ways(site, inner):
    with udp_pair(site.web.namespace, site.shop.namespace, getattr(site.shop, inner)) as (near, far):
        deliver(near, far, b"hello")
        far.connect(near.getsockname()[:2])
        for size in (0, 1, 1000, 1372, 4000, 30000):
            datagram = bytes(number % 251 for number in range(size))
            deliver(near, far, datagram)
            deliver(far, near, datagram)


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_burst_of_equal_datagrams_arrives_in_order(site, inner):
    with udp_pair(site.web.namespace, site.shop.namespace, getattr(site.shop, inner)) as (near, far):
        near.setsockopt(17, 103, 1000)  # UDP_SEGMENT: one super-packet leaves the container
        for first in range(0, 200, 40):
            near.send(b"".join(number.to_bytes(4, "big") * 250 for number in range(first, first + 40)))
            numbers = [int.from_bytes(far.recv(2000)[:4], "big") for _ in range(40)]

            assert numbers == list(range(first, first + 40))


def test_dropped_packets_are_those_without_a_peer_alone(site):
    site.web.ping(site.shop.address)

    # On a busy machine an initiation may have been repeated before the first one was answered.
    for host, other in ((site.paris, site.tokyo), (site.tokyo, site.paris)):
        assert set(host.drops()) <= {"tun_multicast", "response_index", "receive_full", "tun_overrun"}
        assert host.faults(other) == {}


def test_counters_agree_with_each_other(site):
    def counted():
        sent, received = site.paris.peer(site.tokyo), site.tokyo.peer(site.paris)
        return (sent["tx_bytes"], sent["tx_packets"]), (received["rx_bytes"], received["rx_packets"])

    def settled():
        before = counted()  # tests at full speed may have lost something, and packets may be in flight
        site.web.ping(site.shop.address, 3)
        sent, received = (
            tuple(now - then for now, then in zip(*each, strict=True))
            for each in zip(counted(), before, strict=True)
        )
        return sent == received and sent[1] >= 3

    wait_until(settled, what="both ends to have counted the same")
