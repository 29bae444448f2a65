from __future__ import annotations

import errno
import os
import socket

import pytest

from overlay.host.sockets.binding import bind
from tests.ports import free_port

FLAGS = [
    (),
    (socket.SO_REUSEADDR,),
    (socket.SO_REUSEPORT,),
    (socket.SO_REUSEADDR, socket.SO_REUSEPORT),
]
STRANGER = 65534


@pytest.fixture
def opened():
    """A list whose sockets are closed at the end."""
    sockets = []
    yield sockets
    for each in sockets:
        each.close()


@pytest.fixture
def make(opened):
    """Makes a UDP socket with options, of another user if desired."""

    def make(*flags, uid=None, family=socket.AF_INET):
        if uid is not None:
            os.seteuid(uid)
        try:
            udp = socket.socket(family, socket.SOCK_DGRAM)
        finally:
            if uid is not None:
                os.seteuid(0)
        udp.settimeout(60)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for flag in flags:
            udp.setsockopt(socket.SOL_SOCKET, flag, 1)
        opened.append(udp)
        return udp

    return make


def refusal(udp, address):
    """Return the errno with which a bind is refused, None if it is not."""
    try:
        udp.bind(address)
    except OSError as error:
        return error.errno
    return None


def udp_port():
    """Return a port that is free at any address: one that the kernel chooses at a bind may be in use at another."""
    return free_port(host="0.0.0.0", kind=socket.SOCK_DGRAM)


def both(make, former, latter):
    """Bind one of our sockets, then another that overlaps with it, and return both and their port."""
    family = socket.AF_INET6 if ":" in former else socket.AF_INET
    old, new = (make(family=family) for _ in range(2))
    port = udp_port()
    bind(old, (former, port))
    bind(new, (latter, port), [old])
    return old, new, port


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize(
    ("former", "latter"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::", "::1"), ("::1", "::")]
)
def test_nobody_else_overlaps_with_ours_while_they_overlap_nor_with_one_that_is_left(
    make, flags, former, latter
):
    old, new, port = both(make, former, latter)
    family, specific = old.family, next(each for each in (former, latter) if each not in {"0.0.0.0", "::"})

    for remaining in (2, 1):
        assert refusal(make(*flags, uid=STRANGER, family=family), (specific, port)) == errno.EADDRINUSE
        assert refusal(make(*flags, uid=STRANGER, family=family), (former, port)) == errno.EADDRINUSE
        if remaining == 2:
            (old if latter in {"0.0.0.0", "::"} else new).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("comes_first", [False, True])
@pytest.mark.parametrize(
    ("former", "other", "latter"),
    [
        ("127.0.0.1", "127.0.0.9", "0.0.0.0"),
        ("::1", "fe80::1", "::"),
        ("127.0.0.1", "::ffff:127.0.0.9", "0.0.0.0"),
    ],
)
def test_every_address_is_refused_where_another_has_one_of_them(
    make, flags, comes_first, former, other, latter
):
    family = socket.AF_INET6 if ":" in former else socket.AF_INET
    stranger = make(*flags, uid=STRANGER, family=socket.AF_INET6 if ":" in other else socket.AF_INET)
    if other.startswith("::ffff"):
        stranger.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if family == socket.AF_INET6:
        stranger.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
    port = udp_port()
    address = (other, port, 0, socket.if_nametoindex("lo")) if other == "fe80::1" else (other, port)
    old = make(family=family)
    if comes_first:
        stranger.bind(address)
        bind(old, (former, port))
    else:
        bind(old, (former, port))
        stranger.bind(address)

    with pytest.raises(OSError, match="in use"):
        bind(make(family=family), (latter, port), [old])


@pytest.mark.parametrize(
    ("former", "latter"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::", "::1"), ("::1", "::")]
)
def test_our_own_may_overlap_and_nothing_stays_lent(make, former, latter):
    old, new, _ = both(make, former, latter)

    for each in (old, new):
        assert not each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert not each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_a_port_that_is_refused_leaves_nothing_lent(make):
    old, other = make(), make()
    port = udp_port()
    bind(old, ("127.0.0.1", port))
    other.bind(("127.0.0.9", port))

    with pytest.raises(OSError, match="in use"):
        bind(make(), ("0.0.0.0", port), [old])

    assert not old.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
