from __future__ import annotations

import contextlib
import os
import resource
import socket
from ipaddress import ip_address, ip_network

import pytest

from overlay.config import DEFAULT_FWMARK, Node
from overlay.errors import HostError
from overlay.host.netlink.routes import METRIC
from overlay.provisioning.setup import HostSetup
from tests.netns.topology import CommandError
from tests.overlay.provisioning.setup_bench import (
    PRIVATE,
    TOKYO,
    bound,
    clear_node,
    marks,
    node,
    notes_of,
    set_up,
    state,
)
from tests.peers.examples import peer, table

pytestmark = pytest.mark.netns


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
        HostSetup("overlay0", host.saved)

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

        with pytest.raises(HostError, match=r"192\.168\.77\.0/24 already has a route with our metric"):
            setup.adopt(node("10.244.2.0/24", "192.168.77.0/24", "0.0.0.0/0", port=4500, mtu=9000), {TOKYO})

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


def test_datagrams_with_our_mark_do_not_pass_the_full_tunnel_of_wg_quick_by(lab, host):
    far = lab.namespace("vpn")
    lab.veth(host.end("vpn0", "10.99.0.1/24"), far.end("eth0", "10.99.0.2/24"))
    for command in (  # as for AllowedIPs = 0.0.0.0/0
        "route add default via 10.99.0.2 table 51820",
        "rule add not fwmark 51820 table 51820",
        "rule add table main suppress_prefixlength 0",
    ):
        host.run("ip", *command.split())

    with set_up(host, "10.244.2.0/24", "203.0.113.0/24") as setup:
        setup.adopt(node("10.244.2.0/24", "203.0.113.0/24"), {("tokyo", ("203.0.113.7", 51820))})

        (mark,) = marks(setup)
        assert mark == DEFAULT_FWMARK
        assert "dev vpn0" in host.run("ip", "route", "get", "203.0.113.7", "mark", str(mark))


@pytest.mark.parametrize("first", [0, 1])
def test_look_ups_pass_the_policy_routes_by_and_go_on_to_other_rules(host, tmp_path, first):
    def way(uid):
        return host.run("ip", "route", "get", "203.0.113.1", "uid", str(uid)).split(" dev ")[1].split()[0]

    before = host.run("ip", "rule"), host.run("ip", "-6", "rule")
    names, uids, opened = ["overlay0", "overlay1"], [65520, 65521], []
    with host.entered(), contextlib.ExitStack() as closing:
        for number, (name, uid) in enumerate(zip(names, uids, strict=True)):
            prefix = f"10.{244 + number}.0.0/16"
            everything = node(
                f"10.{244 + number}.2.0/24",
                "0.0.0.0/0",
                "::/0",
                own=(f"10.{244 + number}.1.0/24",),
                prefixes=(ip_network(prefix),),
                port=51820 + number,
            )
            opened.append(HostSetup(name, tmp_path / name, passing_uid=uid))
            closing.callback(opened[-1].close)
            opened[-1].adopt(everything, {TOKYO})
        assert way(0) in names
        assert all(way(uid) == "eth0" for uid in uids)
        other = 1 - first
        opened[first]._routing.withdraw()

        assert way(uids[other]) == "eth0"
        assert way(uids[first]) == way(0) == names[other]
        host.run("ip", "rule", "add", "to", "203.0.113.1", "priority", "32000", "blackhole")
        with pytest.raises(CommandError):
            way(uids[other])
        host.run("ip", "rule", "delete", "priority", "32000")

    assert (host.run("ip", "rule"), host.run("ip", "-6", "rule")) == before


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
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(node(), {("tokyo", (endpoint, 51820))})

        assert setup.mtu == mtu
        assert f"mtu {mtu}" in host.run("ip", "link", "show", "overlay0")


def test_mtu_is_told_with_what_it_comes_from(host):
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(node(), {("rome", ("192.0.2.2", 51820)), ("tokyo", ("198.51.100.9", 51820))})
        assert setup.mtu_reason == "1400 on the way to tokyo at 198.51.100.9, less 80 for the tunnel"

        setup.adopt(node(), set())
        assert setup.mtu_reason == "1500 assumed on the way to peers, less 80 for the tunnel"


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
        assert setup.is_affected_by("tokyo", endpoint) is is_affected


def test_endpoint_matters_if_the_tunnel_over_its_family_takes_more_of_the_same_mtu(host):
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(clear_node(), {TOKYO})

        assert not setup.is_affected_by("tokyo", ("192.0.2.9", 8285))
        assert setup.is_affected_by("tokyo", ("2001:db8::9", 8285, 0, 0))

        setup.adopt(clear_node(), {TOKYO, ("tokyo", ("2001:db8::9", 8285, 0, 0))})

        assert setup.mtu == 1452
        assert not setup.is_affected_by("tokyo", ("2001:db8::9", 8285, 0, 0))


def test_endpoint_is_judged_by_the_routes_in_force_after_a_refused_change(host):
    with set_up(host) as setup:
        host.run("ip", "route", "add", "192.168.77.0/24", "via", "192.0.2.254", "metric", str(METRIC))
        with pytest.raises(HostError):
            setup.adopt(node("10.244.2.0/24", "192.168.77.0/24"), {TOKYO})

        assert not setup.is_affected_by("tokyo", ("192.168.77.7", 51820))


def mended(setup):
    """Return what mend() changes, once the watch has been read as before each of its calls."""
    setup.watch.drain()
    return setup.mend(setup.read_routes() if setup.may_lack_routes() else None)


def test_mend_puts_back_what_somebody_took_away(host):
    with set_up(host, "10.244.2.0/24", "0.0.0.0/0") as setup:
        before = host.dump()
        host.run("ip", "route", "delete", "10.244.0.0/16", "dev", "overlay0")
        host.run("ip", "rule", "delete", "priority", str(31_000 + 2 * 32))
        host.run("ip", "address", "delete", "10.244.1.0/32", "dev", "overlay0")

        assert mended(setup) == "without=10.244.1.0 routes_removed=3"
        assert host.dump() == before
        assert mended(setup) == ""


def test_mend_reads_routes_only_if_somebody_may_have_taken_some(host):
    with set_up(host, "10.244.2.0/24") as setup:
        mended(setup)
        host.run("ip", "route", "delete", "10.244.0.0/16", "dev", "overlay0")

        assert not setup.may_lack_routes()
        assert setup.mend(None) == ""
        assert mended(setup) == "routes_removed=1"


def test_routes_are_read_after_a_change_of_them_has_failed(host):
    """What it has done is not known for certain."""
    with set_up(host, "10.244.2.0/24", "192.168.78.0/24") as setup:
        host.run("ip", "route", "add", "192.168.77.0/24", "via", "192.0.2.254", "metric", str(METRIC))
        with pytest.raises(HostError):
            setup.adopt(node("10.244.2.0/24", "192.168.77.0/24"), {TOKYO})
        assert setup.may_lack_routes()
        assert mended(setup) == ""
        assert not setup.may_lack_routes()

        host.run("ip", "route", "replace", "192.168.78.0/24", "via", "192.0.2.254", "metric", str(METRIC))
        with pytest.raises(HostError):
            mended(setup)
        assert setup.may_lack_routes()


@pytest.mark.parametrize(("change", "said"), [(["down"], "was=down"), (["mtu", "1300"], "mtu=1300")])
def test_mend_tells_what_somebody_did_to_the_interface(host, change, said):
    with set_up(host, "10.244.2.0/24") as setup:
        host.run("ip", "link", "set", "overlay0", *change)

        assert mended(setup).split()[0] == said
        assert mended(setup) == ""


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


def test_an_encapsulation_that_was_left_is_returned_to_while_its_old_sockets_are_still_read(host):
    clear = {"encapsulation": "udp"}
    with set_up(host) as setup, contextlib.ExitStack() as forwarder:
        for fields in (clear, {}, clear, {}):
            for udp in [*setup.underlay]:
                forwarder.enter_context(udp.socket.dup())
            for udp in setup.adopt(clear_or_not(**fields), {TOKYO}):
                setup.leave([udp], 0.0)

        assert bound(setup) == [("0.0.0.0", 51820), ("::", 51820)]


def clear_or_not(**fields):
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public, endpoint="192.0.2.1")
    return Node(
        PRIVATE, table(paris, peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2"), **fields), paris, {}
    )


def test_next_forwarder_gets_sockets_that_none_had_in_the_same_places(host):
    mixed = (
        peer("tokyo", "10.244.2.0/24", encapsulation="vxlan", endpoint="192.0.2.2"),
        peer("rome", "10.244.3.0/24", encapsulation="ipip", endpoint="192.0.2.3"),
        peer("oslo", "10.244.4.0/24", "0.0.0.0/0"),
    )
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved)) as setup:
        setup.adopt(Node(PRIVATE, table(paris, *mixed, ttl=7), paris, {}), {TOKYO})
        before = [(udp.socket.getsockname()[:2], udp.encapsulation, udp.role) for udp in setup.underlay]
        former = [*setup.underlay, setup.icmp, *setup.paths]
        with contextlib.ExitStack() as forwarder:
            for each in former:
                copy = forwarder.enter_context(socket.socket(fileno=os.dup(each.fileno())))
                with contextlib.suppress(OSError):
                    copy.connect(("192.0.2.254", 9) if copy.family == socket.AF_INET else ("2001:db8::1", 9))

        setup.renew()

        assert [
            (udp.socket.getsockname()[:2], udp.encapsulation, udp.role) for udp in setup.underlay
        ] == before
        assert all(each.fileno() == -1 for each in former)
        fresh = [*(udp.socket for udp in setup.underlay), setup.icmp, *setup.paths]
        for each in fresh:
            with pytest.raises(OSError, match="not connected"):
                each.getpeername()
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == DEFAULT_FWMARK
        assert {
            udp.socket.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
            for udp in setup.underlay
            if udp.family == socket.AF_INET
        } == {7}


def test_sockets_that_were_left_are_not_come_back_to_by_the_next_forwarder(host):
    with set_up(host) as setup:
        left = setup.adopt(node(port=4500), {TOKYO})
        setup.leave(left, 0.0)

        setup.renew()
        assert all(udp.fileno() == -1 for udp in left)

        setup.leave(setup.adopt(node(), {TOKYO}), 0.0)
        assert not set(left) & set(setup.underlay)
        assert bound(setup) == [("0.0.0.0", 51820), ("::", 51820)]


def test_renewal_that_is_refused_leaves_what_can_be_renewed_later(host):
    with set_up(host) as setup:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.open(os.devnull, os.O_RDONLY)  # the lowest number, even if others above are in use
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, most[1]))
        try:
            with pytest.raises(HostError):
                setup.renew()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, most)

        setup.renew()

        assert bound(setup) == [("0.0.0.0", 51820), ("::", 51820)]
        assert marks(setup) == {0}


def test_a_tap_is_set_up_and_sends_no_icmp_errors(host):
    with host.entered(), contextlib.closing(HostSetup("overlay0", host.saved, is_tap=True)) as setup:
        setup.adopt(node(device="tap"), {TOKYO})

        link = host.run("ip", "-o", "-d", "link", "show", "overlay0")
        assert "tun type tap" in link
        assert "mtu 1404" in link
        assert setup.icmp is None


def test_vxlan_has_its_port_to_receive_and_others_to_send_and_spares_those_of_the_network(host, tmp_path):
    clear = peer("tokyo", "10.244.2.0/24", encapsulation="vxlan", endpoint="192.0.2.2")
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    mixed = Node(PRIVATE, table(paris, clear, peer("rome", "10.244.3.0/24"), port=49160), paris, {})

    with host.entered(), contextlib.closing(HostSetup("overlay0", tmp_path / "saved")) as setup:
        setup.adopt(mixed, {TOKYO})

        assert setup.port == 49160
        ports = [udp.port for udp in setup.sockets["vxlan"]]
        senders = [port for port in range(49152, 49169) if port != 49160]
        assert ports == [4789, 4789, *senders, *senders]
        before = setup.sockets
        assert setup.adopt(mixed, {TOKYO}) == []
        assert setup.sockets == before

        replaced = setup.adopt(node(port=49160), {TOKYO})

        assert replaced == before["vxlan"]
        assert list(setup.sockets) == ["wireguard"]
        for udp in replaced:
            udp.close()


def test_a_port_that_this_agent_has_for_another_encapsulation_is_said_to_be_its_own(host):
    with set_up(host) as setup:
        before = state(host, setup)

        with pytest.raises(HostError, match="UDP port 51820 is in use by this agent for wireguard: write "):
            setup.adopt(clear_node("udp", port=51821, udp_port=51820), {TOKYO})

        assert state(host, setup) == before


def test_encapsulations_without_ports_have_raw_sockets_and_no_port(host):
    with set_up(host) as setup:
        encrypted = list(setup.underlay)

        assert setup.adopt(clear_node("ipip"), {TOKYO}) == encrypted
        for udp in encrypted:
            udp.close()

        assert (list(setup.sockets), setup.mtu, setup.port) == (["ipip"], 1480, None)
        assert {each.protocol for each in setup.underlay} == {4, 41}
        raw = list(setup.underlay)
        assert setup.adopt(clear_node("ipip", fwmark=9), {TOKYO}) == []
        assert marks(setup) == {9}
        assert not [note for note in notes_of(setup, clear_node("ipip")) if "UDP datagrams" in note]

        assert setup.adopt(node(), {TOKYO}) == raw
        assert setup.port == 51820
        for each in raw:
            each.close()


def test_a_gre_key_a_checksum_and_a_number_take_four_bytes_more_each(host):
    both = {"gre_checksum": True, "gre_sequence": True}
    with set_up(host) as setup:
        for fields, mtu in (({}, 1476), ({"gre_key": 7}, 1472), (both, 1468), ({"gre_key": 7, **both}, 1464)):
            for each in setup.adopt(clear_node("gre", **fields), {TOKYO}):
                each.close()
            assert setup.mtu == mtu


def ttls(setup):
    options = {socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL), socket.AF_INET6: (41, 16)}
    return {each.socket.getsockopt(*options[each.family]) for each in setup.underlay}


def test_the_ttl_is_that_of_the_peers_file_on_all_sockets_and_an_inherited_one_is_the_system_s(host):
    with set_up(host, ttl=9) as setup:
        assert ttls(setup) == {9}
        for each in setup.adopt(node(ttl=9, port=4500), {TOKYO}):
            each.close()
        assert ttls(setup) == {9}
        for ttl in (0, None):
            setup.adopt(node(ttl=9, port=4500), {TOKYO})
            setup.adopt(node(ttl=ttl, port=4500), {TOKYO})
            assert ttls(setup) == {64}
