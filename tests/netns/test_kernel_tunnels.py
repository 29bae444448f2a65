"""The kernel's own tunnels as the far end of ``ipip`` and ``gre``; skipped if it has none."""

from __future__ import annotations

import socket
from typing import NamedTuple

import pytest

from tests.netns.network import Network, udp_pair
from tests.netns.test_clear_udp import keyless
from tests.netns.test_raw import between_ours_and_another, outer_headers, see_that_all_reach_each_other
from tests.netns.topology import PATIENCE, wait_until

BOTH = ("address", "address6")
CHECKSUM, SEQUENCE = {"gre_checksum": True}, {"gre_sequence": True}


class Kind(NamedTuple):
    """A kernel tunnel: our encapsulation, the device and its modules by outer IP version, and the inner versions."""

    encapsulation: str
    devices: dict[int, tuple[str, ...]]
    settings: dict[str, object]
    inners: tuple[str, ...] = BOTH
    options: tuple[str, ...] = ()


GRE = {4: ("gre", "ip_gre"), 6: ("ip6gre", "ip6_gre")}
KINDS = {
    "ipip": Kind("ipip", {4: ("ipip", "ipip")}, {}, ("address",)),
    "sit": Kind("ipip", {4: ("sit", "sit"), 6: ("ip6tnl", "ip6_tunnel")}, {}, options=("mode", "any")),
    "gre": Kind("gre", GRE, {}),
    "gre with a key": Kind("gre", GRE, {"gre_key": 7}),
    "gre with a checksum": Kind("gre", GRE, CHECKSUM),
    "gre with a sequence": Kind("gre", GRE, SEQUENCE),
    "gre with all": Kind("gre", GRE, {"gre_key": 7, **CHECKSUM, **SEQUENCE}),
}
ALL = [(name, outer) for name, kind in KINDS.items() for outer in kind.devices]
DEVICE = "tunnel0"
UNREACHABLE_PORT = bytes((3, 3))  # RFC 792


def kernel_tunnel(node, kind, outer, far):
    """Create the kernel's own tunnel at *node*."""
    device, _ = kind.devices[outer]
    options = ["local", node.outside if outer == 4 else node.outside6, "remote", far, *kind.options]
    options += ["key", str(kind.settings["gre_key"])] if "gre_key" in kind.settings else []
    options += ["csum"] if "gre_checksum" in kind.settings else []
    options += ["seq"] if "gre_sequence" in kind.settings else []
    node.namespace.run("ip", "link", "add", DEVICE, "type", device, *options)
    for address in (f"{node.address}/32", f"{node.address6}/128"):
        node.namespace.run("ip", "address", "add", address, "dev", DEVICE)
    node.namespace.run("ip", "link", "set", DEVICE, "mtu", "1440", "up")
    for prefix in ("10.244.1.0/24", "fd00:244:1::/64"):
        node.namespace.run("ip", "route", "add", prefix, "dev", DEVICE)


@pytest.fixture
def between(lab, tmp_path, request):
    """Paris runs our agent, Tokyo has the kernel's tunnel, whose module is loaded on both."""
    name, outer, *offloads = request.param
    kind = KINDS[name]
    lab.require_module(kind.devices[outer][1])
    network = Network(lab, tmp_path, encapsulation=kind.encapsulation, offloads=not offloads, **kind.settings)
    network.kind = kind
    paris, tokyo = between_ours_and_another(network, kind.encapsulation, outer)
    kernel_tunnel(tokyo, kind, outer, paris.settings["endpoint"])
    yield network
    network.close()


@pytest.mark.parametrize("between", ALL, ids=str, indirect=True)
def test_the_kernel_s_own_tunnel_and_ours_carry_pings_and_tcp(between):
    see_that_all_reach_each_other(between, between.kind.inners)


@pytest.mark.parametrize("between", [(name, 4, "whole") for name in KINDS], ids=str, indirect=True)
def test_also_over_a_wire_whose_packets_are_cut_finished_and_merged_again(between):
    paris, _ = between.peers.values()
    paris.namespace.run("ethtool", "-K", "eth0", "gro", "on")

    see_that_all_reach_each_other(between, between.kind.inners)


@pytest.mark.parametrize("between", [("gre with a sequence", 4)], ids=str, indirect=True)
def test_the_kernel_takes_what_comes_after_a_restart_of_ours(between):
    paris, tokyo = between.peers.values()
    for _ in range(2):
        paris.ping(tokyo.address, 20)
        paris.stop()
        paris.start()
    paris.ping(tokyo.address, 3)


# The kernel's answers to packets of our tunnels


def errors(sniffer):
    """Return the ICMP errors "port unreachable" that were seen, each from the ICMP header on."""
    return [
        packet[20:]
        for packet in outer_headers(sniffer, socket.IPPROTO_ICMP)
        if packet[20:22] == UNREACHABLE_PORT
    ]


@pytest.mark.parametrize("between", [("ipip", 4), ("gre", 4)], ids=str, indirect=True)
def test_no_errors_of_the_kernel_s_own_leave_while_the_agent_runs_and_all_do_again_thereafter(between):
    paris, tokyo = between.peers.values()
    sniffer, seen = paris.namespace.sniff("eth0"), []
    assert "port-unreachable" in paris.namespace.run("nft", "list", "ruleset")

    paris.ping(tokyo.address, 3)
    paris.namespace.run("nft", "flush", "ruleset")
    paris.ping(tokyo.address, 3)
    with udp_pair(tokyo.namespace, paris.namespace, paris.outside) as (near, far):
        far.close()
        near.send(b"nobody takes this")
        wait_until(lambda: seen.extend(errors(sniffer)) or seen, PATIENCE, "an error about a closed UDP port")
    assert [error[8 + 9] for error in seen] == [socket.IPPROTO_UDP]

    paris.kill()
    wait_until(
        lambda: not paris.namespace.run("nft", "list", "ruleset"), PATIENCE, "a killed agent's table to go"
    )
    paris.start()
    paris.ping(tokyo.address, 3)
    paris.stop()
    assert not paris.namespace.run("nft", "list", "ruleset")


def test_a_module_that_is_loaded_while_the_agent_runs_is_kept_from_answering(lab, tmp_path):
    network = Network(lab, tmp_path, encapsulation="ipip")
    paris, tokyo = (keyless(network.host(name)) for name in ("paris", "tokyo"))
    network.start()
    paris.ping(tokyo.address)
    sniffer = paris.namespace.sniff("eth0")

    lab.require_module("ipip")
    wait_until(lambda: paris.namespace.run("nft", "list", "ruleset"), PATIENCE, "the errors to be prevented")

    errors(sniffer)
    paris.ping(tokyo.address, 10)
    assert not errors(sniffer)
    assert not [note for note in paris.status()["notes"] if "ipip answers" in note]
    paris.namespace.run("ip", "link", "set", "tunl0", "up")
    wait_until(
        lambda: any("`ip link set tunl0 down`" in note for note in paris.status()["notes"]),
        PATIENCE,
        "a note",
    )
    network.close()
