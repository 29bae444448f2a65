"""The parts of ``both_paths`` stories that need taps: stations, and their frames."""

from __future__ import annotations

import dataclasses
import struct

from overlay.wire import frames
from overlay.wire.bulk import META
from tests import packets

EVERYBODY, NOBODY = b"\xff" * 6, b"\x02\x99" + bytes(4)
TAGS = b"\x81\0\0\x07", b"\x88\xa8\0\x08\x81\0\0\x07", b"\x81\0\0\x01" * 3
_VIRTIO = struct.Struct("<BBHHHH")


def station(node, number=0):
    """Return the Ethernet address of one of the stations at *node*."""
    return bytes([2, 0, 0, 0, number, node.number])


def arp(source, destination=EVERYBODY, *, address="10.0.9.1", target="10.0.9.2", operation=1):
    """Return an ARP frame in which *source* says that it has *address*."""
    ends = [bytes(map(int, each.split("."))) for each in (address, target)]
    form = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return destination + source + b"\x08\x06" + form + source + ends[0] + bytes(6) + ends[1]


class OnLink:
    """The part of a story that only concerns taps."""

    links = (bytes(12), bytes(12))  # of the next packets of the two nodes

    def meet(self):
        """Make the bridges of both nodes learn all stations."""
        self.world.run(1)
        for node in self.nodes:
            for number in range(3):
                node.tun.outgoing.append(packets.PLAIN + arp(station(node, number)))
        self.world.run(1)

    def choose_links(self, size, detail):
        """Give all frames of one step the same header, each way."""
        a, b = self.nodes
        number, other, tag = size % 3, detail % 7 % 3, TAGS[detail % 3] if size % 5 == 0 else b""
        ends = [(station(b, other), station(a, number)), (station(a, number), station(b, other))]
        if size % 23 == 0:
            ends[detail % 2] = ((EVERYBODY, NOBODY, ends[1][1])[detail % 3], ends[detail % 2][1])
        if detail % 29 == 0:  # an unknown station sends, or one from the other side
            ends[size % 2] = (
                ends[size % 2][0],
                (bytes([2, 8, *bytes(3), size & 0xFF]), ends[0][0])[size % 2],
            )
        self.links = tuple(destination + source + tag for destination, source in ends)

    def link_from(self, node, packet):
        """Return the Ethernet header of *packet* from *node*."""
        return self.links[self.nodes.index(node)] + ({6: b"\x86\xdd"}.get(packet[0] >> 4, b"\x08\0"))

    def put_on_link(self, node, begin):
        """Put the packets that wait at the tap of *node*, from *begin* on, into frames."""
        waiting = node.tun.outgoing
        made = [waiting.pop() for _ in range(len(waiting) - begin)][::-1]
        for each in made:
            virtio, packet = each[: _VIRTIO.size], each[_VIRTIO.size :]
            if packet[:6] == EVERYBODY or len(packet) < 20:
                waiting.append(each)
                continue
            link = self.link_from(node, packet)
            if virtio != packets.PLAIN:
                flags, kind, header, segment, start, offset = _VIRTIO.unpack(virtio)
                before = len(link)
                virtio = _VIRTIO.pack(
                    flags, kind, header + before & 0xFFFF, segment, start + before & 0xFFFF, offset
                )
            waiting.append(virtio + link + packet)

    def framed(self, node, made, detail):
        """Return payloads of *made*, packets of *node*, with arbitrary padding."""
        link, padding = self.link_from(node, made[0]), detail % 16
        room = max(map(len, made))
        payloads = [
            frames.build(link + each.ljust(room, b"\0"), padding if number % 9 else detail % 3)
            for number, each in enumerate(made)
        ]
        size = max(map(len, payloads))
        return [each.ljust(size, b"\0") for each in payloads]

    def with_link(self, node, plain, detail):
        """Return the plaintext of a unit that ends with an Ethernet header."""
        link = self.link_from(node, plain[META.size :])[: -1 if detail % 31 == 0 else None]
        plain[1] ^= len(link)
        return plain + link

    # Events

    def speak(self, node, other, size, detail):
        """A station announces where it is, or that another's address is its own."""
        numbered = station((node, other)[detail % 11 == 0], size % 4)
        frame = arp(numbered, (EVERYBODY, station(other))[detail % 2], address=f"10.0.9.{size % 9}")
        node.tun.outgoing.append(packets.PLAIN + (frame if detail % 5 else frame[: detail % 60]))

    def roam(self, node, _, size, detail):
        """Move stations to *node*, or make it learn new ones; possibly from the other side, or more than it
        may learn.
        """
        if detail % 3 == 0:
            node.core.bridge.set_most(2 + detail % 5)
        for number in range(1 + detail % 6):
            mac = (
                bytes([2, 0, 0, 0, number, 1 + size % 2])
                if size % 4 == 0
                else bytes([2, 7, 0, 0, size % 256, number])
            )
            node.tun.outgoing.append(packets.PLAIN + arp(mac))

    def fix(self, node, other, size, detail):
        """The peers file assigns places to stations, or does not any more."""
        macs = [station(other, number) for number in range(detail % 3)]
        addresses = [bytes([10, 0, 9, 1])][: detail % 2]
        node.tell(dataclasses.replace(node.peer().settings, macs=macs, addresses=addresses))

    def wait(self, _, __, size, detail):
        """Enough time passes that stations are forgotten, or nearly."""
        self.world.run((100, 299, 300, 301)[detail % 4] + size % 3)


def known(node):
    """Return what the bridge of *node* knows about stations."""
    bridge = node.core.bridge
    if bridge is None:
        return None
    return [(mac, entry.owner, entry.seen_at) for mac, entry in bridge._learnt._entries.items()]
