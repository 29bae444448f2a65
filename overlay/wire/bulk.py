"""Bulk units: a whole super-packet under one seal, cut into datagrams.  Version 1.

Two agents of this project use them beside WireGuard's transport messages, once the receiver has said in a hello
(``control``) under the same keypair that it can.  To anybody else they are never sent.  All integers are little
endian, except for those of the packet, which IP has big endian.

Keys.  When a handshake completes, both sides derive, in addition to the transport keys and from the same chaining key,

    KDF2(chaining key, "overlay bulk v1 " || name of the cipher)

once for each cipher below, 32 bytes each (whitepaper section 5.4 has KDF2).  The first of the two keys is for units
from the initiator to the responder, the second for those back.  They are wiped with the transport keys, and nothing but
units is sealed with them.

Ciphers.  Number and name: 1 "AES-256-GCM" (NIST SP 800-38D), 2 "ChaCha20-Poly1305" (RFC 8439).  The sender takes the
first of its own list that the receiver's hello has.  An implementation lists 1 only where it has AES in hardware.

Plaintext of a unit:

- 1 byte GSO type, as virtio has it: 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; plus 0x80 where the first segment
  carries CWR
- 1 byte size of the Ethernet header behind the packet: 14, and 4 more for each of up to two VLAN tags, between agents
  whose device is a tap; else 0
- 2 bytes segment size: payload bytes of each segment but the last, 256 at least
- the packet: IP header with the length of the whole, TCP or UDP header right behind (so no fragment, and none of IPv6's
  extension headers), payload of more than one segment.  Its IPv4 header checksum holds; its TCP or UDP checksum field
  has no meaning, for sealing takes its place: the sender's kernel vouches for the packet (NEEDS_CSUM), and the
  receiver's computes the checksums of the segments.
- the Ethernet header that all segments have

Sealed without additional data, the tag of 16 bytes behind, under the nonce: 4 zero bytes, then the unit's counter in 8
bytes.  Counters start at 0 for each key and never repeat.  After 2^34 blocks of 16 bytes under AES-256-GCM, a block for
the tag and one for its mask counted in, no unit is sealed under its keypair any more, and a new keypair is asked for.

Datagrams.  The sealed unit is cut into equal pieces, the last of which may be shorter, each behind this header.

- 1 byte type (5)
- 1 byte number of the fragment, from 0
- 1 byte count of fragments, 1 at least
- 1 byte number of the cipher
- 4 bytes receiver index, that of the transport messages of the keypair
- 8 bytes counter of the unit
- the piece

The header is not authenticated by itself.  Anyone who changes it, or adds fragments of his own, can make a unit fail;
the next is not concerned.  A receiver keeps fragments apart by index, counter and source address, keeps the first copy
of each, and bounds what it keeps in memory, number and time.  It opens a unit when all fragments are there, then checks
the counter against a window as that of transport messages, reads the headers of the packet itself, and accepts it only
if its lengths match, the segment size is from 256 to what its hello said, and the source belongs to the peer.
"""

from __future__ import annotations

import struct

from overlay.wire.messages import TAG_SIZE

# Specification (this document)
TYPE_FRAGMENT = 5
AES_256_GCM = 1
CHACHA20_POLY1305 = 2
CIPHERS = {AES_256_GCM: b"AES-256-GCM", CHACHA20_POLY1305: b"ChaCha20-Poly1305"}
KEY_LABEL = b"overlay bulk v1 "
MINIMUM_SEGMENT = 256
MAXIMUM_PACKET = 65535
MAXIMUM_FRAGMENTS = 255
AES_BLOCK = 16
AES_BLOCKS_PER_KEY = 2**34

META = struct.Struct("<BxH")
FRAGMENT_HEADER = struct.Struct("<BBBBIQ")
FRAGMENT_HEADER_SIZE = FRAGMENT_HEADER.size  # 16
MAXIMUM_SEALED = META.size + MAXIMUM_PACKET + TAG_SIZE


def key_label(cipher: int) -> bytes:
    """Return the label under which the keys of *cipher* are derived."""
    return KEY_LABEL + CIPHERS[cipher]
