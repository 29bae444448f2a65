"""The underlay sockets.  The agent opens them while it has the privilege; the forwarder uses them without any."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, TypeAlias

from overlay.encap.encapsulation import Role
from overlay.errors import HostError
from overlay.host import advice
from overlay.host.interfaces import sockaddr_of
from overlay.host.process.privileges import Capability
from overlay.host.sockets import binding
from overlay.host.sockets.reuseport import separate_handshakes, take_handshakes_only, take_nothing
from overlay.host.sockets.socket_options import bind_early, enlarge, set_mark, try_set
from overlay.linux import (
    IP_MTU_DISCOVER,
    IP_PKTINFO,
    IPV6_MTU_DISCOVER,
    PMTUDISC_DO,
    PMTUDISC_DONT,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    UDP_GRO,
    UDP_SEGMENT,
)
from overlay.wire.ip import PROTOCOL_UDP
from peers.encapsulation import WIREGUARD, is_encrypted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from overlay.encap.encapsulation import Encapsulation

IPAddress: TypeAlias = IPv4Address | IPv6Address

# Specification: linux/in.h, linux/udp.h, asm-generic/socket.h; Python names only some
UDP_NO_CHECK6_RX = 102
SENDERS_PORTS = range(
    49152, 65536
)  # the dynamic ports (RFC 6335 section 6), which RFC 7348 section 5 recommends

# Ours
BUFFER = 8 * 1024 * 1024  # bytes each way: 50 ms at 1.3 Gbit/s, over a scheduling pause of a loaded host
HANDSHAKE_BUFFER = (
    1024 * 1024
)  # bytes: some thousand handshakes, which take a second; more would wait without success
SENDER_BUFFER = 4096  # bytes of receive buffer of sockets that only send; the kernel applies its minimum
EVERY_IPV4 = IPv4Address("0.0.0.0")
EVERY_IPV6 = IPv6Address("::")
BESIDE = {Role.HANDSHAKES, Role.LANE}  # roles of sockets that share the address and port of another
MOST_SOCKETS = (
    253  # of one encapsulation: they go with one message to the forwarder (link.codec: DESCRIPTORS)
)
ATTEMPTS_FOR_ANY_PORT = 16  # port 0: attempts to find a number that is free in both families


@dataclass(frozen=True, slots=True)
class UnderlaySocket:
    """A bound, non-blocking UDP socket, or a raw one of another protocol, and what the kernel granted it."""

    socket: socket.socket
    address: IPAddress  # unspecified: every address of that family
    port: int  # 0: a raw socket has none
    can_segment: bool  # UDP_SEGMENT: many datagrams in one send
    can_coalesce: bool  # UDP_GRO is on: many datagrams in one receive
    encapsulation: str = WIREGUARD  # what its datagrams are
    role: Role = Role.ALL
    protocol: int = PROTOCOL_UDP
    lane: int = 0  # that receives from it, or sends
    beside: int = 0  # the port of the socket for which it sends, if it belongs to a lane

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.socket.family

    @property
    def receive_buffer(self) -> int:
        """How many bytes may wait to be read, 0 for sockets that only send; the kernel counts its own overhead as much
        again.
        """
        if self.role != Role.ALL:
            return 0
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2

    @property
    def has_port(self) -> bool:
        """Return whether it is a UDP socket."""
        return self.protocol == PROTOCOL_UDP

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close this process's descriptor."""
        self.socket.close()


def open_underlay(
    listen: Sequence[IPAddress],
    port: int,
    fwmark: int | None = None,
    ours: Sequence[UnderlaySocket] = (),
    encapsulation: str = WIREGUARD,
    *,
    senders: int = 0,
    spared: Collection[int] = (),
    lanes: int = 1,
) -> list[UnderlaySocket]:
    """Return one socket for each address of *listen*; if that is empty, one for all of IPv4 and one for all of IPv6.

    For the WireGuard protocol, if the kernel can separate handshake messages, as many sockets for these follow, and
    with several *lanes* two for each further lane.  With *senders* the first sockets only receive, and for each family
    that many sockets follow that only send, from its first address and each from a port of its own that is not in
    *spared*.  A host without IPv6 gets those for IPv4 alone.  *port* 0 takes a free port, the same for all.  *ours* are
    open sockets of the same encapsulation: the ones that are still wanted are returned as they are, and new sockets may
    overlap with the others.  Raises HostError; then no new socket stays open.
    """
    while lanes > 1 and max(2, len(listen)) * 2 * lanes > MOST_SOCKETS:
        lanes //= 2  # the others send through these
    attempts = ATTEMPTS_FOR_ANY_PORT if port == 0 else 1
    while True:
        attempts -= 1
        try:
            role = Role.RECEIVES if senders else Role.ALL
            opened = _open_all(listen, port, fwmark, ours, encapsulation, role, lanes)
            break
        except HostError as error:
            if not attempts or getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
                raise
    firsts = {udp.family: udp.address for udp in reversed(opened)} if senders else {}
    try:
        for _, address in sorted(firsts.items()):
            opened += _open_senders(address, senders, {*spared, port}, fwmark, ours, encapsulation)
    except BaseException:
        _close_new(opened, ours)
        raise
    return opened


def open_udp(
    address: IPAddress,
    port: int,
    fwmark: int | None = None,
    ours: Sequence[UnderlaySocket] = (),
    *,
    encapsulation: str = WIREGUARD,
    role: Role = Role.ALL,
    lane: int = 0,
    beside: int = 0,
) -> UnderlaySocket:
    """Return a socket bound to *address*; ``0.0.0.0`` and ``::`` are every address of the family.

    Only *ours* may overlap with it.  It reports the local address and the TOS of each datagram, and accepts both for
    each send.  IP_MTU_DISCOVER stays at the system's WANT, except for single sends of the forwarder.  Raises HostError.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise HostError(
            f"this host cannot open an IPv{address.version} socket: {advice.with_reason(error)}"
        ) from error
    try:
        if fwmark is not None:
            set_mark(udp, fwmark)
        if family == socket.AF_INET:
            udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        if role == Role.RECEIVES and family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)  # a zero checksum is accepted (RFC 6935)
        if role == Role.SENDS:
            take_nothing(udp)
        if role in BESIDE:  # it joins the group of the socket with the same address
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bind_early(udp, address)
        binding.bind(udp, sockaddr_of(address, port), [each.socket for each in ours])
        _set_receive_buffer(udp, role)
        enlarge(udp, SO_SNDBUFFORCE, socket.SO_SNDBUF, BUFFER)
        return UnderlaySocket(
            socket=udp,
            address=address,
            port=udp.getsockname()[1],
            can_segment=try_set(udp, socket.IPPROTO_UDP, UDP_SEGMENT, 0),
            can_coalesce=try_set(udp, socket.IPPROTO_UDP, UDP_GRO, 1),
            encapsulation=encapsulation,
            role=role,
            lane=lane,
            beside=beside,
        )
    except OSError as error:
        udp.close()
        raise HostError(_bind_refused(address, port, error)) from error
    except HostError:
        udp.close()
        raise


def open_beside(
    udp: UnderlaySocket, fwmark: int | None, ours: Sequence[UnderlaySocket], lanes: int = 1
) -> list[UnderlaySocket]:
    """Return a socket that gets the handshake messages instead of *udp*, then two for each further lane.

    A lane receives through the first of its two, and sends through the second, which has a port of its own.  Returns
    nothing if this kernel cannot do this.  *udp* is bound alone first, so that a taken port is noticed, and shares its
    port afterwards.
    """
    udp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    beside: list[UnderlaySocket] = []
    with contextlib.suppress(HostError):
        for lane in range(lanes):
            role, others = Role.LANE if lane else Role.HANDSHAKES, [udp, *ours, *beside]
            beside.append(open_udp(udp.address, udp.port, fwmark, others, role=role, lane=lane))
        for lane in range(1, lanes):
            port = open_udp(udp.address, 0, fwmark, role=Role.SENDS, lane=lane, beside=udp.port)
            beside.append(port)
        first = beside[0].socket
        if take_handshakes_only(first) and separate_handshakes(first, lanes=lanes):
            return beside
    for each in beside:
        each.close()
    udp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    return []


def is_beside(udp: UnderlaySocket) -> bool:
    """Return whether *udp* was opened by open_beside()."""
    return udp.role in BESIDE or udp.lane > 0


def lanes_of(opened: Sequence[UnderlaySocket]) -> int:
    """Return how many lanes receive from *opened*."""
    return 1 + max((each.lane for each in opened), default=0)


def open_raw(
    listen: Sequence[IPAddress], encapsulation: Encapsulation, fwmark: int | None = None
) -> list[UnderlaySocket]:
    """Return the raw sockets of an *encapsulation* without ports.

    For each of its protocols, one socket receives for each address of *listen*, or if that is empty, one for all of
    IPv4 and one for all of IPv6.  For each family two send from its first address: one packets that routers may
    fragment (by RFC 2003 section 3.1 the inner packet decides), the other those that they may not.  A host without IPv6
    gets those for IPv4 alone.  Raises HostError; then no socket stays open.
    """
    opened: list[UnderlaySocket] = []
    sending: set[int] = set()
    try:
        for address in listen or (EVERY_IPV4, EVERY_IPV6):
            roles = [Role.RECEIVES]
            if address.version not in sending:
                roles += [Role.SENDS, Role.SENDS_WHOLE]
            sending.add(address.version)
            try:
                opened += [
                    _open_raw(address, protocol, role, encapsulation.name, fwmark)
                    for protocol in dict.fromkeys(encapsulation.protocols.values())
                    for role in roles
                ]
            except HostError as error:
                if listen or address != EVERY_IPV6 or not _is_ipv6_missing(error):
                    raise
    except BaseException:
        for each in opened:
            each.close()
        raise
    return opened


def _open_raw(
    address: IPAddress, protocol: int, role: Role, encapsulation: str, fwmark: int | None
) -> UnderlaySocket:
    is_ipv4 = address.version == 4
    family = socket.AF_INET if is_ipv4 else socket.AF_INET6
    try:
        raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except PermissionError as error:
        raise HostError(
            f"the encapsulation {encapsulation} needs the capability CAP_NET_RAW for its raw sockets: "
            "give it to the agent; root has it"
        ) from error
    except OSError as error:
        raise HostError(
            f"this host cannot open a raw IPv{address.version} socket for {encapsulation}: {advice.with_reason(error)}"
        ) from error
    try:
        if role != Role.RECEIVES:
            take_nothing(raw)
            discover = PMTUDISC_DO if role == Role.SENDS_WHOLE else PMTUDISC_DONT
            level, option = (
                (socket.IPPROTO_IP, IP_MTU_DISCOVER) if is_ipv4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
            )
            raw.setsockopt(level, option, discover)
        elif not is_ipv4:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        if fwmark is not None:
            set_mark(raw, fwmark)
        bind_early(raw, address)
        raw.bind(sockaddr_of(address, 0))
        enlarge(raw, SO_RCVBUFFORCE, socket.SO_RCVBUF, BUFFER)
        enlarge(raw, SO_SNDBUFFORCE, socket.SO_SNDBUF, BUFFER)
        return UnderlaySocket(
            socket=raw,
            address=address,
            port=0,
            can_segment=False,
            can_coalesce=False,
            encapsulation=encapsulation,
            role=role,
            protocol=protocol,
        )
    except OSError as error:
        raw.close()
        raise HostError(_bind_refused(address, 0, error)) from error
    except HostError:
        raw.close()
        raise


def _open_all(
    listen: Sequence[IPAddress],
    port: int,
    fwmark: int | None,
    ours: Sequence[UnderlaySocket],
    encapsulation: str,
    role: Role,
    lanes: int,
) -> list[UnderlaySocket]:
    opened: list[UnderlaySocket] = []
    try:
        for address in listen or (EVERY_IPV4, EVERY_IPV6):
            at = opened[0].port if opened else port
            kept = _kept(ours, address, at, role)
            try:
                opened.append(
                    kept or open_udp(address, at, fwmark, ours, encapsulation=encapsulation, role=role)
                )
            except HostError as error:
                if listen or address != EVERY_IPV6 or not _is_ipv6_missing(error):
                    raise
        for udp in list(opened) if is_encrypted(encapsulation) else []:
            if udp in ours:
                opened += [
                    each
                    for each in ours
                    if is_beside(each) and (each.address, each.beside or each.port) == (udp.address, udp.port)
                ]
            else:
                opened += open_beside(udp, fwmark, ours, lanes)
    except BaseException:
        _close_new(opened, ours)
        raise
    return opened


def _kept(ours: Sequence[UnderlaySocket], address: IPAddress, port: int, role: Role) -> UnderlaySocket | None:
    """Return the socket of *ours* that is wanted, if there is one."""
    wanted = address, port, role
    return next((each for each in ours if (each.address, each.port, each.role) == wanted), None)


def _close_new(opened: Sequence[UnderlaySocket], ours: Sequence[UnderlaySocket]) -> None:
    for udp in opened:
        if udp not in ours:
            udp.close()


def _open_senders(
    address: IPAddress,
    count: int,
    spared: Collection[int],
    fwmark: int | None,
    ours: Sequence[UnderlaySocket],
    encapsulation: str,
) -> list[UnderlaySocket]:
    """Return *count* sockets on *address* that send and do not receive, on free dynamic ports."""
    opened: list[UnderlaySocket] = []
    try:
        for port in SENDERS_PORTS:
            if len(opened) == count:
                break
            if port in spared:
                continue
            try:
                opened.append(
                    _kept(ours, address, port, Role.SENDS)
                    or open_udp(address, port, fwmark, encapsulation=encapsulation, role=Role.SENDS)
                )
            except HostError as error:
                if getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
                    raise
    except BaseException:
        _close_new(opened, ours)
        raise
    if not opened:
        raise HostError(
            f"no UDP port from 49152 is free on {address} to send from: `ss -lunp` shows what uses them"
        )
    return opened


def _set_receive_buffer(udp: socket.socket, role: Role) -> None:
    """Set how much may wait to be read."""
    if role == Role.SENDS:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SENDER_BUFFER)
    else:
        size = HANDSHAKE_BUFFER if role == Role.HANDSHAKES else BUFFER
        enlarge(udp, SO_RCVBUFFORCE, socket.SO_RCVBUF, size)


def _is_ipv6_missing(error: HostError) -> bool:
    return getattr(error.__cause__, "errno", None) in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


def _bind_refused(address: IPAddress, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"UDP port {port} is taken by another program: choose another port, "
                "or stop it (ss -lunp shows which)"
            )
        case errno.EADDRNOTAVAIL | errno.ENODEV | errno.ENXIO:
            return f"{address} is not an address of this host: correct listen in the peers file"
        case _ if not port:
            return f"a raw socket could not be opened on {address}: {error.strerror}"
        case errno.EACCES | errno.EPERM:
            return (
                f"UDP port {port} needs CAP_NET_BIND_SERVICE: {advice.gain(Capability.NET_BIND_SERVICE)}, "
                "or choose a port from 1024"
            )
        case _:
            return f"UDP port {port} could not be opened on {address}: {error.strerror}"
