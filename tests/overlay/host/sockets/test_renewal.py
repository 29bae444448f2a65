from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from ipaddress import ip_address

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Role
from overlay.errors import HostError
from overlay.host.sockets.renewal import renew
from overlay.host.sockets.underlay import EVERY_IPV4, open_raw, open_udp, open_underlay
from tests.overlay.host.sockets.test_underlay import sort_out

LOOPBACK = ip_address("127.0.0.1")
ELSEWHERE = ("127.0.0.9", 9)
WIREGUARD, UDP = ENCAPSULATIONS["wireguard"], ENCAPSULATIONS["udp"]


@pytest.fixture
def opened():
    """A list whose sockets are closed at the end."""
    sockets = []
    yield sockets
    for each in sockets:
        each.close()


def set_option(level, option, value):
    return lambda udp: udp.setsockopt(level, option, value)


def lock_a_filter(udp):
    program = struct.pack("=HBBI", 0x06, 0, 0, 0)  # keep nothing
    kept = ctypes.create_string_buffer(program, len(program))
    udp.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(kept)))
    udp.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER


def begin_a_datagram(udp):
    udp.sendto(b"what the next one sends is added to this", socket.MSG_MORE, ELSEWHERE)


def shut_down(udp):
    udp.connect(ELSEWHERE)
    udp.shutdown(socket.SHUT_RDWR)


# What a forwarder can do to a socket, with and without the filter of system calls.
CHANGES = {
    "a datagram without an end": begin_a_datagram,
    "another MTU discovery": set_option(socket.IPPROTO_IP, 10, 3),
    "timestamps": set_option(socket.SOL_SOCKET, 37, 1 << 3 | 1 << 4),
    "connected elsewhere": lambda udp: udp.connect(ELSEWHERE),
    "shut down": shut_down,
    "a locked filter": lock_a_filter,
    "blocking": lambda udp: os.set_blocking(udp.fileno(), True),
    "a small buffer": set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, 1),
    "a TTL of 1": set_option(socket.IPPROTO_IP, socket.IP_TTL, 1),
    "no route but on the link": set_option(socket.SOL_SOCKET, 5, 1),  # SO_DONTROUTE
    "offsets for those who peek": set_option(socket.SOL_SOCKET, 42, 1),
    "no checksums": set_option(socket.SOL_SOCKET, 11, 1),
    "a priority": set_option(socket.SOL_SOCKET, socket.SO_PRIORITY, 6),
    "a timeout": set_option(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 1)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_that_was_done_to_a_socket_is_left_for_the_next_forwarder(opened, what):
    opened += open_underlay([LOOPBACK], 0, encapsulation="udp")
    former, port = opened[0], opened[0].port
    with former.socket.dup() as copy:  # the same file as that of the agent
        CHANGES[what](copy)

    renew(opened, UDP, [LOOPBACK], None)

    (fresh,) = opened
    assert (fresh.socket.getsockname(), former.fileno()) == (("127.0.0.1", port), -1)
    assert not os.get_blocking(fresh.fileno())
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(60)
        peer.sendto(b"to us", ("127.0.0.1", port))
        fresh.socket.settimeout(60)
        assert fresh.socket.recv(100) == b"to us"
        fresh.socket.sendto(b"from us", peer.getsockname())
        assert peer.recvfrom(100) == (b"from us", ("127.0.0.1", port))
        plain = stack.enter_context(contextlib.closing(open_udp(LOOPBACK, 0, encapsulation="udp")))
        for option in (
            (0, 10),
            (0, socket.IP_TTL),
            *((socket.SOL_SOCKET, n) for n in (5, 8, 11, 12, 37, 42)),
        ):
            assert fresh.socket.getsockopt(*option) == plain.socket.getsockopt(*option)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_handshake_messages_have_a_queue_of_their_own_as_before(opened, address):
    opened += open_underlay([ip_address(address)], 0)
    former = list(opened)

    for _ in range(3):
        renew(opened, WIREGUARD, [ip_address(address)], None)

        assert not set(opened) & set(former)
        assert [each.role for each in opened] == [Role.ALL, Role.HANDSHAKES]
        assert sort_out(opened, address, ip_address(address).version) == [[4, 5], [1, 2, 3]]


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_copies_in_a_program_that_is_being_started_change_nothing_of_who_gets_what(opened, address, step):
    """Between fork and exec, a child has copies of all descriptors: until then, sockets that the agent
    closes live on.
    """
    opened += open_underlay([ip_address(address)], 0)

    for _ in range(3):
        copies = [each.socket.dup() for each in opened][::step]
        renew(opened, WIREGUARD, [ip_address(address)], None)
        for each in copies:
            each.close()

        assert sort_out(opened, address, ip_address(address).version) == [[4, 5], [1, 2, 3]]


def test_every_address_and_its_port_are_bound_again_and_nobody_else_may_share_them(opened):
    opened += open_underlay([], 0)
    before = [(udp.socket.getsockname(), udp.role) for udp in opened]

    renew(opened, WIREGUARD, [], None)

    assert [(udp.socket.getsockname(), udp.role) for udp in opened] == before
    for address in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(HostError, match="is taken by another program"):
            open_udp(ip_address(address), opened[0].port)


def test_senders_keep_their_ports(opened):
    opened += open_underlay([LOOPBACK], 0, encapsulation="vxlan", senders=3)
    before = [(udp.port, udp.role) for udp in opened]

    renew(opened, ENCAPSULATIONS["vxlan"], [LOOPBACK], None)

    assert [(udp.port, udp.role) for udp in opened] == before
    assert [udp.socket.getsockname()[1] for udp in opened] == [port for port, _ in before]


def test_nobody_else_can_have_the_port_at_any_moment(opened):
    opened += open_underlay([], 0)
    port, refused = opened[0].port, []
    close = socket.socket.close

    def try_to_take(closed):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                thief.bind(("127.0.0.1", port))
            except OSError:
                refused.append(True)
            else:
                refused.append(False)
            close(thief)
        close(closed)

    class Watched(socket.socket):
        def close(self):
            try_to_take(self)

    for place, udp in enumerate(opened):
        raw = Watched(udp.family, udp.socket.type, fileno=udp.socket.detach())
        opened[place] = type(udp)(**{**{name: getattr(udp, name) for name in udp.__slots__}, "socket": raw})

    renew(opened, WIREGUARD, [], None)

    assert refused == [True] * 4


def test_a_renewal_that_is_refused_can_be_tried_again(opened):
    opened += open_underlay([], 0)
    before = [(udp.socket.getsockname(), udp.role) for udp in opened]
    port = opened[0].port

    last = opened[1]
    object.__setattr__(last, "address", ip_address("2001:db8::1%nosuch"))
    with pytest.raises(HostError):
        renew(opened, WIREGUARD, [], None)
    object.__setattr__(last, "address", ip_address("::"))
    assert {udp.port for udp in opened} == {port}
    assert all(udp.fileno() != -1 for udp in opened)

    renew(opened, WIREGUARD, [], None)

    assert [(udp.socket.getsockname(), udp.role) for udp in opened] == before


@pytest.mark.netns
@pytest.mark.parametrize("name", ["ipip", "gre"])
def test_raw_sockets_are_others_in_the_same_places(lab, opened, name):
    encapsulation = ENCAPSULATIONS[name]
    with lab.namespace("host").entered():
        opened += open_raw([EVERY_IPV4], encapsulation)
        before = [(udp.family, udp.role, udp.protocol) for udp in opened]
        former = list(opened)
        for each in former:
            each.socket.connect(("127.0.0.9", 0))

        renew(opened, encapsulation, [EVERY_IPV4], None)

        assert [(udp.family, udp.role, udp.protocol) for udp in opened] == before
        assert all(udp.fileno() == -1 for udp in former)
        for each in opened:
            with pytest.raises(OSError, match="not connected"):
                each.socket.getpeername()
