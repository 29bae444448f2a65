"""The findings on a host's settings when it is set up, and the changes made to them."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from ipaddress import ip_network

import pytest

from overlay.config import Node
from overlay.host.settings import Settings
from overlay.provisioning.setup import HostSetup
from tests.netns.topology import wait_until
from tests.overlay.provisioning.setup_bench import (
    PRIVATE,
    TOKYO,
    node,
    notes_of,
    set_up,
)
from tests.peers.examples import peer, table

pytestmark = pytest.mark.netns


def test_notes_name_the_setting_that_keeps_subnets_from_being_reached(host):
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    with set_up(host) as setup:
        notes = notes_of(setup, node(own=("10.244.1.0/24", "fd00:244:1::/64")))

        assert [note.partition(":")[0] for note in notes if "forward" in note] == [
            "this host does not forward IPv4, so its subnets cannot be reached",
            "this host does not forward IPv6, so its subnets cannot be reached",
        ]
        assert any("sysctl -w net.ipv6.conf.all.forwarding=1" in note for note in notes)
        assert not any("forward" in note for note in notes_of(setup, node(own=("10.244.1.1/32",))))


@pytest.mark.parametrize("interface", ["overlay0", "br0"])
def test_interface_that_does_not_forward_is_named_and_made_to(host, interface):
    host.ip("link add br0 type bridge", "address add 10.244.1.1/24 dev br0", "link set br0 up")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    with set_up(host) as setup:
        wanted = node(own=("10.244.1.0/24",))
        assert not any("forward" in note for note in notes_of(setup, wanted))
        host.run("sysctl", "-qw", f"net.ipv4.conf.{interface}.forwarding=0")

        (note,) = (each for each in notes_of(setup, wanted) if "forward" in each)
        assert note.startswith(f"this host does not forward IPv4 packets that come in by {interface}, so ")
        setup.fix_settings(wanted)

        assert not any("forward" in each for each in notes_of(setup, wanted))


STRICT_ETH0 = (
    "strict rp_filter on eth0 drops packets of peers that bypass the policy routes: "
    "run `sysctl -w net.ipv4.conf.eth0.rp_filter=2`, or start with --fix-sysctl"
)


def about_filters(setup, node):
    return [note for note in notes_of(setup, node) if "rp_filter" in note]


@pytest.mark.parametrize(
    ("endpoint", "subnet", "notes"),
    [
        ("203.0.113.9", "0.0.0.0/0", [STRICT_ETH0]),
        ("203.0.113.9", "203.0.113.0/24", [STRICT_ETH0]),
        ("192.0.2.9", "0.0.0.0/0", []),  # main has a better route, with our mark or without
        ("198.51.100.9", "0.0.0.0/0", []),
        ("203.0.113.9", "192.168.77.0/24", []),
        (None, "0.0.0.0/0", [STRICT_ETH0]),  # it may call from anywhere
        (None, "192.168.77.0/24", []),
    ],
)
def test_strict_filter_is_noted_where_it_drops_what_an_endpoint_sends(host, endpoint, subnet, notes):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1", "net.ipv4.conf.eth1.rp_filter=1")
    endpoints = set() if endpoint is None else {("tokyo", (endpoint, 51820))}
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(node("10.244.2.0/24", subnet), endpoints)

        assert about_filters(setup, node()) == notes


def test_filter_that_is_not_strict_is_not_noted(host):
    far = {("tokyo", ("203.0.113.9", 51820))}
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(node("10.244.2.0/24", "0.0.0.0/0"), far)
        assert about_filters(setup, node()) == []

        host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
        assert about_filters(setup, node()) == [STRICT_ETH0]

        host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2")
        assert about_filters(setup, node()) == []


def director(*sources):
    """Return a node with an unencrypted peer that sends from elsewhere."""
    tokyo = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2", encapsulation="udp", sources=sources)
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    return Node(PRIVATE, table(paris, tokyo), paris, {})


@pytest.mark.parametrize(
    ("sources", "stray"),
    [(("0.0.0.0/0",), "0.0.0.0/0"), (("10.244.9.0/24",), None), (("fd00::/8",), None), ((), None)],
)
def test_strict_filter_of_a_prepared_tun_is_noted_where_it_drops_what_peers_send(host, sources, stray):
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")
    host.run("sysctl", "-qw", "net.ipv4.conf.overlay0.rp_filter=1")
    wanted = director(*map(ip_network, sources))
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {TOKYO})

        notes = about_filters(setup, wanted)
        assert [note.partition(":")[0] for note in notes] == (
            [f"strict rp_filter on overlay0 drops packets of peers from {stray}, which is routed elsewhere"]
            if stray
            else []
        )
        setup.fix_settings(wanted)
        assert about_filters(setup, wanted) == []

    assert host.run("sysctl", "-n", "net.ipv4.conf.overlay0.rp_filter") == "1\n"


def test_subnet_that_another_route_takes_is_noted_for_a_prepared_tun(host):
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    with set_up(host) as setup:
        assert about_filters(setup, node()) == []

        host.run("ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.254")
        (note,) = about_filters(setup, node())

    assert note.startswith("strict rp_filter on overlay0 drops packets of peers from 10.244.2.0/24, which")


def test_tun_of_our_own_making_is_loose_whatever_is_said_of_all(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1")
    wanted = director(ip_network("0.0.0.0/0"))
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {TOKYO})

        assert about_filters(setup, wanted) == []


@pytest.mark.parametrize(("own", "spokes", "is_hub"), [
    ("10.244.0.0/16", ("10.244.2.0/24", "10.244.3.0/24"), True),
    ("10.244.0.0/16", ("10.244.2.0/24",), False),  # nothing to reach through this node
    ("10.244.1.0/24", ("10.244.2.0/24", "10.244.3.0/24"), False),
])  # fmt: skip
def test_redirects_of_a_hub_are_noted_and_end_with_the_settings(host, own, spokes, is_hub):
    """Before, ICMP told the spokes, for one packet in two, to send directly to each other."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=1")
    before = host.dump()
    hub = peer("paris", own, public_key=PRIVATE.public)
    others = [peer(f"spoke{number}", each) for number, each in enumerate(spokes)]
    wanted = Node(PRIVATE, table(hub, *others), hub, {})
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, set())
        assert setting(host, "net.ipv4.conf.overlay0.send_redirects") == 0

        notes = [note for note in notes_of(setup, wanted) if "redirects" in note]
        assert len(notes) == is_hub
        setup.fix_settings(wanted)

        assert not [note for note in notes_of(setup, wanted) if "redirects" in note]
        assert setting(host, "net.ipv4.conf.all.send_redirects") == (0 if is_hub else 1)

    assert host.dump() == before


def test_settings_are_fixed_until_the_end(host):
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
    before = host.dump()
    wanted = node("10.244.2.0/24", "0.0.0.0/0", own=("10.244.1.0/24", "fd00:244:1::/64"))
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {("tokyo", ("203.0.113.9", 51820))})
        assert len(notes_of(setup, wanted)) == 3

        setup.fix_settings(wanted)

        assert notes_of(setup, wanted) == []
        assert host.saved.exists()

    assert host.dump() == before
    assert not host.saved.exists()


V6 = ("10.244.1.0/24", "fd00:244:1::/64")
FORWARDS, ACCEPTS = "net.ipv6.conf.all.forwarding", "net.ipv6.conf.eth0.accept_ra"


def setting(host, key):
    return int(host.run("sysctl", "-n", key))


def test_default_route_from_router_advertisements_outlives_the_fix(host, lab):
    """With accept_ra=1 the kernel drops it when IPv6 forwarding is switched on, and heeds none that comes later."""
    router = lab.namespace("router")
    lab.veth(host.end("up0", "2001:db8:9::1/64"), router.end("eth0", "2001:db8:9::254/64"))
    host.run("sysctl", "-qw", f"{FORWARDS}=0", "net.ipv6.conf.up0.accept_ra=1")
    wait_until(lambda: "tentative" not in router.run("ip", "-6", "address"))
    with router.entered():
        advertiser = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")

    def advertise(lifetime):
        # RFC 4861 section 4.2: type 134, a code, a checksum that the kernel makes, a hop limit, flags, the lifetime
        advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
        advertiser.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        advertiser.sendto(advertisement, ("ff02::1", 0, 0, index))

    def has_route(lifetime=None):
        if lifetime is not None:
            advertise(lifetime)
        return "proto ra" in host.run("ip", "-6", "route", "show", "default", "dev", "up0")

    wanted = node(own=V6)
    with advertiser, host.entered():
        with contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
            setup.adopt(wanted, {TOKYO})
            wait_until(lambda: has_route(1800))

            setup.fix_settings(wanted)

            assert setting(host, FORWARDS) == 1
            assert has_route()
            wait_until(lambda: not has_route(0))
            wait_until(lambda: has_route(1800))
        assert setting(host, FORWARDS) == 0
        assert setting(host, "net.ipv6.conf.up0.accept_ra") == 1
        assert has_route()


@pytest.mark.parametrize(("accepts", "forwards"), [(0, 0), (1, 1), (2, 0)])
def test_interface_that_heeds_no_advertisements_or_heeds_them_always_stays_so(host, accepts, forwards):
    host.run("sysctl", "-qw", f"{FORWARDS}=0", f"{ACCEPTS}={accepts}")
    host.run("sysctl", "-qw", f"net.ipv6.conf.eth0.forwarding={forwards}")
    wanted = node(own=V6)
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {TOKYO})

        setup.fix_settings(wanted)

        assert (setting(host, FORWARDS), setting(host, ACCEPTS)) == (1, accepts)


def test_advertisements_are_heeded_before_the_host_forwards(host):
    host.run("sysctl", "-qw", f"{FORWARDS}=0", f"{ACCEPTS}=1")
    wanted = node(own=V6)
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {TOKYO})
        (note,) = [each for each in notes_of(setup, wanted) if "IPv6" in each]

        setup.fix_settings(wanted)
        names = [name for name, *_ in json.loads(host.saved.read_text())["changes"]]

    assert note.index("accept_ra=2") < note.index(f"{FORWARDS}=1")
    assert names.index("ipv6/conf/eth0/accept_ra") < names.index("ipv6/conf/all/forwarding")


def test_second_agent_keeps_advertisements_heeded_when_the_first_leaves(host):
    host.run("sysctl", "-qw", f"{FORWARDS}=0", f"{ACCEPTS}=1")
    before = host.dump()
    wanted = node(own=V6)
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(wanted, {TOKYO})
        first = Settings(host.saved.with_name("first0.sysctl"))
        first.hold({"ipv6/conf/eth0/accept_ra": 2, "ipv6/conf/all/forwarding": 1})
        setup.fix_settings(wanted)
        first.restore()

        assert (setting(host, FORWARDS), setting(host, ACCEPTS)) == (1, 2)

    assert host.dump()["sysctl"] == before["sysctl"]


def test_settings_that_a_killed_agent_left_are_put_back_before_all_else(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
    with host.entered():
        Settings(host.saved).hold({"ipv4/conf/eth0/rp_filter": 2})

        with contextlib.closing(HostSetup("overlay0", host.saved)):
            assert host.run("sysctl", "-n", "net.ipv4.conf.eth0.rp_filter") == "1\n"
