"""One virtual router of this node: the state machine of a group in one IP version, with its socket."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, assert_never

import trio

from overlay.errors import HostError, PacketError
from overlay.host.sockets.vrrp_sockets import VrrpSocket
from overlay.lan.memberships import effective_priority
from overlay.services.vrrp import Changed, RouterSettings, RouterState, Send, VirtualRouter
from overlay.wire.vrrp import Advertisement, link_local_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.host.netlink.lan_interfaces import Interface
    from overlay.host.plan import IPAddress
    from overlay.lan.memberships import Membership, Tracked
    from overlay.services.vrrp import Output

# Specification (RFC 4291 section 2.5.6)
LINK_LOCAL_START = bytes.fromhex("fe80000000000000")

# Ours
BATCH = 32  # advertisements in one turn; more wait, and far more are lost
LEAST_GAP = (
    0.1  # seconds between advertisements that answer another's: a flood must not be answered with a flood
)


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """The state of one virtual router.

    *since* is in seconds of the agent's clock.  *active* is the router that has the addresses, as far as is known.
    *reason* continues "because".  *refused* counts rejected advertisements, *unsent* those that could not be sent.
    """

    group: str
    version: int
    state: RouterState
    reason: str
    since: float
    priority: int
    active: IPAddress | None
    refused: dict[str, int]
    unsent: int


class Router:
    """The router of *member* in one IP version; look() starts it."""

    def __init__(
        self,
        member: Membership,
        version: int,
        changed: Callable[[Router], None],
        opened: Callable[[Router, VrrpSocket], None],
        now: float,
    ) -> None:
        """*changed* is called whenever `state` or `reason` change, *opened* with each socket to wait on."""
        self.member, self.version = member, version
        self.state, self.reason, self.since = RouterState.INITIALIZE, "it has not been started", now
        self.refused: Counter[str] = Counter()
        self.unsent = 0  # advertisements that could not be sent
        self.socket: VrrpSocket | None = None
        self._changed, self._opened = changed, opened
        self._key: tuple[object, ...] = ()  # what the socket was opened for
        self._machine = VirtualRouter(self._settings(), b"")
        self._machine.set_priority(0, self.reason, now)  # until look() has found an interface
        self._machine.start(now)
        self._reduced = ""
        self._spoke_at = -math.inf
        self._link_local = link_local_of(member.vrrp.router) if version == 6 else b""

    @property
    def is_active(self) -> bool:
        """Return whether this node has the addresses."""
        return self.state is RouterState.ACTIVE

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; infinity if never."""
        return self._machine.next_deadline()

    def look(self, member: Membership, interface: Interface | None, tracked: Tracked, now: float) -> None:
        """Apply *member*, the state of its interface, and what is tracked."""
        self.member = member
        own = self._own_address(interface)
        fault = self._fault(interface, own)
        priority, reason = (0, fault) if fault else effective_priority(member, tracked)
        if priority and interface is not None and own is not None:
            fault = self._open(interface, own)
            if fault:
                priority, reason = 0, fault
        self._reduced = reason if priority else ""
        self._do(self._machine.set_priority(priority, reason, now), now)
        if not priority:
            self._close()
            self._note(RouterState.INITIALIZE, reason, now)

    def receive(self, now: float) -> bool:
        """Read advertisements; return whether more may wait."""
        for _ in range(BATCH):
            if self.socket is None:
                return False
            try:
                received = self.socket.receive()
                if received is None:
                    return False
                heard = Advertisement.parse(received.payload, received.source, received.destination)
                ttl = None if self.member.vrrp.unicast else received.ttl
                outputs = self._machine.receive(heard, received.source, now, ttl)
                self._learn(heard)
            except PacketError as error:
                self.refused[error.reason] += 1
                continue
            self._do(outputs, now, is_answer=True)
        return True

    def handle_deadline(self, now: float) -> None:
        """Do what is due."""
        self._do(self._machine.handle_deadline(now), now)

    def stop(self, now: float) -> None:
        """Stop taking part; the others are informed immediately."""
        self._do(self._machine.stop(), now)
        self._close()

    def status(self) -> RouterStatus:
        """Return the state of the router."""
        active = self._machine.active
        return RouterStatus(
            self.member.name,
            self.version,
            self.state,
            self._reduced or self.reason,
            self.since,
            self._machine.priority,
            ip_address(active) if active else None,
            dict(self.refused),
            self.unsent,
        )

    # Its address, and its socket

    def _settings(self) -> RouterSettings:
        vrrp = self.member.vrrp
        addresses = tuple(each.packed for each in self.member.of_version(self.version))
        return RouterSettings(
            vrrp.version,
            vrrp.router,
            self.member.priority,
            vrrp.interval,
            addresses,
            vrrp.preempt,
            vrrp.preempt_delay,
            vrrp.password.encode() if vrrp.version == 2 else b"",
        )

    def _named(self) -> tuple[IPAddress, ...]:
        """Return the addresses of this IP version of the routers that the peers file names."""
        return tuple(each for each in self.member.vrrp.unicast if each.version == self.version)

    def _own_address(self, interface: Interface | None) -> IPAddress | None:
        """Return the source address of advertisements: this node's own in the file, otherwise the interface's first.

        For IPv6 by multicast it is link-local (RFC 9568 section 5.1.2.1).
        """
        if interface is None:
            return None
        own = [each for each in interface.addresses if each.version == self.version]
        named = [each for each in own if each in self._named()]
        if self.version == 6 and not self.member.vrrp.unicast:
            own = [each for each in own if each.is_link_local]
        return next(iter([*named, *own]), None)

    def _fault(self, interface: Interface | None, own: IPAddress | None) -> str:
        name = self.member.interface
        if self.version == 6 and self.member.vrrp.version == 2:
            return "version 2 of VRRP does not support IPv6"
        if interface is None:
            return f"{name} does not exist"
        if not interface.is_up:
            return f"{name} is down"
        if own is None:
            kind = "link-local IPv6" if self.version == 6 else "IPv4"
            return f"{name} has no {kind} address"
        if self.member.vrrp.unicast and not set(self._named()) - {own}:
            return f"`unicast` names no other router by an IPv{self.version} address"
        return ""

    def _open(self, interface: Interface, own: IPAddress) -> str:
        """Make the socket and the machine use the source *own*; return what prevents that."""
        settings = self._settings()
        self._machine.change(settings, own.packed)
        peers = tuple(each for each in self._named() if each not in interface.addresses)
        key = (interface.index, own, settings.router, peers)
        if self.socket is not None and key == self._key:
            return ""
        self._close()
        try:
            self.socket = VrrpSocket(interface.name, interface.index, own, settings.router, peers)
        except HostError as error:
            return str(error)
        self._key = key
        self._opened(self, self.socket)
        return ""

    def _close(self) -> None:
        if self.socket is not None:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
            self.socket = None

    # Outputs of the machine

    def _do(self, outputs: Iterable[Output], now: float, *, is_answer: bool = False) -> None:
        for output in outputs:
            match output:
                case Send():
                    self._send(output.advertisement, now, is_answer=is_answer)
                case Changed():
                    self._note(output.state, output.reason, now)
                case _:
                    assert_never(output)

    def _send(self, advertisement: Advertisement, now: float, *, is_answer: bool) -> None:
        gap = min(LEAST_GAP, advertisement.interval)
        if self.socket is None or (is_answer and 0 <= now - self._spoke_at < gap):
            return
        self._spoke_at = now
        if self._link_local:  # RFC 9568 section 5.2.9: the first is link-local
            addresses = (self._link_local, *advertisement.addresses)
            advertisement = dataclasses.replace(advertisement, addresses=addresses)
        for destination in self.socket.destinations:
            try:
                self.socket.send(advertisement.build(self.socket.own, destination), destination)
            except OSError:  # the link is going down, which look() will notice, or a peer's is
                self.unsent += 1

    def _learn(self, heard: Advertisement) -> None:
        """Take over the link-local address that others of the group advertise.

        keepalived refuses advertisements that lack one of its addresses.
        """
        if self.version == 6 and heard.addresses and heard.addresses[0].startswith(LINK_LOCAL_START):
            self._link_local = heard.addresses[0]

    def _note(self, state: RouterState, reason: str, now: float) -> None:
        if (state, reason) != (self.state, self.reason):
            if state is not self.state:
                self.since = now
            self.state, self.reason = state, reason
            self._changed(self)
