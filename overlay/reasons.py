"""Every reason for dropping a packet: its name, what it says about the packet, and where to look for the cause.

Counting a packet under a name that is not here fails an assertion, so a new reason is a line in this file.
docs/drops.md is generated from it.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

Buffer = bytes | bytearray | memoryview


class Cause(enum.Enum):
    """Where to look first for the cause of a dropped packet."""

    HERE = "this node: its configuration, its routes or its load"
    SENDER = "the program that sent the packet into the tunnel"
    PEER = "the peer: its configuration, its subnets, or what it runs"
    WAY = "the network between the two hosts"
    STRANGER = "a sender that is not a peer, or mistakes this node for another"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why packets are dropped.  *sentence* continues "the packet"."""

    name: str
    cause: Cause
    sentence: str


_HERE, _SENDER, _PEER, _WAY, _STRANGER = Cause

_ROWS = (
    # Out of the tunnel's interface
    ("no_peer", _SENDER, "was for an overlay address that no peer has"),
    ("tun_multicast", _SENDER, "was for a multicast group or a broadcast address, which a tun does not carry"),
    ("own_subnet", _HERE, "was for this node's own subnets but entered the tunnel: a local route is missing"),
    ("no_endpoint", _HERE, "was for a peer whose address is unknown: it has no endpoint, or its name does not resolve"),
    ("given_up", _PEER, "was for a peer that did not answer for 90 seconds"),
    ("staging_full", _SENDER, "waited for a handshake, and was displaced by newer packets"),
    ("loop", _HERE, "was one of this node's own datagrams, which a route led back into the tunnel it came from"),
    ("path_mtu", _SENDER, "exceeds the path MTU to the peer and must not be fragmented; the sender was sent an ICMP error"),
    ("ttl", _SENDER, "had no TTL left when it was to be encapsulated"),
    ("tun_gso", _HERE, "came from the kernel as a super-packet of an unknown kind"),
    ("tun_malformed", _SENDER, "came from the kernel but is not an IP packet, or is truncated"),
    ("tun_overrun", _HERE, "was sent into the tunnel's interface while its queue was full"),
    ("send_full", _WAY, "was for a peer whose path is overloaded: the peer's share of the send buffer was full"),
    ("send_refused", _HERE, "was refused by the kernel as a datagram: there is no route to the endpoint, or a packet filter forbids it"),
    ("too_big", _WAY, "was refused by the kernel because its datagram exceeds the path MTU"),
    # Into the tunnel's interface
    ("source", _PEER, "came from the peer, but its source is not in the peer's subnets"),
    ("inner_short", _PEER, "came from the peer, but is shorter than an IP header"),
    ("inner_length", _PEER, "came from the peer, but its IP length differs from what arrived"),
    ("inner_version", _PEER, "came from the peer, but is neither IPv4 nor IPv6"),
    ("ecn", _WAY, "arrived in a datagram marked as congested, but does not support such marks itself (RFC 6040)"),
    ("udp_merged", _WAY, "is UDP that a network card merged in a way that cannot be undone"),
    ("tun_full", _HERE, "arrived faster than this host's kernel accepts packets from the tunnel"),
    ("tun_refused", _HERE, "was refused by this host's kernel: the interface is down, or the packet is malformed"),
    # Sealed messages
    ("replay", _WAY, "arrived twice, or far too late"),
    ("transport_auth", _STRANGER, "failed authentication: it was forged, or damaged on the way"),
    ("transport_short", _STRANGER, "was a message too short to contain a packet"),
    ("unknown_index", _PEER, "belongs to a session that this node does not have, for example after a restart"),
    ("keypair_expired", _PEER, "was sealed under an expired key"),
    ("unknown_type", _STRANGER, "is not a message of the protocol"),
    ("oversized", _STRANGER, "was a datagram larger than any message"),
    ("udp_error", _WAY, "is not a packet: an ICMP error arrived for a datagram sent earlier"),
    ("udp_filtered", _STRANGER, "was dropped by a filter in the kernel: it does not begin like a message, belongs to no session of this node, for example after a restart, or was one handshake message too many; several merged packets count as one"),
    ("receive_full", _HERE, "arrived while the socket's receive buffer was full, or with a wrong UDP checksum; several merged packets count as one"),
    ("crowded", _PEER, "came while more arrived than this node can handle: from a peer that sent more than its share, or, if no peer is named, from elsewhere under a peer's session number"),
    # Bulk units and in-band messages
    ("fragment_short", _PEER, "was a fragment of a bulk unit without content"),
    ("fragment_header", _PEER, "was a fragment of a bulk unit that contradicts the other fragments"),
    ("fragment_size", _PEER, "was a fragment of a bulk unit with another size than the other fragments"),
    ("unit_incomplete", _WAY, "was a bulk unit of which fragments were lost"),
    ("unit_auth", _STRANGER, "was a bulk unit that failed authentication"),
    ("unit_short", _PEER, "was a bulk unit too short to contain a packet"),
    ("unit_meta", _PEER, "was a bulk unit whose description does not match its packet"),
    ("unit_packet", _PEER, "was a bulk unit that does not contain a super-packet"),
    ("unit_unexpected", _PEER, "was a bulk unit, although this node has not announced that it accepts them"),
    ("control", _PEER, "was a malformed in-band message"),
    ("control_rate", _PEER, "was an in-band message beyond fifteen hundred per second from one peer, or a hundred of those that are for the agent"),
    ("control_foreign", _PEER, "was an in-band message about a service, and its sender is not a director of it according to this node's peers file"),
    ("ping_rate", _PEER, "was an in-band ping beyond a thousand per second"),
    ("pong_unexpected", _PEER, "was an unexpected answer to an in-band ping"),
    ("probe_rate", _PEER, "was a path MTU probe beyond a hundred per second"),
    ("probed_unexpected", _PEER, "was an unexpected answer to a path MTU probe"),
    # Handshakes
    ("mac1", _STRANGER, "was a handshake message for a public key other than this node's"),
    ("initiation_size", _STRANGER, "was a handshake initiation of the wrong size"),
    ("initiation_type", _STRANGER, "was a handshake initiation with bits set that must be zero"),
    ("initiation_static", _STRANGER, "was a handshake initiation that was not made for this node, or is damaged"),
    ("initiation_timestamp", _STRANGER, "was a handshake initiation whose sender does not have the key it names"),
    ("initiation_unknown_peer", _STRANGER, "was a handshake initiation with a key that no peer has"),
    ("initiation_replayed", _PEER, "was a handshake initiation no newer than the last one: a copy, or the peer's clock was set back"),
    ("initiation_flood", _PEER, "was a handshake initiation too soon after the last one"),
    ("response_size", _STRANGER, "was a handshake response of the wrong size"),
    ("response_type", _STRANGER, "was a handshake response with bits set that must be zero"),
    ("response_index", _WAY, "was a handshake response that this node no longer waits for: it came late, or both ends had called each other at the same time, which happens when they start"),
    ("response_seal", _PEER, "was a handshake response that cannot be opened: the preshared keys differ, or it is damaged"),
    ("cookie_size", _STRANGER, "was a cookie reply of the wrong size"),
    ("cookie_type", _STRANGER, "was a cookie reply with bits set that must be zero"),
    ("cookie_index", _STRANGER, "was a cookie reply for a handshake that this node does not have"),
    ("cookie_seal", _STRANGER, "was a cookie reply that cannot be opened"),
    ("cookie_unexpected", _STRANGER, "was an unexpected cookie reply"),
    ("low_order_point", _STRANGER, "was a handshake message with a public key that yields no shared secret"),
    ("handshake_type", _STRANGER, "was passed on as a handshake message but is not one"),
    ("handshake_under_load", _HERE, "was a handshake message without a cookie while this node was busy"),
    ("handshake_rate", _PEER, "was a handshake message beyond the rate for its address while this node was busy"),
    ("handshake_queue", _HERE, "was a handshake message while too many others waited"),
    # Unencrypted encapsulations
    ("outer_source", _STRANGER, "arrived unencrypted, but not from the endpoint of a peer with that encapsulation"),
    ("gre_key", _PEER, "came from the peer's endpoint with another GRE key than the tunnel's"),
    ("gre_short", _PEER, "was too short for a GRE header"),
    ("gre_version", _PEER, "had a GRE version other than 0"),
    ("gre_flags", _PEER, "had GRE flags set that must be zero (RFC 2784 section 2.2)"),
    ("gre_protocol", _PEER, "arrived in GRE but is not an IP packet, or has another IP version than the header says"),
    ("gre_checksum", _WAY, "arrived in GRE with a wrong checksum"),
    ("gre_sequence", _WAY, "arrived in GRE after a packet that was sent later"),
    ("vni", _PEER, "came from the peer's endpoint with another VXLAN or Geneve network identifier than the tunnel's"),
    ("vxlan_short", _PEER, "was too short for VXLAN and Ethernet headers"),
    ("vxlan_flags", _PEER, "arrived in VXLAN without a network identifier"),
    ("geneve_short", _PEER, "was too short for Geneve and Ethernet headers"),
    ("geneve_version", _PEER, "had a Geneve version other than 0"),
    ("geneve_control", _PEER, "was a Geneve control message, which this node does not support"),
    ("geneve_critical", _PEER, "had critical Geneve options, which this node does not support (RFC 8926 section 3.5)"),
    ("geneve_protocol", _PEER, "arrived in Geneve but is not an Ethernet frame"),
    # Ethernet frames
    ("mac", _PEER, "was in a frame to another Ethernet address, or from one that the peers file gives to another peer"),
    ("multicast", _PEER, "was in a multicast frame, which a tun cannot use"),
    ("vlan", _PEER, "was in a frame with a VLAN tag, which a tun cannot use"),
    ("ethertype", _PEER, "was a frame without an IP packet, which a tun cannot use"),
    ("neighbour", _PEER, "asked for an address that is not here, or claimed one that the peers file gives to another peer"),
    ("frame", _PEER, "was an Ethernet frame, but this node has a tun"),
    ("no_frame", _PEER, "was not an Ethernet frame, but this node has a tap"),
    ("frame_short", _PEER, "was a frame shorter than its header"),
    ("frame_padding", _PEER, "was a frame that claims more padding than it has"),
    ("frame_source", _PEER, "was a frame whose source is not the address of one station"),
    ("frame_loop", _HERE, "was a frame that had been sent from here: bridges form a loop"),
    ("flood", _SENDER, "was a broadcast, or to an unknown Ethernet address, beyond the limit"),
    ("own_side", _SENDER, "was a frame to a station on the side of the tap that it came from"),
    ("stations_full", _PEER, "is not a packet: an Ethernet address was forgotten to make room for another, because there are more than `stations`"),
    # Virtual services
    ("service_port", _SENDER, "was for a port of a virtual address that no service has; TCP was answered with a reset, all else with an ICMP error"),
    ("service_protocol", _SENDER, "was for a virtual address, but is neither TCP nor UDP nor SCTP nor an echo request"),
    ("service_empty", _HERE, "was for a service none of whose servers takes new flows; TCP was answered with a reset, all else with an ICMP error"),
    ("service_gone", _HERE, ("belonged to a flow whose server was removed, disabled or found down; TCP was answered "
        "with a reset")),
    ("service_unknown", _SENDER, ("was TCP for a service, but belonged to no known connection; it was answered with a "
        "reset")),
    ("service_rate", _SENDER, "began a flow beyond the limit of new flows per second of its service"),
    ("service_full", _SENDER, "began a flow while its service had the maximum number of flows"),
    ("service_preparing", _HERE, ("was for a service whose table of servers was not ready yet, or belonged to a "
        "connection that, just after the start, other directors may still report")),
    ("service_fragment", _WAY, "was a fragment for a virtual address, and the first of its fragments did not come in time, or too many waited for theirs"),
    ("service_icmp", _WAY, "was an ICMP message to a virtual address that is not about one of its flows"),
    # Answers to `overlay ping`
    ("not_echo", _WAY, "is not an answer to an ICMP echo request, so `overlay ping` ignores it"),
    # VRRP
    ("vrrp_form", _PEER, "was not a whole VRRP advertisement"),
    ("vrrp_ttl", _STRANGER, "was a VRRP advertisement that did not come from this link: its TTL is not 255"),
    ("vrrp_source", _STRANGER, ("was a VRRP advertisement from an address of this node, or not from one of the "
        "configured routers")),
    ("vrrp_version", _PEER, "was a VRRP advertisement of another version than this node's"),
    ("vrrp_checksum", _WAY, "was a VRRP advertisement with a wrong checksum"),
    ("vrrp_password", _PEER, "was a VRRP advertisement with another password than this node's"),
    ("vrrp_interval", _PEER, "was a VRRP advertisement with another interval than this node's, which version 2 does not allow"),
    # Between agent and forwarder
    ("link", _HERE, "was malformed between agent and forwarder: please report this"),
    ("link_full", _HERE, "was a report of the forwarder that the agent was too busy to accept"),
)  # fmt: skip

REASONS = {name: Reason(name, cause, sentence) for name, cause, sentence in _ROWS}
"""All reasons by name."""


class DropWatch(Protocol):
    """Receives dropped packets while a capture runs."""

    def __call__(
        self, reason: str, count: int, packet: Buffer | None = None, datagram: Buffer | None = None
    ) -> None:
        """Record that *count* packets were dropped, of which this is one; the kept bytes are copied."""


class Drops(Counter[str]):
    """Dropped packets, by reason.  Counting under a name that is not in REASONS is a bug, and fails an assertion."""

    watch: DropWatch | None = None
    leader: Drops | None = None
    """The watch of *leader* receives these drops, too."""

    def add(
        self, reason: str, count: int = 1, packet: Buffer | None = None, datagram: Buffer | None = None
    ) -> None:
        """Count *count* dropped packets, of which *packet* is one, or *datagram* if it was not opened."""
        self[reason] += count
        if (watch := self._watch()) is not None:
            watch(reason, count, packet, datagram)

    def add_each(self, reason: str, items: Sequence[T], datagram: Callable[[T], Buffer]) -> None:
        """Count each of *items*, whose bytes *datagram* returns, as dropped before it was opened."""
        self[reason] += len(items)
        if (watch := self._watch()) is not None:
            for item in items:
                watch(reason, 1, None, datagram(item))

    def _watch(self) -> DropWatch | None:
        return self.watch if self.leader is None else self.leader._watch()

    def __missing__(self, name: str) -> int:
        """Return 0 for a reason without drops."""
        assert name in REASONS, name
        return 0


def as_markdown() -> str:
    """Return the table of docs/drops.md, in the order of the registry."""
    rows = (f"| `{each.name}` | {each.sentence} | {each.cause.value} |" for each in REASONS.values())
    return "\n".join(["| reason | the packet | where to look |", "|---|---|---|", *rows, ""])
