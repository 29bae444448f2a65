"""Lanes of a session: separate keys for each processor that carries packets at both ends.  Version 1.

Two agents of this project use them for WireGuard's messages and bulk units, once both have said in a hello
(``control``) under the same keypair how many *lanes* they have: 1, 2, 4 or 8. The session has as many as the agent with
fewer.  Lane 0 is the session itself, as in WireGuard.  To any other peer, nothing is ever sent through another lane.

Lane n, from 1 on, is a keypair in addition to that of the session:

- Its receiver index at either end is that of the session, with its three lowest bits XORed with n. A node that has
  lanes draws no two indices that differ only in these bits.
- Each of its keys, those of transport messages and of bulk units (``bulk``), in either direction and for each cipher,
  is

    KDF1(the key of the session, "overlay lane v1 " || n as one byte)

  (whitepaper section 5.4 has KDF1).
- It has counters and replay windows of its own.  Times and limits are those of the session, with which it is wiped.

The receiver's hello in the session applies to every lane.

Ports.  Lane n sends from a UDP port of its own to the address and port where the session's messages go, so that queues
and paths between the two can distinguish lanes, and do not merge datagrams of two.  The receiver accepts datagrams from
any port, but always sends to the source of the session's own messages.  So no additional port has to be open, and NAT
is not an obstacle.  If a lane comes from a new host, after a probe of it was answered at the host of the session, the
peer has moved there and kept its port.

Probes.  A lane carries packets only after a probe (``control``), sent by it, has been answered; the probed is sent
under the keypair of the lane, from the port of the session to the port of the session.  A probe is answered only if it
comes from the host of the session: some NATs map ports of one host to different addresses.  While packets flow this is
repeated.  A lane whose probes are not answered is given up for a while, and its packets go through the session as
without lanes.  A session that follows another without delay begins with the lanes that carried packets last, so that no
flow changes its lane.
"""

from __future__ import annotations

# Specification (this document)
LANES = 8  # the maximum: a power of two, for the three lowest bits of an index
KEY_LABEL = b"overlay lane v1 "


def key_label(lane: int) -> bytes:
    """Return the label with which a key of *lane* is derived."""
    return KEY_LABEL + bytes([lane])


def index_of(index: int, lane: int) -> int:
    """Return the index of *lane* of the session with *index*."""
    return index ^ lane


def in_common(one: int, other: int) -> int:
    """Return how many lanes a session has between a node with *one* and a node with *other*; 1 for invalid values."""
    number = min(one, other, LANES)
    return 1 << number.bit_length() - 1 if number > 0 else 1
