"""How packets travel between two peers, by name, and the rule by which both ends decide it alike.

A tunnel's encapsulation is the one named at either of its peers, else the network's.  Where both name one and they
differ, it is ``wireguard`` if one of them says so, for encryption is never lost to somebody else's line, and the
network's otherwise.  ``wireguard`` alone encrypts.
"""

from __future__ import annotations

WIREGUARD, UDP, IPIP, GRE, VXLAN = "wireguard", "udp", "ipip", "gre", "vxlan"
ENCAPSULATIONS = (WIREGUARD, UDP, IPIP, GRE, VXLAN)

# Specification
MOST_GRE_KEY = 2**32 - 1  # RFC 2890 section 2.1
MOST_VNI = 2**24 - 1  # RFC 7348 section 5
DEFAULT_VXLAN_PORT = 4789  # RFC 7348 section 5; Linux alone and flannel take 8472
DEFAULT_UDP_PORT = 8285  # that of flannel's udp backend

# Ours
DEFAULT_VNI = 1  # as flannel


def is_encrypted(encapsulation: str) -> bool:
    """Return whether what *encapsulation* carries can be read and made by its two ends alone."""
    return encapsulation == WIREGUARD


def has_ports(encapsulation: str) -> bool:
    """Return whether *encapsulation* travels in UDP datagrams; else it is an IP protocol of its own."""
    return encapsulation not in {IPIP, GRE}


def resolve(one: str | None, other: str | None, network: str) -> str:
    """Return the encapsulation of a tunnel whose ends name *one* and *other*; None is nothing named."""
    if one is None or other is None or one == other:
        return one or other or network
    return WIREGUARD if WIREGUARD in {one, other} else network
