"""Nodes whose packets travel over raw sockets."""

from __future__ import annotations

import struct

from overlay.wire.ip import CE, ECT_0, ECT_1, NOT_ECT
from tests import packets
from tests.network import Flight

STRANGER = "203.0.113.66"
IPIP, IPV6, GRE = 4, 41, 47

# Figure 4 of RFC 6040: the resulting field, by the inner field; None means "drop".
AT_THE_EXIT = {
    #         outer:  NOT_ECT, ECT_0, ECT_1, CE
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}
OUTER_FIELDS = (NOT_ECT, ECT_0, ECT_1, CE)
KINDS = [("ipip", None), ("gre", None), ("gre", 7)]
NAMES = ["ipip", "gre", "gre with a key"]


def arrive(world, node, *payloads, source, protocol=IPIP, tos=0):
    at = (node.addresses[0], 0) if "." in source else (node.addresses[1], 0, 0, 0)
    for payload in payloads:
        world.network.send(Flight((source, *at[1:]), at, payload, tos, protocol=protocol))
    world.run(0.1)


def genuine(sender, receiver, *, size=20, tcp=False, version=4, **ip):
    ends = {"source": sender.inner(version), "destination": receiver.inner(version), **ip}
    return (
        packets.tcp(bytes(size), version=version, **ends)
        if tcp
        else packets.udp(bytes(size), version=version, **ends)
    )


# Packets that a kernel has left incomplete


def unfinished(packet):
    """Return *packet* with the sum of its pseudo header in place of its checksum."""
    start = packets.l4_start(packet)
    field = start + (16 if packets.protocol_of(packet) == 6 else 6)
    value = packets.ones_complement_sum(packets.pseudo_header(packet, len(packet) - start))
    return packet[:field] + struct.pack("!H", value) + packet[field + 2 :]
