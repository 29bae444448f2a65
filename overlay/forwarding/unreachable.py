"""Tells a sender that its packet has no destination or is too big, as a router does.

RFC 1812 section 4.3.3.1, RFC 1191 section 4, RFC 4443 sections 3.1 and 3.2.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from overlay.forwarding.ratelimit import TokenBuckets
from overlay.wire.icmp import (
    in_ipv4,
    may_answer,
    too_big_v4,
    too_big_v6,
    unreachable_v4,
    unreachable_v6,
)
from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE
from overlay.wire.virtio import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.wire.ip import Buffer

_LEAST = {4: IPV4_HEADER_SIZE + 8, 6: IPV6_HEADER_SIZE + 8}  # bytes of a packet by which an error can be told

# Ours
ERRORS_PER_SECOND = 10.0  # to one address
ERRORS_BURST = 20.0


class RawIcmp(Protocol):
    """A raw ICMP socket; socket.socket has what it takes."""

    def sendto(self, data: bytes, address: tuple[str, int], /) -> int: ...
    def close(self) -> None: ...


class Unreachable:
    """Sends ICMP errors from this node's overlay addresses, at a bounded rate for each sender.

    IPv6 enters by the tun.  An IPv4 packet with a local source would be dropped there as martian, so it leaves
    through a raw socket; without one the unreachable destination itself is the source.  So is a virtual address that
    is balanced here, which belongs to no host: its clients know no other address.
    """

    def __init__(self, write: Callable[[Iterable[bytes]], None]) -> None:
        self._write = write
        self._raw: RawIcmp | None = None
        self._address_v6: bytes | None = None
        self._buckets = TokenBuckets(ERRORS_PER_SECOND, ERRORS_BURST)
        self.is_virtual: Callable[[bytes], bool] = lambda _: False  # whether an address is balanced here

    def send_from(self, addresses: list[bytes], raw: RawIcmp | None) -> None:
        """Send IPv6 errors from the first 16-byte address of *addresses*, those of IPv4 through *raw*."""
        if self._raw is not None:
            self._raw.close()
        self._raw = raw
        self._address_v6 = next((address for address in addresses if len(address) == 16), None)

    def tell(self, packet: Buffer, now: float, mtu: int = 0) -> None:
        """Answer *packet*, a whole IP packet, unless the rules or the rate limit forbid it.

        The answer is "host unreachable", or with *mtu* that no more bytes than that can pass.
        """
        if not may_answer(packet):
            return
        is_ipv4 = packet[0] >> 4 == 4
        sender, destination = _addresses(packet)
        if not self._buckets.allow(sender, now):
            return
        with contextlib.suppress(OSError):  # an error about an error helps no one
            if not is_ipv4:
                own = None if self.is_virtual(destination) else self._address_v6
                source = own or destination
                error = too_big_v6(packet, source, mtu) if mtu else unreachable_v6(packet, source)
                self._write([PLAIN, error])
                return
            message = too_big_v4(packet, mtu) if mtu else unreachable_v4(packet)
            if self._raw is not None and not self.is_virtual(destination):
                self._raw.sendto(message, (".".join(map(str, sender)), 0))
            else:
                self._write([PLAIN, in_ipv4(message, destination, sender)])

    def tell_of_part(self, part: Buffer, now: float) -> None:
        """Tell the sender of a packet of which *part* is there that its destination is unreachable, if
        that is enough.
        """
        if len(part) >= _LEAST.get(part[0] >> 4, len(part) + 1):
            self.tell(part, now)


def _addresses(packet: Buffer) -> tuple[bytes, bytes]:
    """Return where *packet* comes from and where it goes to."""
    if packet[0] >> 4 == 4:
        return bytes(packet[12:16]), bytes(packet[16:20])
    return bytes(packet[8:24]), bytes(packet[24:40])


class Silent(Unreachable):
    """Sends no errors: a bridge does not."""

    def tell(self, packet: Buffer, now: float, mtu: int = 0) -> None:
        """Do nothing."""
