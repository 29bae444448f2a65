"""Tunnels inside tunnels, and all traffic through one tunnel."""

from __future__ import annotations

import pytest

from tests.netns.network import (
    PATIENCE,
    PORT,
    Network,
    is_silent,
    ping,
    trace,
    transfer_both_ways,
)
from tests.netns.topology import wait_until


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


def test_endpoint_inside_another_peer_s_prefix_is_reached_through_that_peer(network):
    """Nested: quito is a host in tokyo's container network, and has no other route."""
    paris, tokyo, quito = network.host("paris"), network.host("tokyo"), network.host("quito")
    paris.settings["endpoint"] = paris.outside
    inside = tokyo.container("inside")  # makes tokyo's bridge
    network.lab.veth(quito.namespace.end("eth1", "10.244.2.30/24"), tokyo.namespace.end("to-quito"))
    network.lab.attach(tokyo.namespace, "br0", "to-quito")
    quito.namespace.run("ip", "address", "flush", "dev", "eth0")
    quito.namespace.run("ip", "route", "add", "default", "via", "10.244.2.1")
    quito.settings["endpoint"] = "10.244.2.30"
    # Quito calls nobody: it sees paris at the overlay address that it receives packets from.
    quito.write(
        network.toml()
        .replace(f'endpoint = "{paris.outside}"', "")
        .replace(f'endpoint = "{tokyo.outside}"', "")
    )
    network.start()

    paris.ping(quito.address, 5)
    quito.ping(paris.address, 5)
    transfer_both_ways(paris.namespace, quito.namespace, quito.address, 1 << 20)

    assert paris.peer(quito)["endpoint"] == f"10.244.2.30:{PORT}"
    assert paris.peer(tokyo)["tx_bytes"] > paris.peer(quito)["tx_bytes"]
    inside.ping(paris.address)


def test_endpoint_inside_its_own_prefix_is_refused(network):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.settings["endpoint"] = "10.244.2.5"
    paris.write()

    done = paris.overlay("up", "--peers", str(paris.peers_path), "--key", str(paris.key_path))

    assert done.returncode == 2
    assert "10.244.2.5" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def exit_pair(network):
    """Tokyo carries all traffic of paris; behind it is a host that only tokyo reaches."""
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.settings["subnets"] += ["0.0.0.0/0", "::/0"]
    far = network.lab.container(
        tokyo.namespace,
        network.namespace_name("far"),
        "203.0.113.9/24",
        "2001:db8:113::9/64",
        gateways=("203.0.113.1", "2001:db8:113::1"),
        bridge="br1",
    )
    for family, gateway in (("-4", "192.0.2.254"), ("-6", "2001:db8::254")):
        paris.namespace.run("ip", family, "route", "add", "default", "via", gateway)
    return paris, tokyo, far


def test_everything_goes_into_the_tunnel_of_a_peer_with_the_default_route(exit_pair, network):
    paris, tokyo, far = exit_pair
    web = paris.container("web")
    before = trace(paris.namespace)
    network.start()
    sniffer = paris.namespace.sniff("eth0")

    for address in ("203.0.113.9", "2001:db8:113::9"):
        ping(paris.namespace, address, 100, interval=0)
        ping(web.namespace, address, 20, interval=0)
    ping(far, web.address, 3)
    transfer_both_ways(web.namespace, far, "203.0.113.9", 1 << 20)
    assert is_silent(paris.namespace, "198.51.100.1")  # no host is there, but it is for tokyo to say so

    for frame in sniffer.frames():
        # A kernel also announces its multicast groups on its link, at any time.
        is_for_one = not frame[0] & 1
        if is_for_one and frame[12:14] == b"\x08\x00":
            assert {frame[26:30], frame[30:34]} <= {bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])}
            assert frame[23] == 17
    assert "fwmark" in paris.namespace.run("ip", "rule")
    ping(paris.namespace, tokyo.outside, 2)  # neighbours on the underlay remain reachable over their link

    paris.stop()
    assert trace(paris.namespace) == before


def test_default_route_by_ipv6_underlay_and_with_a_configured_mark(exit_pair, network):
    paris, tokyo, _ = exit_pair
    network.settings["fwmark"] = 0x1234
    for host in (paris, tokyo):
        host.settings["endpoint"] = f"[{host.outside6}]"
    before = trace(paris.namespace)
    network.start()

    ping(paris.namespace, "203.0.113.9", 100, interval=0)
    ping(paris.namespace, "2001:db8:113::9", 100, interval=0)

    assert "0x1234" in paris.namespace.run("ip", "rule")
    paris.stop()
    assert trace(paris.namespace) == before


def test_policy_routes_of_a_killed_agent_leak_nothing_and_go_with_the_next(exit_pair, network):
    paris, _tokyo, _ = exit_pair
    before = trace(paris.namespace)
    network.start()
    ping(paris.namespace, "203.0.113.9")

    paris.kill()
    sniffer = paris.namespace.sniff("eth0")
    refused = paris.namespace.completed("ping", "-c1", "-W1", "203.0.113.9")
    assert refused.returncode != 0
    assert not any(bytes([203, 0, 113, 9]) in frame for frame in sniffer.frames())

    paris.start()
    ping(paris.namespace, "203.0.113.9")
    paris.stop()
    assert trace(paris.namespace) == before


def test_prefix_that_holds_the_endpoints_is_routed_past_our_own_datagrams(network):
    """A subnet of the underlay itself behind a peer, as where a site link joins two halves of one network."""
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.settings["subnets"].append("192.0.2.0/25")
    before = trace(paris.namespace)
    network.start()

    paris.ping(tokyo.address, 3)
    assert "fwmark" in paris.namespace.run("ip", "rule")

    paris.stop()
    assert trace(paris.namespace) == before


def test_datagrams_of_ours_that_come_back_by_the_tun_are_dropped_and_do_not_multiply(exit_pair, network):
    paris, tokyo, _ = exit_pair
    network.start()
    paris.ping(tokyo.address)
    loop = (f"{tokyo.outside}/32", "dev", "overlay0")
    paris.namespace.run("ip", "route", "add", *loop)
    before = paris.peer(tokyo)

    paris.namespace.completed("ping", "-c", "300", "-i", "0.003", "-W", "0.2", tokyo.address)

    after = paris.peer(tokyo)
    looped = after["drops"].get("loop", 0) - before["drops"].get("loop", 0)
    assert 1 <= looped <= 700
    assert after["tx_bytes"] - before["tx_bytes"] < 70_000
    assert paris.is_running
    paris.namespace.run("ip", "route", "delete", *loop)
    wait_until(lambda: not is_silent(paris.namespace, tokyo.address), PATIENCE, "traffic to go on")
