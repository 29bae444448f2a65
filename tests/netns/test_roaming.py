"""Hosts that move, are behind a NAT, or have several addresses."""

from __future__ import annotations

import socket
import time

import pytest

from tests.netns.network import PATIENCE, PORT, Network, is_silent, nft, ping, pinging
from tests.netns.topology import wait_until


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


@pytest.fixture
def pair(network):
    """Two hosts with a session.  Tokyo does not know where Paris is, and has to follow it."""
    paris, tokyo = network.host("paris", endpoint=None), network.host("tokyo")
    network.start()
    paris.wait_up(tokyo)
    tokyo.wait_up(paris)
    return paris, tokyo


def endpoint(host, other):
    return host.peer(other)["endpoint"]


# Addresses and ports that change


def test_peer_is_followed_to_another_ipv4_address(pair):
    paris, tokyo = pair
    assert endpoint(tokyo, paris) == f"{paris.outside}:{PORT}"

    paris.move("192.0.2.101")
    paris.ping(tokyo.address)

    assert endpoint(tokyo, paris) == f"192.0.2.101:{PORT}"
    tokyo.ping(paris.address, 3)
    moved = f"peer moved peer=paris endpoint=192.0.2.101:{PORT}"
    wait_until(lambda: moved in tokyo.log, PATIENCE, "the move to be logged")


def test_peer_whose_packets_come_by_two_ways_in_turn_is_noted_and_delays_no_other(pair, network):
    paris, tokyo = pair
    rome = network.host("rome")
    tokyo.reload()
    rome.start()
    lines = tokyo.log.count("peer moved peer=paris")
    nft(
        tokyo.namespace,
        f"""table ip ways {{
            chain inwards {{
                type filter hook prerouting priority -300
                ip saddr {paris.outside} udp sport {PORT} numgen inc mod 2 0 udp sport set 51821
            }}
            chain outwards {{
                type filter hook output priority -300
                udp dport 51821 udp dport set {PORT}
            }}
        }}
        """,
    )

    with pinging(paris.namespace, tokyo.address, network.directory, interval=0.002):
        rome.stop()
        rome.start()
        rome.wait_up(tokyo)
        tokyo.wait_peer(
            paris, "to be noted", lambda peer: "whether two hosts use its key" in "".join(peer["notes"])
        )

    assert tokyo.log.count("peer moved peer=paris") - lines <= 6  # a burst, and at most one for the minute
    assert any("paris is heard from" in note for note in tokyo.status()["notes"])
    assert "link_full" not in tokyo.drops()


def test_peer_is_followed_to_another_ipv6_address(pair, network):
    paris, tokyo = pair
    tokyo.settings["endpoint"] = f"[{tokyo.outside6}]"
    paris.reload()
    paris.ping(tokyo.address)
    wait_until(
        lambda: endpoint(tokyo, paris).startswith("[2001:db8::1]"), PATIENCE, "tokyo to follow to IPv6"
    )

    paris.move("2001:db8::101")
    paris.ping(tokyo.address)

    wait_until(
        lambda: paris.ping(tokyo.address) or endpoint(tokyo, paris) == f"[2001:db8::101]:{PORT}",
        PATIENCE,
        "tokyo to follow",
    )


def test_peer_is_followed_from_ipv4_to_ipv6_and_back(pair):
    paris, tokyo = pair
    for where, seen in (
        (f"[{tokyo.outside6}]", f"[{paris.outside6}]:{PORT}"),
        (tokyo.outside, f"{paris.outside}:{PORT}"),
    ):
        tokyo.settings["endpoint"] = where
        paris.reload()

        paris.ping(tokyo.address, 3)
        assert endpoint(tokyo, paris) == seen
        tokyo.ping(paris.address, 3)


def test_peer_is_followed_to_another_port(pair):
    paris, tokyo = pair
    paris.settings["listen_port"] = 4500

    paris.reload()

    wait_until(lambda: endpoint(tokyo, paris) == f"{paris.outside}:4500", PATIENCE, "tokyo to follow")
    tokyo.ping(paris.address, 3)


def test_not_one_packet_is_lost_when_a_host_gets_another_address(pair, tmp_path):
    paris, tokyo = pair
    with pinging(paris.namespace, tokyo.address, tmp_path) as pinger:
        for number in (101, 102, 103):
            with pinger.held():  # with any tunnel, datagrams in flight to an address that goes away are lost
                paris.move(f"192.0.2.{number}", None if number == 101 else f"192.0.2.{number - 1}")
            pinger.go_on()
            assert endpoint(tokyo, paris) == f"192.0.2.{number}:{PORT}"

    assert pinger.lost == []


def test_a_host_that_is_silent_says_itself_that_it_has_another_address(pair):
    paris, tokyo = pair
    paris.ping(tokyo.address)
    count = paris.peer(tokyo)["tx_packets"]

    paris.move("192.0.2.101")

    tokyo.wait_peer(paris, "at its new address", lambda row: row["endpoint"] == f"192.0.2.101:{PORT}")
    assert paris.peer(tokyo)["tx_packets"] == count


def test_both_may_move_one_after_the_other(pair):
    paris, tokyo = pair
    for step in range(2):
        paris.move(f"192.0.2.{101 + step}", None if step == 0 else f"192.0.2.{100 + step}")
        paris.ping(tokyo.address)
        tokyo.move(f"192.0.2.{201 + step}", None if step == 0 else f"192.0.2.{200 + step}")
        tokyo.ping(paris.address)
        paris.ping(tokyo.address, 3)

    assert endpoint(paris, tokyo) == f"192.0.2.202:{PORT}"
    assert endpoint(tokyo, paris) == f"192.0.2.102:{PORT}"


# NAT


def test_host_behind_a_nat_with_short_mappings_stays_reachable_by_its_keepalives(lab, network):
    tokyo = network.host("tokyo", keepalive=1)
    paris = network.host("paris", endpoint=None)
    router = lab.namespace(network.namespace_name("router"))
    lab.plug(network.underlay, router.end("eth0", "192.0.2.77/24"))
    paris.namespace.run("ip", "address", "flush", "dev", "eth0")
    lab.veth(router.end("inside", "172.16.0.1/24"), paris.namespace.end("eth1", "172.16.0.2/24"))
    paris.namespace.run("ip", "route", "add", "default", "via", "172.16.0.1")
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    nft(
        router,
        "table ip nat {\n chain out {\n type nat hook postrouting priority 100;\n"
        ' oifname "eth0" masquerade\n }\n}\n',
    )
    short = router.completed(
        "sysctl",
        "-qw",
        "net.netfilter.nf_conntrack_udp_timeout=2",
        "net.netfilter.nf_conntrack_udp_timeout_stream=2",
    )
    if short.returncode:
        pytest.skip("this kernel's connection tracking has no time-outs to set")
    network.start()
    tokyo.wait_up(paris)
    assert endpoint(tokyo, paris).startswith("192.0.2.77:")

    time.sleep(3.0)  # in which the mapping would be forgotten
    ping(tokyo.namespace, paris.address, 3)
    assert endpoint(tokyo, paris).startswith("192.0.2.77:")

    # Without keepalives it is unreachable until it sends something itself.
    tokyo.settings["keepalive"] = 0
    paris.reload()
    wait_until(lambda: is_cut_off(tokyo, paris), PATIENCE, "the mapping to be forgotten")
    wait_until(lambda: is_reached_once_it_sends(tokyo, paris), PATIENCE, "an answer while the mapping lasts")


def is_reached_once_it_sends(host, other):
    other.ping(host.address)
    return not is_silent(host.namespace, other.address)


def is_cut_off(host, other):
    time.sleep(2.5)  # any packet renews the mapping
    return is_silent(host.namespace, other.address)


# Several addresses: an answer leaves from the address that was called


@pytest.mark.parametrize("family", [4, 6])
def test_host_with_several_addresses_answers_from_the_one_that_was_called(pair, family):
    paris, tokyo = pair
    first = tokyo.outside if family == 4 else tokyo.outside6
    prefix, length = ("192.0.2.", "/24") if family == 4 else ("2001:db8::", "/64")
    others = [f"{prefix}{number}" for number in (31, 32)]
    seen = tokyo.log.count("network of the host changed")
    elsewhere = "192.0.2.33" if family == 4 else "2001:db8::33"
    # New addresses make tokyo choose its source again, once if they come together: wait for that.
    tokyo.namespace.ip(
        *(f"address add {address}{length} dev eth0{' nodad' if family == 6 else ''}" for address in others),
        f"address add {elsewhere}/{32 if family == 4 else 128} dev lo",
    )
    wait_until(lambda: tokyo.log.count("network of the host changed") > seen, PATIENCE, "tokyo to take note")
    route = (f"{elsewhere}/{32 if family == 4 else 128}", "via", first)
    paris.namespace.run("ip", "route", "add", *route)  # nothing on the link answers for an address of lo
    sniffer = paris.namespace.sniff("eth0")

    def answers_from_each():
        """Call all addresses.  If tokyo only now chooses its source, it speaks from there, and all are called again."""
        right = []
        for address in (*others, elsewhere, first):
            tokyo.settings["endpoint"] = address if family == 4 else f"[{address}]"
            paris.reload()
            paris.ping(tokyo.address, 5)
            tokyo.ping(paris.address, 5)
            shown = f"{address}:{PORT}" if family == 4 else f"[{address}]:{PORT}"
            right.append(
                endpoint(paris, tokyo) == shown
                and senders(sniffer.frames()[-8:]) <= {address, paris.outside, paris.outside6}
            )
        return all(right)

    wait_until(answers_from_each, 3 * PATIENCE, "answers from each address that was called")


def senders(frames):
    found = set()
    for frame in frames:
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            found.add(socket.inet_ntoa(frame[26:30]))
        elif frame[12:14] == b"\x86\xdd" and frame[20] == 17:
            found.add(socket.inet_ntop(socket.AF_INET6, frame[22:38]))
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_traffic_goes_on_when_the_source_address_is_removed(pair, family, tmp_path):
    paris, tokyo = pair
    if family == 6:
        tokyo.settings["endpoint"] = f"[{tokyo.outside6}]"
        paris.reload()
    paris.ping(tokyo.address)
    new = "192.0.2.131" if family == 4 else "2001:db8::131"

    paris.move(new)
    paris.ping(tokyo.address, 3)

    shown = f"{new}:{PORT}" if family == 4 else f"[{new}]:{PORT}"
    wait_until(
        lambda: paris.ping(tokyo.address) or endpoint(tokyo, paris) == shown, PATIENCE, "tokyo to follow"
    )


def test_host_leaves_by_a_better_route_when_one_appears(lab, pair, network):
    paris, tokyo = pair
    lab.veth(paris.namespace.end("eth1", "198.51.100.1/24"), tokyo.namespace.end("eth1", "198.51.100.2/24"))
    paris.ping(tokyo.address)
    assert endpoint(tokyo, paris) == f"{paris.outside}:{PORT}"

    paris.namespace.run("ip", "route", "add", f"{tokyo.outside}/32", "via", "198.51.100.2")

    wait_until(
        lambda: paris.ping(tokyo.address) or endpoint(tokyo, paris) == f"198.51.100.1:{PORT}",
        PATIENCE,
        "paris to leave by the other interface",
    )
    tokyo.ping(paris.address, 3)


# Firewalls and devices


def test_traffic_passes_where_the_firewall_marks_each_packet(pair):
    paris, tokyo = pair
    nft(
        paris.namespace,
        "table ip marks {\n chain out {\n type route hook output priority -150;\n meta mark set 1\n }\n}\n",
    )

    paris.ping(tokyo.address, 5)
    ping(paris.namespace, tokyo.address, 5, "-I", "overlay0")


def test_ping_that_is_bound_to_the_tun_is_answered(pair):
    paris, tokyo = pair

    ping(paris.namespace, tokyo.address, 3, "-I", "overlay0")
    ping(paris.namespace, tokyo.address6, 3, "-I", "overlay0")
