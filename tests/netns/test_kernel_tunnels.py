"""The kernel's own tunnels as the far end of ``ipip`` and ``gre``; skipped where it has none."""

from __future__ import annotations

import pytest

from tests.netns.network import Network
from tests.netns.test_raw import between_ours_and_another, see_that_all_reach_each_other

CHECKSUM, SEQUENCE = {"gre_checksum": True}, {"gre_sequence": True}
KINDS = {
    "ipip": ("ipip", {}),
    "gre": ("gre", {}),
    "gre with a key": ("gre", {"gre_key": 7}),
    "gre with a checksum": ("gre", CHECKSUM),
    "gre with a sequence": ("gre", SEQUENCE),
    "gre with all": ("gre", {"gre_key": 7, **CHECKSUM, **SEQUENCE}),
}
DEVICES = {  # by mode and IP version outside: the kind of the kernel's device, and its module
    ("ipip", 4): ("ipip", "ipip"),
    ("ipip", 6): ("ip6tnl", "ip6_tunnel"),
    ("gre", 4): ("gre", "ip_gre"),
    ("gre", 6): ("ip6gre", "ip6_gre"),
}
DEVICE = "tunnel0"


def kernel_tunnel(node, mode, outer, far, settings):
    """Make the kernel's own tunnel at *node*."""
    kind, _ = DEVICES[mode, outer]
    options = ["local", node.outside if outer == 4 else node.outside6, "remote", far]
    options += ["mode", "any"] if kind in {"ipip", "ip6tnl"} else []
    options += ["key", str(settings["gre_key"])] if "gre_key" in settings else []
    options += ["csum"] if settings.get("gre_checksum") else []
    options += ["seq"] if settings.get("gre_sequence") else []
    node.namespace.run("ip", "link", "add", DEVICE, "type", kind, *options)
    for address in (f"{node.address}/32", f"{node.address6}/128"):
        node.namespace.run("ip", "address", "add", address, "dev", DEVICE)
    node.namespace.run("ip", "link", "set", DEVICE, "mtu", "1440", "up")
    for prefix in ("10.244.1.0/24", "fd00:244:1::/64"):
        node.namespace.run("ip", "route", "add", prefix, "dev", DEVICE)


@pytest.fixture
def between(lab, tmp_path, request):
    """Paris runs our agent, Tokyo has the kernel's tunnel."""
    kind, outer, offloads = request.param
    name, settings = KINDS[kind]
    for module in dict.fromkeys((DEVICES[name, 4][1], DEVICES[name, outer][1])):
        lab.require_module(module)
    network = Network(lab, tmp_path, encapsulation=name, offloads=offloads, **settings)
    paris, tokyo = between_ours_and_another(network, name, outer)
    kernel_tunnel(tokyo, name, outer, paris.settings["endpoint"], settings)
    yield network
    network.close()


@pytest.mark.parametrize(
    "between", [(kind, outer, True) for kind in KINDS for outer in (4, 6)], ids=str, indirect=True
)
def test_the_kernel_s_own_tunnel_and_ours_carry_pings_and_tcp(between):
    see_that_all_reach_each_other(between)


@pytest.mark.parametrize("between", [(kind, 4, False) for kind in KINDS], ids=str, indirect=True)
def test_also_over_a_wire_whose_packets_are_cut_finished_and_merged_again(between):
    paris, _ = between.peers.values()
    paris.namespace.run("ethtool", "-K", "eth0", "gro", "on")

    see_that_all_reach_each_other(between)


@pytest.mark.parametrize("between", [("gre with a sequence", 4, True)], ids=str, indirect=True)
def test_the_kernel_takes_what_comes_after_a_restart_of_ours(between):
    paris, tokyo = between.peers.values()
    for _ in range(2):
        paris.ping(tokyo.address, 3)
        see_that_all_reach_each_other(between)
        paris.stop()
        paris.start()
    see_that_all_reach_each_other(between)
