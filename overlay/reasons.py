"""Every reason for which a packet is dropped: its name, what it says of the packet, and where to look for the cause.

Whoever counts a packet under a name that is not here fails an assertion, so a new reason is a line in this file.
docs/drops.md is made from it.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass


class Cause(enum.Enum):
    """Where the cause of a drop is looked for first."""

    HERE = "this node: its configuration, its routes or its load"
    SENDER = "who sent the packet into the tunnel"
    PEER = "the peer: its configuration, its subnets, or what it runs"
    WAY = "the network between the two"
    STRANGER = "somebody who is no peer, or takes this node for another"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why packets are dropped.  *sentence* goes on where "the packet" begins."""

    name: str
    cause: Cause
    sentence: str


_HERE, _SENDER, _PEER, _WAY, _STRANGER = Cause

_ROWS = (
    # Out of the tunnel's interface
    ("no_peer", _SENDER, "was for an address of the overlay that no peer has"),
    ("own_subnet", _HERE, "was for this node's own subnets and yet came into the tunnel: a local route is missing"),
    ("no_endpoint", _HERE, "was for a peer whose address is not known: it has no endpoint, or its name does not resolve"),
    ("given_up", _PEER, "was for a peer that did not answer for 90 seconds"),
    ("staging_full", _SENDER, "waited for a handshake, and newer ones took its place"),
    ("loop", _HERE, "was a datagram of this node's own that a route led back into the tunnel it came from"),
    ("path_mtu", _SENDER, "is larger than the path to the peer takes and must not be cut; its sender was told"),
    ("ttl", _SENDER, "had no TTL left, and would have been encapsulated"),
    ("tun_gso", _HERE, "came from the kernel as a super-packet of a kind that is not understood"),
    ("tun_malformed", _SENDER, "came from the kernel and is not an IP packet, or ends too early"),
    ("tun_overrun", _HERE, "was to leave by the tunnel's interface while too much waited there to be read"),
    ("send_full", _WAY, "was for a peer whose way takes less than what was to be sent: its share of the send buffer was full"),
    ("send_refused", _HERE, "was refused by the kernel as a datagram: no route leads to the endpoint, or a packet filter forbids it"),
    ("too_big", _WAY, "was refused by the kernel: its datagram is larger than the way takes"),
    # Into the tunnel's interface
    ("source", _PEER, "came from the peer, but its source is not one of the peer's subnets"),
    ("inner_short", _PEER, "came from the peer, but is shorter than an IP header"),
    ("inner_length", _PEER, "came from the peer, but its IP length is not what arrived"),
    ("inner_version", _PEER, "came from the peer, but is neither IPv4 nor IPv6"),
    ("ecn", _WAY, "came marked as congested, but takes no mark itself (RFC 6040)"),
    ("udp_merged", _WAY, "was UDP that a network card joined beyond what can be told apart again"),
    ("tun_full", _HERE, "was to enter this host faster than its kernel took packets"),
    ("tun_refused", _HERE, "was refused by the kernel when it was to enter this host: the interface is down, or the packet malformed"),
    # Sealed messages
    ("replay", _WAY, "arrived twice, or far too late"),
    ("transport_auth", _STRANGER, "failed authentication: it was forged, or damaged on the way"),
    ("transport_short", _STRANGER, "was a message too short to hold a packet"),
    ("transport_type", _STRANGER, "was a message whose type is not that of a packet"),
    ("unknown_index", _PEER, "belongs to a session that this node does not have, as after a restart"),
    ("keypair_expired", _PEER, "came under a key whose time was over"),
    ("unknown_type", _STRANGER, "is not a message of the protocol"),
    ("oversized", _STRANGER, "was a datagram larger than any message"),
    ("udp_error", _WAY, "is not one: an ICMP error arrived for a datagram sent earlier"),
    ("udp_filtered", _STRANGER, "begins as no message does, is for no session of this node, or was one handshake message too many, and the kernel dropped it; of merged ones it counts one"),
    ("receive_full", _HERE, "came while too much waited at the socket to be read; of merged ones it counts one"),
    # Bulk units and in-band messages
    ("fragment_short", _PEER, "was a piece of a bulk unit without content"),
    ("fragment_header", _PEER, "was a piece of a bulk unit that contradicts the others"),
    ("fragment_size", _PEER, "was a piece of a bulk unit of another size than the others"),
    ("unit_incomplete", _WAY, "was a bulk unit of which pieces got lost"),
    ("unit_auth", _STRANGER, "was a bulk unit that failed authentication"),
    ("unit_short", _PEER, "was a bulk unit too short to hold a packet"),
    ("unit_meta", _PEER, "was a bulk unit that claims what its packet does not bear out"),
    ("unit_packet", _PEER, "was a bulk unit that holds no super-packet"),
    ("unit_unexpected", _PEER, "was a bulk unit, which this node had not said that it takes"),
    ("control", _PEER, "was an in-band message that is malformed"),
    ("control_rate", _PEER, "was an in-band message, more than fifteen hundred in a second from one peer"),
    ("ping_rate", _PEER, "was an in-band ping, more than a thousand in a second"),
    ("pong_unexpected", _PEER, "was an answer to an in-band ping that nobody waits for"),
    ("probe_rate", _PEER, "was a probe of the path's MTU, more than a hundred in a second"),
    ("probed_unexpected", _PEER, "was an answer to a probe of the path's MTU that nobody waits for"),
    # Handshakes
    ("mac1", _STRANGER, "was a handshake message for another public key than this node's"),
    ("initiation_size", _STRANGER, "was a first handshake message of the wrong size"),
    ("initiation_type", _STRANGER, "was a first handshake message with bits set that must be zero"),
    ("initiation_static", _STRANGER, "was a first handshake message that was not made for this node, or is damaged"),
    ("initiation_timestamp", _STRANGER, "was a first handshake message of somebody who does not have the key that it names"),
    ("initiation_unknown_peer", _STRANGER, "was a first handshake message of a key that no peer has"),
    ("initiation_replayed", _PEER, "was a first handshake message that is no newer than the last: a copy, or the peer's clock was set back"),
    ("initiation_flood", _PEER, "was a first handshake message that followed the last too soon"),
    ("response_size", _STRANGER, "was an answer to a handshake of the wrong size"),
    ("response_type", _STRANGER, "was an answer to a handshake with bits set that must be zero"),
    ("response_index", _PEER, "was an answer to a handshake that this node does not wait for"),
    ("response_seal", _PEER, "was an answer to a handshake that cannot be opened: preshared keys differ, or it is damaged"),
    ("cookie_size", _STRANGER, "was a cookie of the wrong size"),
    ("cookie_type", _STRANGER, "was a cookie with bits set that must be zero"),
    ("cookie_index", _STRANGER, "was a cookie for a handshake that this node does not have"),
    ("cookie_seal", _STRANGER, "was a cookie that cannot be opened"),
    ("cookie_unexpected", _STRANGER, "was a cookie that nobody waits for"),
    ("low_order_point", _STRANGER, "was a handshake message with a public key that makes no secret"),
    ("handshake_type", _STRANGER, "was handed over as a handshake message and is none"),
    ("handshake_under_load", _HERE, "was a handshake message without a cookie while this node was busy"),
    ("handshake_rate", _PEER, "was one handshake message too many from its address while this node was busy"),
    ("handshake_queue", _HERE, "was a handshake message while too many waited"),
    # Encapsulations in the clear
    ("outer_source", _STRANGER, "came in the clear, and not from the endpoint of a peer of that encapsulation"),
    ("gre_key", _PEER, "came from the peer's endpoint with another GRE key than the tunnel's"),
    ("gre_short", _PEER, "was too short for its GRE header"),
    ("gre_version", _PEER, "came with a GRE version other than 0"),
    ("gre_flags", _PEER, "came with GRE flags that must be zero (RFC 2784 section 2.2)"),
    ("gre_protocol", _PEER, "came in GRE and is not an IP packet, or of another version than the header says"),
    ("gre_checksum", _WAY, "came in GRE with a checksum that is wrong"),
    ("gre_sequence", _WAY, "came in GRE after one that was sent later"),
    ("vni", _PEER, "came from the peer's endpoint with another VXLAN network identifier than the tunnel's"),
    ("vxlan_short", _PEER, "was too short for its VXLAN and Ethernet headers"),
    ("vxlan_flags", _PEER, "came in VXLAN without a network identifier"),
    # Ethernet frames
    ("mac", _PEER, "was in a frame for another Ethernet address, or from one that the peers file gives to another"),
    ("multicast", _PEER, "was in a frame for a group, which a tun has no use for"),
    ("vlan", _PEER, "was in a frame of a VLAN, which a tun has no use for"),
    ("ethertype", _PEER, "was a frame that holds no IP packet, for a tun"),
    ("neighbour", _PEER, "asked for an address that is not here, or claims one that the peers file gives to another"),
    ("frame", _PEER, "was an Ethernet frame, and this node has a tun"),
    ("no_frame", _PEER, "was not an Ethernet frame, and this node has a tap"),
    ("frame_short", _PEER, "was a frame shorter than its header"),
    ("frame_padding", _PEER, "was a frame with more padding than there is"),
    ("frame_source", _PEER, "was a frame from a group address, or from none"),
    ("frame_loop", _HERE, "was a frame that had been sent from here: there is a loop of bridges"),
    ("flood", _SENDER, "was a broadcast, or for an unknown Ethernet address, beyond the bound"),
    ("own_side", _SENDER, "was a frame for a station on the side of the tap that it came from"),
    ("stations_full", _PEER, "is not one: an Ethernet address was forgotten for another, as there are more than `stations`"),
    # Answers to `overlay ping`
    ("not_echo", _WAY, "is not an answer to an ICMP echo request, and `overlay ping` passes it over"),
    # Between agent and forwarder
    ("link", _HERE, "was malformed between agent and forwarder: please report it"),
    ("link_full", _HERE, "was a report of the forwarder that the agent was too busy to take"),
)  # fmt: skip

REASONS = {name: Reason(name, cause, sentence) for name, cause, sentence in _ROWS}
"""All reasons by name."""


class Drops(Counter[str]):
    """Packets dropped, by reason.  Counting under a name that is not in REASONS is a bug, and fails an assertion."""

    def __missing__(self, name: str) -> int:
        """Return 0 for a reason that nothing was dropped for."""
        assert name in REASONS, name
        return 0


def as_markdown() -> str:
    """Return the table of docs/drops.md, in the order of the registry."""
    rows = (f"| `{each.name}` | {each.sentence} | {each.cause.value} |" for each in REASONS.values())
    return "\n".join(["| reason | the packet | where to look |", "|---|---|---|", *rows, ""])
