"""ICMP errors from hosts on the path about datagrams that did not reach a peer, collected while peers are asked.

Nothing is sent.  A user who may not open raw sockets gets no errors.
"""

from __future__ import annotations

import contextlib
import select
import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay.cli.unanswered import one_way
from overlay.diagnosis.finding import Finding
from overlay.host.sockets.icmp_errors import open_error_sockets
from overlay.wire.addresses import format_sockaddr
from overlay.wire.icmp_errors import Hint, IcmpError
from overlay.wire.ip import PROTOCOL_UDP
from overlay.wire.returned import Returned

if TYPE_CHECKING:
    from overlay.cli.agents import PeerAnswer

# Specification: RFC 792, RFC 4443: port unreachable, by IP version
PORT_UNREACHABLE = {(4, 3, 3), (6, 1, 4)}
# What Linux reports for an IP protocol that none of its tunnels accepts; the latter if another of its tunnels uses it
NOT_TAKEN = {(4, 3, 2), (6, 4, 1), *PORT_UNREACHABLE}

# Ours
LARGEST = 2048  # bytes of an ICMP message that are examined
MOST = 1000  # errors that are kept; the rest of a flood is lost


@dataclass(frozen=True, slots=True)
class IcmpRefusal:
    """An ICMP error and its sender."""

    sender: str
    error: IcmpError


@dataclass(slots=True)
class IcmpRefusals:
    """The last error for each endpoint: ``192.0.2.2:51820``, or only the address if the tunnel has no ports."""

    sockets: list[socket.socket] = field(default_factory=open_error_sockets)
    by_endpoint: dict[str, IcmpRefusal] = field(default_factory=dict)

    def hear(self, seconds: float) -> None:
        """Take what arrives in the next *seconds*; return as soon as something has."""
        for opened in select.select(self.sockets, [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                message, sender = opened.recvfrom(LARGEST)
                self.take(message, 4 if opened.family == socket.AF_INET else 6, sender[0])

    def take(self, message: bytes, version: int, sender: str) -> None:
        """Take an ICMP *message* of an IP *version* as a raw socket receives it: any bytes."""
        if version == 4 and message:  # with its IP header
            message = message[(message[0] & 15) * 4 :]
        returned = Returned.parse(message, version)
        if returned is None or len(self.by_endpoint) >= MOST:
            return
        host = str(ip_address(returned.destination))
        refusal = IcmpRefusal(sender.partition("%")[0], IcmpError(version, message[0], message[1]))
        if returned.protocol != PROTOCOL_UDP:
            self.by_endpoint[host] = refusal
        elif len(returned.payload) >= 4:
            port = int.from_bytes(returned.payload[2:4], "big")
            self.by_endpoint[format_sockaddr((host, port) if version == 4 else (host, port, 0, 0))] = refusal

    def close(self) -> None:
        """Close the sockets."""
        for each in self.sockets:
            each.close()

    def explain(self, answer: PeerAnswer) -> Finding | None:
        """Return the error about a peer that does not answer; None if there was none."""
        refusal = self.by_endpoint.get(answer.endpoint or "")
        return None if refusal is None else describe(answer, refusal)


def describe(answer: PeerAnswer, refusal: IcmpRefusal) -> Finding:
    """Return the finding that *refusal* leads to."""
    error, sender, name, endpoint = refusal.error, refusal.sender, answer.name, answer.endpoint
    problem = f'{name} does not answer, and {sender} reports "{error}" for datagrams to {endpoint}'
    said = error.version, error.kind, error.code
    place = "with `wg set`" if answer.is_bare else "in the peers file"  # where the endpoint is corrected
    alike = f"write the encapsulation, which is {answer.encapsulation} here, in its peers file, too, if that differs"
    if said in NOT_TAKEN and sender == endpoint:  # without a port: an IP protocol of its own
        if answer.last_received is not None:
            return one_way(answer, problem)
        carried = answer.carried_by
        remedy = f"set up the tunnel on the host of {name}, {alike}, or let {carried} in if a firewall there rejects it"
        return Finding("tunnel_absent", problem, remedy, name)
    if said in PORT_UNREACHABLE:
        start = f"start WireGuard at {name}" if answer.is_bare else f"start the agent of {name}"
        more = "" if answer.is_bare else f", {alike}"
        remedy = (
            f"{start}, correct the port of its endpoint {place} if it listens on another{more}, or let that port in if "
            "a firewall there rejects it"
        )
        return Finding("port_closed", problem, remedy, name)
    match error.hint:
        case Hint.FILTERED:
            return Finding(
                "peer_filtered",
                problem,
                f"let {answer.carried_by} pass in the packet filter of {sender}",
                name,
            )
        case Hint.ABSENT:
            remedy = (
                f"see whether the host of {name} is up and has that address, or correct its endpoint {place}"
            )
            return Finding("host_absent", problem, remedy, name)
        case Hint.NO_ROUTE | Hint.LOOP:
            return Finding(
                "way_lost",
                problem,
                f"correct the routes of {sender}, or the endpoint {place}",
                name,
            )
        case _:
            return Finding("peer_filtered", problem, f"see the configuration of {sender}", name)
