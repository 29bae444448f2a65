from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address

import pytest

from overlay.config import DEFAULT_FWMARK, Node
from overlay.crypto.keys import PrivateKey
from overlay.encap.encapsulation import Role
from overlay.errors import HostError
from overlay.host.netlink import METRIC
from overlay.setup import HostSetup
from tests.netns.topology import wait_until
from tests.peers.examples import peer, table

pytestmark = pytest.mark.netns

PRIVATE = PrivateKey(bytes(range(32)))
TOKYO = ("tokyo", ("192.0.2.2", 51820))


@pytest.fixture
def host(lab):
    """A host with a wide and a narrow underlay, and a default route by the wide one."""
    host, wide, narrow = (lab.namespace(name) for name in ("host", "wide", "narrow"))
    lab.veth(host.end("eth0", "192.0.2.1/24", "2001:db8::1/64"), wide.end("eth0", "192.0.2.254/24"))
    lab.veth(host.end("eth1", "198.51.100.1/24"), narrow.end("eth0", "198.51.100.254/24"), mtu=1400)
    host.run("ip", "route", "add", "default", "via", "192.0.2.254")
    # The kernel makes rules of its own visible with the first that anybody adds.
    for version, source in (("-4", "192.0.2.1"), ("-6", "2001:db8::1")):
        host.run("ip", version, "rule", "add", "from", source, "lookup", "99", "priority", "500")
    wait_until(lambda: "tentative" not in host.run("ip", "-6", "address"))
    return host


@contextlib.contextmanager
def set_up(host, *arguments, **fields):
    """Have the calling thread on *host*, which is set up for node(*arguments*)."""
    with host.entered(), contextlib.closing(HostSetup("overlay0")) as setup:
        setup.adopt(node(*arguments, **fields), {TOKYO})
        yield setup


def node(*tokyo_subnets, own=(), **fields):
    own_fields = {key: fields.pop(key) for key in ("listen", "listen_port") if key in fields}
    paris = peer("paris", *own or ("10.244.1.0/24",), public_key=PRIVATE.public, **own_fields)
    tokyo = peer("tokyo", *tokyo_subnets or ("10.244.2.0/24",))
    return Node(PRIVATE, table(paris, tokyo, **fields), paris, {})


def marks(setup):
    return {udp.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for udp in setup.underlay}


def bound(setup):
    """Return where the node listens, once for the sockets that get handshake messages and those that get the rest."""
    bound = [[], []]
    for udp in setup.underlay:
        bound[udp.role == Role.HANDSHAKES].append(udp.socket.getsockname()[:2])
    assert bound[0] == bound[1]
    return bound[0]


def state(host, setup):
    """Return all that a refused change must leave as it was."""
    return host.dump(), bound(setup), marks(setup), setup.plan, setup.icmp


def test_closing_leaves_the_host_as_it_was(host):
    before = host.dump()

    with set_up(host, "10.244.2.0/24", "192.168.77.0/24", "0.0.0.0/0") as setup:
        assert host.dump() != before
        assert "192.168.77.0/24 dev overlay0" in host.run("ip", "route")
        assert bound(setup) == [("0.0.0.0", 51820), ("::", 51820)]
        assert setup.port == 51820

    assert host.dump() == before


def test_closing_after_the_interface_was_removed_leaves_the_host_as_it_was(host):
    before = host.dump()

    with set_up(host, "10.244.2.0/24", "0.0.0.0/0"):
        host.run("ip", "link", "delete", "overlay0")

    assert host.dump() == before


def test_interface_that_exists_is_refused_with_nothing_changed(host):
    host.run("ip", "link", "add", "name", "overlay0", "type", "bridge")
    before = host.dump()

    with host.entered(), pytest.raises(HostError, match="interface overlay0 exists already"):
        HostSetup("overlay0")

    assert host.dump() == before


def test_same_table_again_changes_nothing(host):
    with set_up(host) as setup:
        before, underlay, icmp = host.dump(), list(setup.underlay), setup.icmp

        assert setup.adopt(node(), {TOKYO}) == []

        assert host.dump() == before
        assert (setup.underlay, setup.icmp) == (underlay, icmp)


def test_sockets_for_another_port_are_open_before_the_old_ones_close(host):
    with set_up(host) as setup:
        before = list(setup.underlay)

        replaced = setup.adopt(node(port=4500), {TOKYO})

        assert replaced == before
        assert all(udp.fileno() != -1 for udp in replaced)
        assert setup.port == 4500
        for udp in replaced:
            udp.close()


def test_sockets_for_other_addresses_take_the_same_port(host):
    with set_up(host) as setup:
        replaced = setup.adopt(node(listen=(ip_address("192.0.2.1"),)), {TOKYO})

        assert bound(setup) == [("192.0.2.1", 51820)]
        for udp in replaced:
            udp.close()
        assert setup.adopt(node(listen=(ip_address("192.0.2.1"),)), {TOKYO}) == []


def test_own_listen_port_wins_over_that_of_the_network(host):
    with set_up(host, listen_port=4500) as setup:
        assert setup.port == 4500


def test_taken_port_is_refused_with_everything_as_before(host):
    with set_up(host) as setup, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 4500))
        before = state(host, setup)

        with pytest.raises(HostError, match="UDP port 4500 is taken"):
            setup.adopt(node("10.244.2.0/24", "192.168.77.0/24", "0.0.0.0/0", port=4500), {TOKYO})

        assert state(host, setup) == before


def test_route_that_the_kernel_refuses_leaves_everything_as_before(host):
    with set_up(host) as setup:
        host.run("ip", "route", "add", "192.168.77.0/24", "via", "192.0.2.254", "metric", str(METRIC))
        before = state(host, setup)

        with pytest.raises(HostError, match=r"192\.168\.77\.0/24 has a route with our metric already"):
            setup.adopt(node("10.244.2.0/24", "192.168.77.0/24", "0.0.0.0/0", port=4500, mtu=1300), {TOKYO})

        assert state(host, setup) == before
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("0.0.0.0", 4500))  # free again


def test_change_after_a_refused_one_is_made_whole(host):
    with set_up(host) as setup:
        host.run("ip", "route", "add", "192.168.77.0/24", "via", "192.0.2.254", "metric", str(METRIC))
        wanted = node("10.244.2.0/24", "192.168.77.0/24", "0.0.0.0/0", port=4500)
        with pytest.raises(HostError):
            setup.adopt(wanted, {TOKYO})
        host.run("ip", "route", "delete", "192.168.77.0/24", "metric", str(METRIC))

        replaced = setup.adopt(wanted, {TOKYO})

        assert len(replaced) == 4
        assert (setup.port, marks(setup)) == (4500, {DEFAULT_FWMARK})
        assert "dev overlay0" in host.run("ip", "route", "get", "203.0.113.1")
        for udp in replaced:
            udp.close()


def test_sockets_are_marked_while_there_are_policy_routes_and_keep_their_ports(host):
    with set_up(host) as setup:
        assert marks(setup) == {0}
        underlay = list(setup.underlay)

        assert setup.adopt(node("10.244.2.0/24", "0.0.0.0/0"), {TOKYO}) == []
        assert marks(setup) == {DEFAULT_FWMARK}
        assert setup.icmp.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == DEFAULT_FWMARK

        assert setup.adopt(node("10.244.2.0/24", "0.0.0.0/0", fwmark=7), {TOKYO}) == []
        assert marks(setup) == {7}

        assert setup.adopt(node(), {TOKYO}) == []
        assert marks(setup) == {0}
        assert setup.underlay == underlay


def test_marked_datagrams_pass_the_default_route_by_and_others_take_it(host):
    with set_up(host, "10.244.2.0/24", "0.0.0.0/0"):
        assert "dev overlay0" in host.run("ip", "route", "get", "203.0.113.1")
        assert "dev eth0" in host.run("ip", "route", "get", "203.0.113.1", "mark", str(DEFAULT_FWMARK))


def test_icmp_socket_follows_the_nodes_own_address(host):
    with set_up(host) as setup:
        assert setup.icmp.getsockname()[0] == "10.244.1.0"

        setup.adopt(node(own=("10.244.9.0/24",)), {TOKYO})
        assert setup.icmp.getsockname()[0] == "10.244.9.0"

        setup.adopt(node(own=("fd00:244:1::/64",)), {TOKYO})
        assert setup.icmp is None


@pytest.mark.parametrize(
    ("endpoint", "mtu"),
    [("192.0.2.2", 1420), ("203.0.113.9", 1420), ("198.51.100.9", 1320), ("10.9.9.9", 1420)],
)
def test_mtu_is_that_of_the_underlay_less_what_goes_around_a_packet(host, endpoint, mtu):
    with host.entered(), contextlib.closing(HostSetup("overlay0")) as setup:
        setup.adopt(node(), {("tokyo", (endpoint, 51820))})

        assert setup.mtu == mtu
        assert f"mtu {mtu}" in host.run("ip", "link", "show", "overlay0")


def test_mtu_is_told_with_what_it_comes_from(host):
    with host.entered(), contextlib.closing(HostSetup("overlay0")) as setup:
        setup.adopt(node(), {("rome", ("192.0.2.2", 51820)), ("tokyo", ("198.51.100.9", 51820))})
        assert setup.mtu_reason == "1400 on the way to tokyo at 198.51.100.9, less 80 for the tunnel"

        setup.adopt(node(), set())
        assert setup.mtu_reason == "no route to an endpoint is known"


def test_configured_mtu_is_taken_as_it_is(host):
    with set_up(host, mtu=1300) as setup:
        assert setup.mtu == 1300
        assert setup.mtu_reason == "as the peers file says"


@pytest.mark.parametrize(
    ("endpoint", "is_affected"),
    [
        (("192.0.2.9", 51820), False),
        (("203.0.113.9", 51820), False),
        (("198.51.100.9", 51820), True),  # the narrow underlay
        (("10.244.77.7", 51820), True),  # inside the network
        (("192.168.77.7", 51820), True),  # inside a routed subnet
        (("2001:db8::9", 51820, 0, 0), False),
        (("fd00:244:9::9", 51820, 0, 0), True),
        (("fe80::9%eth0", 51820, 0, 2), False),
    ],
)
def test_endpoint_matters_if_it_is_routed_to_us_or_asks_for_a_smaller_mtu(host, endpoint, is_affected):
    with set_up(host, "10.244.2.0/24", "192.168.77.0/24") as setup:
        assert setup.is_affected_by(endpoint) is is_affected


def test_endpoint_is_judged_by_the_routes_in_force_after_a_refused_change(host):
    with set_up(host) as setup:
        host.run("ip", "route", "add", "192.168.77.0/24", "via", "192.0.2.254", "metric", str(METRIC))
        with pytest.raises(HostError):
            setup.adopt(node("10.244.2.0/24", "192.168.77.0/24"), {TOKYO})

        assert not setup.is_affected_by(("192.168.77.7", 51820))


def test_mend_puts_back_what_somebody_took_away(host):
    with set_up(host, "10.244.2.0/24", "0.0.0.0/0") as setup:
        before = host.dump()
        host.run("ip", "route", "delete", "10.244.0.0/16", "dev", "overlay0")
        host.run("ip", "rule", "delete", "priority", str(31_000 + 2 * 32))
        host.run("ip", "address", "delete", "10.244.1.0/32", "dev", "overlay0")

        setup.mend()

        assert host.dump() == before


def test_notes_name_the_setting_that_keeps_subnets_from_being_reached(host):
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    with set_up(host) as setup:
        notes = setup.notes(node(own=("10.244.1.0/24", "fd00:244:1::/64")))

        assert [note.partition(":")[0] for note in notes if "forward" in note] == [
            "this host does not forward IPv4",
            "this host does not forward IPv6",
        ]
        assert any("sysctl -w net.ipv6.conf.all.forwarding=1" in note for note in notes)
        assert not any("forward" in note for note in setup.notes(node(own=("10.244.1.1/32",))))


def test_notes_name_interfaces_that_would_drop_what_comes_past_the_policy_routes(host):
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
    with set_up(host, "10.244.2.0/24", "0.0.0.0/0") as setup:
        (note,) = [note for note in setup.notes(node()) if "rp_filter" in note]

    assert note.startswith("strict rp_filter on eth0 drops what peers send past the policy routes")


def clear_node(encapsulation="udp", **fields):
    """Return a node whose only tunnel is of *encapsulation*."""
    tokyo = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2", encapsulation=encapsulation)
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    return Node(PRIVATE, table(paris, tokyo, **fields), paris, {})


def test_sockets_and_mtu_are_those_of_the_encapsulations_in_use(host):
    with set_up(host) as setup:
        assert (list(setup.sockets), setup.mtu) == (["wireguard"], 1420)
        encrypted = list(setup.underlay)

        assert setup.adopt(clear_node(), {TOKYO}) == encrypted
        for udp in encrypted:
            udp.close()

        assert [udp.socket.getsockname()[:2] for udp in setup.underlay] == [("0.0.0.0", 8285), ("::", 8285)]
        assert (list(setup.sockets), setup.mtu, setup.port) == (["udp"], 1472, 8285)


def test_sockets_of_an_encapsulation_that_stays_are_kept(host):
    rome = peer("rome", "10.244.3.0/24", endpoint="192.0.2.3", encapsulation="udp")
    with set_up(host) as setup:
        encrypted = setup.sockets["wireguard"]
        both = node()
        both = Node(PRIVATE, table(*both.table.peers.values(), rome), both.own, {})

        assert setup.adopt(both, {TOKYO}) == []
        assert (list(setup.sockets), setup.mtu) == (["wireguard", "udp"], 1420)
        assert setup.sockets["wireguard"] is encrypted
        clear = setup.sockets["udp"]

        assert setup.adopt(node(), {TOKYO}) == clear
        for udp in clear:
            udp.close()
        assert setup.underlay == encrypted


def test_the_kernel_is_asked_for_paths_by_sockets_with_our_mark(host):
    with set_up(host, "10.244.2.0/24", "0.0.0.0/0") as setup:
        found = {each.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for each in setup.paths}

        assert {each.family for each in setup.paths} == {socket.AF_INET, socket.AF_INET6}
        assert found == {DEFAULT_FWMARK}


@pytest.mark.parametrize(("mtu", "is_asked"), [(1420, True), (1421, False)])
def test_the_kernel_is_left_to_cut_where_the_mtu_is_larger_than_fits_the_underlay(host, mtu, is_asked):
    with set_up(host, mtu=mtu) as setup:
        assert bool(setup.paths) == is_asked


def test_the_kernel_is_left_to_cut_where_ipv6_needs_more_than_the_underlay_takes(host):
    host.run("ip", "link", "set", "eth0", "mtu", "1300")

    with set_up(host) as setup:
        assert (setup.mtu, setup.paths) == (1280, [])
