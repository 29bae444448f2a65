"""The shape of the kernel's own selftest (tools/testing/selftests/wireguard/netns.sh), over overlay-wg.

Each test is a part of it that applies.  These parts are elsewhere, because they also apply to agents:

- traffic of many connections, over IPv4 and IPv6 outside, TCP and UDP: tests/netns/test_wireguard_go.py
- jumbo frames: tests/netns/test_mtu.py
- tunnels in tunnels, and a tunnel whose endpoint is inside itself: tests/netns/test_tunnels_in_tunnels.py
- a peer that moves, an answer from the address that was asked, an address or a way out that goes:
  tests/netns/test_roaming.py
- a default route past a mark, for both families, and what is gone at the end: tests/netns/test_wg_quick.py
- an ICMP error that reaches the sender before a NAT: tests/netns/test_errors_to_senders.py
- 65,280 prefixes of each family: tests/overlay/starting/test_bare.py

These do not apply: devices that move between namespaces, and what the kernel has to free there, because a process owns
its device; UDP sockets in a namespace of their own, as they are in that of the process.
"""

from __future__ import annotations

import base64
import shutil

import pytest

from tests.netns.network import PATIENCE, is_silent, ping
from tests.netns.topology import wait_until
from tests.netns.wg_device import Device, generate

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("wg", "wireguard-go", "nft"))), reason="needs wg, wireguard-go and nft"
)

PORT_A, PORT_B = 10001, 10002
# Bytes of UDP payload: a ping of 84 bytes is padded to 96, with header and tag
INITIATION, RESPONSE, KEEPALIVE, ECHO = 148, 92, 32, 128
LOW_ORDER = (  # as in the selftest
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


@pytest.fixture(scope="module")
def hosts(module_lab):
    a, b = module_lab.namespace("a"), module_lab.namespace("b")
    module_lab.veth(
        a.end("eth0", "192.0.2.1/24", "2001:db8::1/64"), b.end("eth0", "192.0.2.2/24", "2001:db8::2/64")
    )
    return a, b


@pytest.fixture(scope="module")
def both(hosts):
    """Return a device of ours and one of wireguard-go."""
    a, b = hosts
    ours = Device(a, "192.168.241.1/24", "fd00::1/24", port=PORT_A)
    theirs = Device(b, "192.168.241.2/24", "fd00::2/24", port=PORT_B, program=("wireguard-go",))
    return ours, theirs


@pytest.fixture
def pair(both):
    """Configure both anew as peers, with a preshared key, as at the start of each part of the selftest."""
    ours, theirs = both
    key = ours.namespace.run("wg", "genpsk")
    for one, other, inside in (
        (ours, theirs, "192.168.241.2/32,fd00::2/128"),
        (theirs, ours, "192.168.241.1/32,fd00::1/128"),
    ):
        one.set("listen-port", str(one.port), "fwmark", "0")
        for each in one.shown("peers"):
            one.set("peer", each, "remove")
        one.set("peer", other.public, "preshared-key", "/dev/stdin", "allowed-ips", inside, stdin=key)
    ours.set("peer", theirs.public, "endpoint", f"192.0.2.2:{PORT_B}")
    theirs.set("peer", ours.public, "endpoint", f"192.0.2.1:{PORT_A}")
    return ours, theirs


def endpoint_of(device, other):
    return device.shown("endpoints")[other.public][0]


def test_pings_both_ways_inside_and_outside_of_both_families(pair):
    ours, theirs = pair
    for outside in ("192.0.2.2", "[2001:db8::2]"):
        ours.set("peer", theirs.public, "endpoint", f"{outside}:{PORT_B}")
        for one, addresses in (
            (ours, ("192.168.241.2", "fd00::2")),
            (theirs, ("192.168.241.1", "fd00::1")),
        ):
            for address in addresses:
                ping(one.namespace, address, 10, interval=0)

    assert endpoint_of(theirs, ours) == f"[2001:db8::1]:{PORT_A}"


def test_counters_and_the_time_of_the_handshake_agree(pair):
    ours, theirs = pair

    ping(theirs.namespace, "192.168.241.1", 10)

    received, sent = map(int, ours.shown("transfer")[theirs.public])
    echoes = (sent - RESPONSE) // ECHO
    assert echoes in range(10, 1000, 10)  # ten each time, of which some were late on a busy machine
    # A keepalive confirms a session, or shows that the network of a host has changed, as earlier tests change it.
    assert sent - echoes * ECHO in {RESPONSE, RESPONSE + KEEPALIVE}
    assert received - echoes * ECHO in {INITIATION, INITIATION + KEEPALIVE}
    wait_until(
        lambda: ours.shown("transfer")[theirs.public] == theirs.shown("transfer")[ours.public][::-1],
        PATIENCE,
        "both to have counted the same",
    )
    times = [int(each) for one, other in ((ours, theirs), (theirs, ours)) for each in one.shown("latest-handshakes")[other.public]]  # fmt: skip
    assert min(times) > 0
    assert max(times) - min(times) <= 1


def test_padding_does_not_exceed_the_mtu_of_the_route(pair):
    ours, _theirs = pair
    namespace = ours.namespace
    namespace.ip(
        f"link set {ours.name} mtu 1300",
        f"route add 192.168.241.2/32 dev {ours.name} mtu 1299",
    )
    namespace.run("nft", "-f", "-", stdin="table ip t {\nchain c {\ntype filter hook output priority 0\nip length 1360 drop\n}\n}\n")  # fmt: skip
    try:
        wait_until(
            lambda: (
                namespace.completed(
                    "ping", "-c1", "-W1", "-M", "do", "-s", "1269", "192.168.241.2"
                ).returncode
                == 0
            ),
            PATIENCE,
            "a packet of 1297 bytes to pass",
        )
    finally:
        namespace.run("nft", "delete", "table", "ip", "t")
        namespace.ip("route del 192.168.241.2/32", f"link set {ours.name} mtu 1420")


def test_endpoint_follows_ports_that_change(pair):
    ours, theirs = pair
    ping(ours.namespace, "192.168.241.2")

    ours.set("listen-port", "9997")
    ping(ours.namespace, "192.168.241.2")
    assert endpoint_of(theirs, ours) == "192.0.2.1:9997"

    theirs.set("listen-port", "9998")
    ping(theirs.namespace, "192.168.241.1")
    assert endpoint_of(ours, theirs) == "192.0.2.2:9998"


def test_source_must_be_of_the_peer_but_the_endpoint_follows_all_the_same(pair):
    ours, theirs = pair
    _, other = generate(ours.namespace)
    ping(theirs.namespace, "192.168.241.1")
    ours.set("peer", theirs.public, "allowed-ips", "192.168.241.0/24,fd00::2/128")
    ping(theirs.namespace, "192.168.241.1")

    ours.set("peer", other, "allowed-ips", "192.168.241.2/32")
    theirs.set("listen-port", "9996")

    assert is_silent(theirs.namespace, "192.168.241.1")
    wait_until(lambda: endpoint_of(ours, theirs) == "192.0.2.2:9996", PATIENCE, "the endpoint to follow")
    ours.set("peer", theirs.public, "allowed-ips", "192.168.241.2/32")
    assert ours.shown("allowed-ips")[other] == ["(none)"]
    ping(theirs.namespace, "192.168.241.1")


def test_prefixes_that_overlap_come_and_go(pair):
    ours, theirs = pair
    _, other = generate(ours.namespace)
    for prefixes in (
        "0.0.0.0/0,10.0.0.0/8,100.0.0.0/10,172.16.0.0/12,192.168.0.0/16",
        "192.168.0.0/16,172.16.0.0/12,100.0.0.0/10,10.0.0.0/8,0.0.0.0/0",
        "::/0,0000::/1,8000::/1,c000::/4,abcd::/37,abcd:ef::/75,abcd:ef::/111",
    ):
        for key in (theirs.public, other):
            ours.set("peer", key, "allowed-ips", prefixes)
        assert len(ours.shown("allowed-ips")[other]) == len(prefixes.split(","))
        assert ours.shown("allowed-ips")[theirs.public] == ["(none)"]
        ours.set("peer", other, "remove")
    ours.set("peer", theirs.public, "allowed-ips", "192.168.241.2/32")
    ping(ours.namespace, "192.168.241.2")


def test_address_of_no_peer_is_told_to_be_unreachable(pair):
    ours, _ = pair

    said = ours.namespace.completed("ping", "-c1", "-W30", "192.168.241.77").stdout

    assert "Destination Host Unreachable" in said


def test_new_private_key_works_with_the_next_packet(pair):
    ours, theirs = pair
    ping(ours.namespace, "192.168.241.2")
    private, public = generate(ours.namespace)

    ours.set("private-key", "/dev/stdin", stdin=private)
    theirs.set("peer", ours.public, "remove", "peer", public, "allowed-ips", "192.168.241.1/32")
    ours.set("peer", theirs.public, "preshared-key", "/dev/null")
    # Less than the 5 s after which a handshake is tried again
    done = ours.namespace.completed("ping", "-c1", "-W4", "192.168.241.2")

    ours.private, ours.public = private, public
    assert done.returncode == 0, done.stdout


def test_own_key_is_nobodys_peer(pair):
    ours, _ = pair
    private, public = generate(ours.namespace)
    ours.set("peer", public, "allowed-ips", "10.0.0.0/8")
    assert public in ours.shown("peers")

    ours.set("private-key", "/dev/stdin", stdin=private)
    ours.set("peer", public, "allowed-ips", "10.0.0.0/8")

    assert public not in ours.shown("peers")
    ours.set("private-key", "/dev/stdin", stdin=ours.private)


def test_keys_are_read_back_clamped_and_cleared(pair):
    ours, theirs = pair

    ours.set("private-key", "/dev/stdin", stdin="/" * 42 + "8=")
    assert ours.show("private-key") == [["+P" + "/" * 39 + "38="]]
    ours.set("private-key", "/dev/null")
    ours.set("peer", theirs.public, "preshared-key", "/dev/null")

    assert ours.show("private-key") == [["(none)"]]
    assert ours.shown("preshared-keys")[theirs.public] == ["(none)"]
    ours.set("private-key", "/dev/stdin", stdin=ours.private)
    theirs.set("peer", ours.public, "preshared-key", "/dev/null")
    ping(ours.namespace, "192.168.241.2")


def test_peer_with_a_point_of_low_order_is_known_and_never_sent_to(pair):
    ours, _ = pair
    keys = [base64.b64encode(bytes.fromhex(each)).decode() for each in LOW_ORDER]
    for number, key in enumerate(keys):
        ours.set(
            *("peer", key, "persistent-keepalive", "1", "endpoint", "192.0.2.2:1111"),
            *("allowed-ips", f"10.66.{number}.0/24"),
        )

    ours.namespace.ip(f"route add 10.66.0.0/16 dev {ours.name}")
    ours.namespace.completed("ping", "-c1", "-W1", "10.66.1.1")

    transfer = ours.shown("transfer")
    assert [transfer[key] for key in keys] == [["0", "0"]] * len(keys)


def test_keepalive_keeps_a_nat_open_and_begins_at_once(pair, module_lab):
    ours, theirs = pair
    ours.namespace.run("nft", "-f", "-", stdin=f"table ip nat {{\nchain c {{\ntype nat hook postrouting priority 100\nudp dport {PORT_B} masquerade to :20000-20100\n}}\n}}\n")  # fmt: skip
    ours.namespace.run("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=2", check=False)
    ours.namespace.run("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout_stream=2", check=False)
    try:
        ours.set("peer", theirs.public, "persistent-keepalive", "1")
        wait_until(lambda: int(ours.shown("transfer")[theirs.public][1]) > 0, what="a keepalive")
        wait_until(
            lambda: ":20" in endpoint_of(theirs, ours), PATIENCE, "the other end to see the NAT's port"
        )

        wait_until(lambda: int(theirs.shown("transfer")[ours.public][0]) > INITIATION + 2 * KEEPALIVE, what="keepalives")  # fmt: skip
        ping(theirs.namespace, "192.168.241.1")

        ours.set("peer", theirs.public, "persistent-keepalive", "0")
        assert ours.shown("persistent-keepalive")[theirs.public] == ["off"]
    finally:
        ours.namespace.run("nft", "delete", "table", "ip", "nat")


def test_keepalives_begin_when_the_interface_is_up_and_when_it_gets_a_key(hosts):
    a, _ = hosts
    device = Device(a, port=10003, is_up=False)
    _, other = generate(a)

    def has_sent():
        return int(device.shown("transfer")[other][1]) > 0

    device.set("peer", other, "persistent-keepalive", "1", "endpoint", "192.0.2.2:1111")
    assert not has_sent()
    a.ip(f"link set {device.name} up")
    wait_until(has_sent, PATIENCE, "an initiation")

    device.set("private-key", "/dev/null")
    assert not has_sent()
    device.set("private-key", "/dev/stdin", stdin=device.private)
    wait_until(has_sent, PATIENCE, "an initiation")
    device.remove()


def test_many_peers_with_many_prefixes_are_shown_whole(pair):
    ours, _ = pair
    keys = [base64.b64encode(bytes([number]) * 32).decode() for number in range(2, 42)]
    arguments = [
        word
        for number, key in enumerate(keys)
        for word in ("peer", key, "allowed-ips", ",".join(f"10.{number}.{each}.0/24" for each in range(52)))
    ]

    ours.set(*arguments)

    shown = ours.shown("allowed-ips")
    assert [len(shown[key]) for key in keys] == [52] * 40
    ours.set(*(word for key in keys[1:] for word in ("peer", key, "allowed-ips", "")))
    assert [ours.shown("allowed-ips")[key] for key in keys[1:]] == [["(none)"]] * 39
    ours.set("peer", keys[-1], "allowed-ips", ",".join(f"abcd:{each:x}::/32" for each in range(197)))
    assert len(ours.shown("allowed-ips")[keys[-1]]) == 197


def test_single_prefixes_are_taken_away(pair):
    ours, theirs = pair
    ours.set("peer", theirs.public, "allowed-ips", ",".join(f"10.1.{each}.0/24" for each in range(197)))

    taken = "".join(f"allowed_ip=-10.1.{each}.0/24\n" for each in (0, 5, 77, 100, 150, 196, 250))
    answer = ours.speak(f"set=1\npublic_key={base64.b64decode(theirs.public).hex()}\n{taken}\n")

    assert answer == "errno=0\n\n"
    assert len(ours.shown("allowed-ips")[theirs.public]) == 191


def test_interface_that_does_not_exist_is_an_error(hosts):
    a, _ = hosts

    done = a.completed("wg", "show", "doesnotexist")

    assert done.returncode == 1
    assert "Unable to access interface" in done.stderr


def test_both_answer_the_same_request_alike(pair):
    ours, theirs = pair
    key, other = ("22" * 32, "33" * 32)
    for request in (
        "get=2\n\n",
        "set=1\nlisten_port=x\n\n",
        "set=1\nnonsense=1\n\n",
        "set=1\nnonsense\n\n",
        f"set=1\npublic_key={key}\nallowed_ip=10.0.0.0\n\n",
        f"set=1\npublic_key={key}\nendpoint=nowhere:1\n\n",
        f"set=1\npublic_key={key}\npersistent_keepalive_interval=70000\n\n",
        f"set=1\npublic_key={key}\nremove=false\n\n",
        f"set=1\npublic_key={key}\nprotocol_version=2\n\n",
        "set=1\npublic_key=22\n\n",
        f"set=1\npublic_key={other}\nupdate_only=true\nallowed_ip=10.0.0.0/8\n\n",
        f"set=1\npublic_key={other}\nremove=true\n\n",
        "set=1\nreplace_peers=true\n\n",
        f"set=1\npublic_key={key}\nallowed_ip=10.1.2.3/8\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::1/64\n\n",
    ):
        if request == "get=2\n\n":
            continue  # wireguard-go closes the connection without an answer
        assert ours.speak(request) == theirs.speak(request), request
    assert ours.shown("allowed-ips") == theirs.shown("allowed-ips")
    assert ours.shown("preshared-keys") == theirs.shown("preshared-keys")
    for device in (ours, theirs):
        device.set("listen-port", str(device.port))
