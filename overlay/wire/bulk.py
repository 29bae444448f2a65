"""Bulk units: a whole super-packet under one seal, cut into datagrams.  Version 1.

Two agents of this project use them in addition to WireGuard's transport messages, once the receiver has announced
support in a hello (``control``) under the same keypair.  They are never sent to anybody else.  All integers are little
endian, except those in the packet, which are big endian as always in IP.

Keys.  When a handshake completes, both sides derive, in addition to the transport keys and from the same chaining key,

    KDF2(chaining key, "overlay bulk v1 " || name of the cipher)

once for each cipher below, 32 bytes each (whitepaper section 5.4 has KDF2).  The first of the two keys is for units
from the initiator to the responder, the second for the opposite direction.  They are wiped with the transport keys, and
seal only units.

Ciphers.  Number and name: 1 "AES-256-GCM" (NIST SP 800-38D), 2 "ChaCha20-Poly1305" (RFC 8439).  The sender uses the
first of its own list that is in the receiver's hello.  An implementation lists 1 only if it has AES in hardware.

Plaintext of a unit:

- 1 byte GSO type, as virtio has it: 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; plus 0x80 if the first segment carries CWR
- 1 byte size of the Ethernet header after the packet: 14, and 4 more for each of up to two VLAN tags, between agents
  whose device is a tap; otherwise 0
- 2 bytes segment size: payload bytes of each segment except the last, at least 256
- the packet: IP header with the length of the whole, TCP or UDP header directly after it (so it is not a fragment, and
  has no IPv6 extension headers), payload of more than one segment.  Its IPv4 header checksum is valid; its TCP or UDP
  checksum field has no meaning, because sealing replaces it: the sender's kernel vouches for the packet (NEEDS_CSUM),
  and the receiver's computes the checksums of the segments.
- the Ethernet header that all segments have

It is sealed without additional data, followed by a tag of 16 bytes, under the nonce: 4 zero bytes, then the unit's
counter in 8 bytes.  Counters start at 0 for each key and never repeat.  After 2^34 blocks of 16 bytes under
AES-256-GCM, including one block for the tag and one for its mask, no more units are sealed under its keypair, and a new
keypair is requested.

Datagrams.  The sealed unit is cut into equal pieces, the last of which may be shorter, each preceded by this header.

- 1 byte type (5)
- 1 byte number of the fragment, from 0
- 1 byte count of fragments, at least 1
- 1 byte number of the cipher
- 4 bytes receiver index, that of the transport messages of the keypair
- 8 bytes counter of the unit
- the piece

The header is not authenticated by itself.  Anyone who changes it, or injects fragments, can make a unit fail, but not
the next one.  A receiver distinguishes fragments by index, counter and source address, keeps the first copy of each,
and limits how many it keeps, how long, and in how much memory.  It opens a unit when all fragments have arrived, then
checks the counter against a window like that of transport messages, reads the headers of the packet itself, and accepts
it only if its lengths match, the segment size is between 256 and the limit in its hello, and the source belongs to the
peer.
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
    """Return the label with which the keys of *cipher* are derived."""
    return KEY_LABEL + CIPHERS[cipher]
