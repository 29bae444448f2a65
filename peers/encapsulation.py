"""The encapsulations as the peers file knows them: a row of facts for each, and the rule by which both ends choose one.

A tunnel's encapsulation is the one named at either of its peers, else the network's.  Where both name one and they
differ, it is the encrypted one if one of them is, so that encryption is never lost to another peer's line, and the
network's otherwise.

How an encapsulation makes and reads its payloads is in ``overlay.encap``, by the same name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Port:
    """The UDP port of an encapsulation: the *key* under [network] that sets it, and what it is by *default*."""

    key: str
    default: int


@dataclass(frozen=True, slots=True)
class Identifier:
    """The number by which both ends of a tunnel know it.

    *key* sets it under [network], and at a peer if peers have that key; without it there is no number, or the *default*
    of the field in Network.  *name* is what people call the number, and *largest* the largest there is.
    """

    key: str
    name: str
    largest: int


@dataclass(frozen=True, slots=True)
class EncapsulationFacts:
    """What is known of an encapsulation without looking at packets.

    Without a *port* it is an IP protocol of its own.  *carries_frames* tells whether a tap's Ethernet frames can travel
    in it, and *has_macs* whether a tun's packets travel in frames too, so that each end has an Ethernet address.
    """

    name: str
    port: Port | None = None
    is_encrypted: bool = False
    identifier: Identifier | None = None
    carries_frames: bool = False
    has_macs: bool = False


WIREGUARD, UDP, IPIP, GRE = "wireguard", "udp", "ipip", "gre"

GRE_KEY = Identifier("gre_key", "GRE key", 2**32 - 1)  # RFC 2890 section 2.1
VNI = Identifier("vni", "VNI", 2**24 - 1)  # RFC 7348 section 5, RFC 8926 section 3.4

FACTS = {
    each.name: each
    for each in (
        # The port that WireGuard's documents use
        EncapsulationFacts(WIREGUARD, Port("port", 51820), is_encrypted=True, carries_frames=True),
        # The port of flannel's udp backend
        EncapsulationFacts(UDP, Port("udp_port", 8285)),
        EncapsulationFacts(IPIP),
        EncapsulationFacts(GRE, identifier=GRE_KEY),
        # RFC 7348 section 5; older Linux and flannel take 8472
        EncapsulationFacts(
            "vxlan", Port("vxlan_port", 4789), identifier=VNI, carries_frames=True, has_macs=True
        ),
        # RFC 8926 section 3.3
        EncapsulationFacts(
            "geneve", Port("geneve_port", 6081), identifier=VNI, carries_frames=True, has_macs=True
        ),
    )
}
"""All encapsulations, by name."""

ENCAPSULATIONS = tuple(FACTS)
PORTS = {name: each.port for name, each in FACTS.items() if each.port is not None}
"""The ports of those that have one, by name."""

# Ours
DEFAULT_VNI = 1  # as flannel


def is_encrypted(encapsulation: str) -> bool:
    """Return whether only the two ends can read and make what *encapsulation* carries."""
    return FACTS[encapsulation].is_encrypted


def has_ports(encapsulation: str) -> bool:
    """Return whether *encapsulation* travels in UDP datagrams; else it is an IP protocol of its own."""
    return encapsulation in PORTS


def resolve(one: str | None, other: str | None, network: str) -> str:
    """Return the encapsulation of a tunnel whose ends name *one* and *other*; None names nothing."""
    if one is None or other is None or one == other:
        return one or other or network
    return next((each for each in (one, other) if FACTS[each].is_encrypted), network)
