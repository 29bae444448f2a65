from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
from ipaddress import ip_address

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Role
from overlay.errors import HostError
from overlay.host.sockets.reuseport import INDEX_MARK
from overlay.host.sockets.socket_options import set_mark, set_ttl
from overlay.host.sockets.underlay import (
    EVERY_IPV4,
    open_raw,
    open_udp,
    open_underlay,
)
from overlay.linux import IP_PKTINFO, UDP_GRO, UDP_SEGMENT
from tests.netns.topology import wait_until

LOOPBACK = ip_address("127.0.0.1")


@pytest.fixture
def opened():
    """A list whose sockets are closed at the end."""
    sockets = []
    yield sockets
    for each in sockets:
        each.close()


def test_datagram_comes_with_its_local_address_and_tos(opened):
    opened.append(udp := open_udp(EVERY_IPV4, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 1)
        sender.sendto(b"test", ("127.0.0.5", udp.port))

    _, control, _, _ = udp.socket.recvmsg(100, 1000)

    told = {(level, kind): data for level, kind, data in control}
    assert told[socket.IPPROTO_IP, socket.IP_TOS] == b"\x01"
    assert told[socket.IPPROTO_IP, IP_PKTINFO][8:12] == bytes([127, 0, 0, 5])


def test_datagram_over_ipv6_comes_with_its_local_address_and_class(opened):
    opened.append(udp := open_udp(ip_address("::1"), 0))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 1)
        sender.sendto(b"test", ("::1", udp.port))

    _, control, _, _ = udp.socket.recvmsg(100, 1000)

    told = {(level, kind): data for level, kind, data in control}
    assert struct.unpack("i", told[socket.IPPROTO_IPV6, socket.IPV6_TCLASS]) == (1,)
    assert told[socket.IPPROTO_IPV6, socket.IPV6_PKTINFO][:16] == ip_address("::1").packed


def test_many_datagrams_pass_in_one_call_each_way(opened):
    opened.append(udp := open_udp(LOOPBACK, 0))
    if not (udp.can_segment and udp.can_coalesce):
        pytest.skip("this kernel lacks UDP_SEGMENT or UDP_GRO")
    segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", 100))]
    udp.socket.sendmsg([bytes(450)], segment, 0, ("127.0.0.1", udp.port))

    data, control, _, _ = udp.socket.recvmsg(65536, 1000)

    assert len(data) == 450
    assert (socket.IPPROTO_UDP, UDP_GRO, struct.pack("i", 100)) in control


def test_socket_does_not_block_and_has_large_buffers(opened):
    opened.append(udp := open_udp(LOOPBACK, 0))

    with pytest.raises(BlockingIOError):
        udp.socket.recv(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert udp.socket.getsockopt(socket.SOL_SOCKET, buffer) > plain.getsockopt(
                socket.SOL_SOCKET, buffer
            )


def test_mtu_discovery_stays_at_the_systems_choice(opened):
    opened.append(udp := open_udp(LOOPBACK, 0))

    assert udp.socket.getsockopt(socket.IPPROTO_IP, 10) == 1  # IP_MTU_DISCOVER, IP_PMTUDISC_WANT


def test_every_address_takes_one_socket_for_each_family_on_one_port(opened):
    opened += open_underlay([], 0)

    assert [udp.family for udp in opened] == [socket.AF_INET, socket.AF_INET6] * 2
    assert [udp.role for udp in opened] == [Role.ALL, Role.ALL, Role.HANDSHAKES, Role.HANDSHAKES]
    assert len({udp.port for udp in opened}) == 1


def test_listen_takes_one_socket_for_each_address(opened):
    opened += open_underlay([LOOPBACK, ip_address("127.0.0.2"), ip_address("::1")], 0)

    assert [str(udp.address) for udp in opened] == ["127.0.0.1", "127.0.0.2", "::1"] * 2
    assert len({udp.port for udp in opened}) == 1


def sort_out(opened, address, version=4):
    """Send a message of each type there and an empty datagram; return the types that arrived at each of two sockets."""
    family, port = (socket.AF_INET, socket.AF_INET6)[version == 6], opened[0].port
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for first in (*range(7), 255):
            sender.sendto(bytes([first, 0, 0, 0, 1, 2, 3, INDEX_MARK]).ljust(64, b"\0"), (address, port))
        sender.sendto(b"", (address, port))
    heard = []
    for udp in opened:
        heard.append([])
        with contextlib.suppress(BlockingIOError):
            while True:
                heard[-1].append(udp.socket.recv(100)[0])
    return heard


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_handshake_messages_have_a_queue_of_their_own(opened, address):
    opened += open_underlay([ip_address(address)], 0)

    others, handshakes = sort_out(opened, address, ip_address(address).version)

    assert handshakes == [1, 2, 3]
    assert others == [4, 5]  # what begins like no message reaches neither


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_handshake_messages_have_a_queue_of_their_own_in_the_place_of_one(opened, address):
    opened += (old := open_underlay([ip_address(address)], 0))

    opened += (new := open_underlay([], old[0].port, ours=old))
    for udp in old:
        udp.close()

    pair = [udp for udp in new if udp.family == old[0].family]
    assert sort_out(pair, address, ip_address(address).version)[1] == [1, 2, 3]


def test_replacement_that_is_refused_leaves_the_queues_as_they_were(opened):
    opened += (old := open_underlay([LOOPBACK], 0))

    with pytest.raises(HostError):
        open_underlay([LOOPBACK, ip_address("fe80::1%nosuch")], old[0].port, ours=old)

    assert sort_out(old, "127.0.0.1")[1] == [1, 2, 3]


def test_second_agent_cannot_take_the_port(opened):
    opened += (first := open_underlay([], 0))

    with pytest.raises(HostError, match="is taken by another program"):
        open_underlay([], first[0].port)


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
def test_port_that_is_taken_is_refused_and_nothing_stays_open(opened, taken):
    opened.append(other := open_udp(ip_address(taken), 0))

    with pytest.raises(HostError, match=f"UDP port {other.port} is taken by another program: ") as raised:
        open_underlay([], other.port)

    assert isinstance(raised.value.__cause__, OSError)


def test_own_sockets_may_be_replaced_on_the_same_port(opened):
    opened += (old := open_underlay([], 0))

    opened += open_underlay([LOOPBACK, ip_address("::1")], old[0].port, ours=old)

    with pytest.raises(HostError, match="is taken"):  # at other ones still not
        open_udp(LOOPBACK, old[0].port)


def test_sockets_that_are_wanted_again_are_the_same_and_stay_open_when_others_are_refused(opened):
    opened += (old := open_underlay([LOOPBACK], 0))

    assert open_underlay([LOOPBACK], old[0].port, ours=old) == old
    opened += (more := open_underlay([ip_address("127.0.0.2"), LOOPBACK], old[0].port, ours=old))
    with pytest.raises(HostError):
        open_underlay([LOOPBACK, ip_address("fe80::1%nosuch")], old[0].port, ours=old)

    assert [udp for udp in more if udp in old] == old
    assert sort_out(old, "127.0.0.1")[1] == [1, 2, 3]


@pytest.mark.parametrize("address", ["192.0.2.77", "2001:db8::77"])
@pytest.mark.netns
def test_an_address_that_comes_later_is_bound_before_and_receives_then(lab, opened, address):
    host = lab.namespace("host")
    lab.bridge(host, "br0")
    with host.entered():
        opened += open_underlay([ip_address(address)], 51820)
        opened += open_raw([ip_address(address)], ENCAPSULATIONS["ipip"])
        with pytest.raises(HostError, match="is taken by another program"):
            open_udp(ip_address(address), 51820)
        sender = socket.socket(opened[0].family, socket.SOCK_DGRAM)
    opened.append(sender)

    host.run("ip", "address", "add", address, "dev", "br0", *(["nodad"] if ":" in address else []))

    message = bytes([4, 0, 0, 0, 1, 2, 3, INDEX_MARK]) + bytes(28)

    def arrives():  # what is sent before the kernel has the route of the new address is lost
        sender.sendto(message, (address, 51820))
        return select.select([opened[0].socket], [], [], 0.1)[0]

    wait_until(arrives, 60, "a datagram to the new address")
    assert opened[0].socket.recv(100) == message


def test_link_local_address_needs_its_interface():
    with pytest.raises(HostError, match="fe80::1%nosuch is not an address of this host"):
        open_udp(ip_address("fe80::1%nosuch"), 0)


@pytest.mark.netns
def test_link_local_address_is_bound_on_its_interface(lab):
    host = lab.namespace("host")
    lab.bridge(host, "br0", "fe80::1/64")

    with host.entered():
        udp = open_udp(ip_address("fe80::1%br0"), 0)

        assert udp.socket.getsockname()[3] == socket.if_nametoindex("br0")
        udp.close()


@pytest.mark.netns
def test_mark_is_set_and_can_be_changed(lab):
    with lab.namespace("host").entered():
        udp = open_udp(EVERY_IPV4, 0, 0x51820)
        assert udp.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x51820

        set_mark(udp.socket, 7)

        assert udp.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 7
        udp.close()


@pytest.mark.netns
@pytest.mark.parametrize("kind", ["disabled", "present"])
def test_host_with_ipv6_disabled_still_gets_sockets(lab, kind):
    host = lab.namespace("host")
    host.run("sysctl", "-qw", f"net.ipv6.conf.all.disable_ipv6={int(kind == 'disabled')}")

    with host.entered():
        opened = open_underlay([], 51820)

    assert opened[0].family == socket.AF_INET
    for udp in opened:
        udp.close()


@pytest.mark.netns
def test_process_without_privilege_gets_what_it_may_have(lab):
    code = (
        "from ipaddress import ip_address; from overlay.host.process.privileges import keep_only, drop_all\n"
        "from overlay.host.sockets.underlay import *; from overlay.host.sockets.icmp_errors import open_icmp; drop_all(65520)\n"
        "udp = open_udp(EVERY_IPV4, 51820); print(udp.port, udp.can_coalesce)\n"
        "print(open_icmp(ip_address('10.244.1.0')))\n"
        "for attempt in (lambda: open_udp(EVERY_IPV4, 53), lambda: open_udp(EVERY_IPV4, 5300, 1)):\n"
        "    try: attempt()\n"
        "    except Exception as error: print(type(error).__name__, error)"
    )

    said = lab.namespace("host").python(code).splitlines()

    assert said[0].startswith("51820 ")
    assert said[1] == "None"
    assert re.fullmatch("HostError UDP port 53 needs CAP_NET_BIND_SERVICE: .*", said[2])
    assert re.fullmatch("HostError fwmark 0x1 could not be set: run as root with CAP_NET_ADMIN", said[3])


def test_sockets_in_the_clear_have_none_for_handshakes_beside_them(opened):
    opened += open_underlay([LOOPBACK], 0, encapsulation="udp")

    assert [(each.encapsulation, each.role) for each in opened] == [("udp", Role.ALL)]


def test_receivers_come_first_and_senders_have_dynamic_ports_of_their_own(opened):
    opened += open_underlay([], 0, encapsulation="vxlan", senders=16)

    receivers, senders = opened[:2], opened[2:]
    assert [(each.family, each.role) for each in receivers] == [
        (family, Role.RECEIVES) for family in (socket.AF_INET, socket.AF_INET6)
    ]
    assert len({each.port for each in receivers}) == 1
    assert {each.role for each in senders} == {Role.SENDS}
    for family in (socket.AF_INET, socket.AF_INET6):
        ports = {each.port for each in senders if each.family == family}
        assert len(ports) == 16
        assert all(49152 <= port < 65536 for port in ports)
    assert all(each.can_segment and each.encapsulation == "vxlan" for each in opened)


def test_senders_are_on_the_first_address_of_a_family(opened):
    listen = [LOOPBACK, ip_address("127.0.0.2"), ip_address("::1")]

    opened += open_underlay(listen, 0, encapsulation="vxlan", senders=2)

    assert [str(each.address) for each in opened] == [
        *map(str, listen),
        *["127.0.0.1"] * 2,
        *["::1"] * 2,
    ]


def test_senders_spare_ports_and_pass_over_those_that_are_taken(opened):
    opened += open_underlay([LOOPBACK], 0, encapsulation="vxlan", senders=1)
    taken = opened[-1].port  # the first free one

    opened += open_underlay([LOOPBACK], 0, encapsulation="vxlan", senders=2, spared={taken + 1})

    assert all(each.port > taken + 1 for each in opened[3:])


def test_senders_receive_nothing(opened):
    opened += open_underlay([LOOPBACK], 0, encapsulation="vxlan", senders=1)
    _, sender = opened

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"x", ("127.0.0.1", sender.port))
        stranger.sendto(b"", ("127.0.0.1", sender.port))

    with pytest.raises(BlockingIOError):
        sender.socket.recv(10)
    assert sender.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 10_000


def test_receivers_take_ipv6_without_a_checksum(opened):
    opened += open_underlay([ip_address("::1")], 0, encapsulation="vxlan", senders=1)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as stranger:
        stranger.setsockopt(socket.IPPROTO_UDP, 101, 1)  # UDP_NO_CHECK6_TX
        stranger.sendto(b"x", ("::1", opened[0].port))

    assert opened[0].socket.recv(10) == b"x"


@pytest.mark.netns
def test_mark_is_on_receivers_and_senders(lab):
    with lab.namespace("host").entered():
        opened = open_underlay([], 4789, 7, encapsulation="vxlan", senders=2)
        marks = [each.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for each in opened]
        for each in opened:
            each.close()

    assert marks == [7] * 6


# Raw sockets

IPIP, GRE = ENCAPSULATIONS["ipip"], ENCAPSULATIONS["gre"]
ROLES = (Role.RECEIVES, Role.SENDS, Role.SENDS_WHOLE)


@pytest.mark.netns
@pytest.mark.parametrize(("encapsulation", "protocols"), [(IPIP, (4, 41)), (GRE, (47,))])
def test_each_family_and_protocol_has_a_raw_socket_that_receives_and_two_that_send(
    lab, opened, encapsulation, protocols
):
    with lab.namespace("host").entered():
        opened += open_raw([], encapsulation, 7)

    assert [(each.family, each.protocol, each.role) for each in opened] == [
        (family, protocol, role)
        for family in (socket.AF_INET, socket.AF_INET6)
        for protocol in protocols
        for role in ROLES
    ]
    assert {each.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) for each in opened} == set(
        protocols
    )
    assert {each.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for each in opened} == {7}
    assert {(each.port, each.has_port, each.encapsulation) for each in opened} == {
        (0, False, encapsulation.name)
    }
    discover = {each.role: each.socket.getsockopt(0, 10) for each in opened if each.family == socket.AF_INET}
    assert discover == {Role.RECEIVES: 1, Role.SENDS: 0, Role.SENDS_WHOLE: 2}
    discover = {
        each.role: each.socket.getsockopt(41, 23) for each in opened if each.family == socket.AF_INET6
    }
    assert discover == {Role.RECEIVES: 1, Role.SENDS: 0, Role.SENDS_WHOLE: 2}


@pytest.mark.netns
def test_raw_sockets_are_bound_where_the_node_listens_and_send_from_the_first_of_a_family(lab, opened):
    host = lab.namespace("host")
    addresses = [ip_address(each) for each in ("127.0.0.1", "127.0.0.2", "::1")]
    with host.entered():
        opened += open_raw(addresses, GRE)

    assert [(str(each.address), each.role) for each in opened] == [
        *(("127.0.0.1", role) for role in ROLES),
        ("127.0.0.2", Role.RECEIVES),
        *(("::1", role) for role in ROLES),
    ]
    assert [each.socket.getsockname()[0] for each in opened] == [str(each.address) for each in opened]


@pytest.mark.netns
def test_only_raw_sockets_that_receive_get_what_arrives(lab, opened):
    with lab.namespace("host").entered():
        opened += open_raw([], GRE)
    for each in opened:
        if each.role != Role.RECEIVES:
            each.socket.sendto(b"payload", ("127.0.0.1" if each.family == socket.AF_INET else "::1", 0))

    for each in opened:
        count = 0
        with contextlib.suppress(BlockingIOError):
            while each.socket.recv(100):
                count += 1
        assert count == (2 if each.role == Role.RECEIVES else 0)


@pytest.mark.netns
@pytest.mark.parametrize("kind", ["disabled", "present"])
def test_host_with_ipv6_disabled_still_gets_raw_sockets(lab, opened, kind):
    host = lab.namespace("host")
    host.run("sysctl", "-qw", f"net.ipv6.conf.all.disable_ipv6={int(kind == 'disabled')}")

    with host.entered():
        opened += open_raw([], IPIP)

    assert opened[0].family == socket.AF_INET


@pytest.mark.netns
def test_without_the_privilege_the_encapsulation_and_the_capability_are_named(lab):
    code = (
        "from overlay.encap import ENCAPSULATIONS; from overlay.host.process.privileges import drop_all\n"
        "from overlay.host.sockets.underlay import open_raw; drop_all(65520)\n"
        "try: open_raw([], ENCAPSULATIONS['gre'])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )

    said = lab.namespace("host").python(code)

    assert said == (
        "HostError the encapsulation gre needs the capability CAP_NET_RAW for its raw sockets: "
        "give it to the agent; root has it\n"
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_ttl_is_set_and_taken_back(opened, address):
    opened.append(udp := open_udp(ip_address(address), 0))
    level, option = (
        (socket.IPPROTO_IP, socket.IP_TTL)
        if "." in address
        else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    )
    before = udp.socket.getsockopt(level, option)

    set_ttl(udp.socket, 9)
    assert udp.socket.getsockopt(level, option) == 9
    set_ttl(udp.socket, None)
    assert udp.socket.getsockopt(level, option) == before
