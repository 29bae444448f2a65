"""Lanes of a session: keys of their own for each processor that packets take at both ends.  Version 1.

Two agents of this project use them inside and beside WireGuard's messages, once both have said in a hello (``control``)
under the same keypair how many *lanes* they have: 1, 2, 4 or 8.  The session has as many as the one that has fewer.
Lane 0 is the session itself, as WireGuard has it.  To anybody else nothing is ever sent by another.

Lane n, from 1 on, is a keypair in addition to that of the session:

- Its receiver index at either end is that of the session, with n put into its three lowest bits by exclusive or.  A
  node that has lanes draws no two indices that differ in these bits alone.
- Each of its keys, those of transport messages and of bulk units (``bulk``), in either direction and for each cipher,
  is

    KDF1(the key of the session, "overlay lane v1 " || n as one byte)

  (whitepaper section 5.4 has KDF1).
- It has counters and replay windows of its own.  Times and limits are those of the session, with which it is wiped.

What its sender knows of the receiver by the hello of the session holds for every lane.

Ports.  Lane n sends from a UDP port of its own to the address and port where the session's messages go, so that queues
and paths between the two can tell lanes apart, and merge no datagrams of two.  The receiver takes what comes by
whatever port, and sends to none of them but to where the session's own messages come from.  So nobody has to open a
port for lanes, and NAT does no harm.  A lane that comes from another host, and was at that of the session when a probe
of it was answered, tells that the peer has moved there, and that it has kept its port.

Probes.  A lane carries packets only after a probe (``control``), sent by it, has been answered; the probed comes under
the keypair of the lane, from the port of the session to the port of the session.  Only a probe from the host that the
session is at is answered: some NATs give ports of one host different addresses.  While packets flow this is repeated.
A lane whose probes are not answered is given up for a while, and its packets go by the session as without lanes.  A
session that follows another in time begins with the lanes that carried packets last, so that no flow changes its lane.
"""

from __future__ import annotations

# Specification (this document)
LANES = 8  # that there are at most: a power of two, of the three lowest bits of an index
KEY_LABEL = b"overlay lane v1 "


def key_label(lane: int) -> bytes:
    """Return the label under which a key of *lane* is derived."""
    return KEY_LABEL + bytes([lane])


def index_of(index: int, lane: int) -> int:
    """Return the index of *lane* of the session that has *index*."""
    return index ^ lane


def in_common(one: int, other: int) -> int:
    """Return how many lanes a session has between nodes that have so many, whatever they say; 1 for what is none."""
    number = min(one, other, LANES)
    return 1 << number.bit_length() - 1 if number > 0 else 1
