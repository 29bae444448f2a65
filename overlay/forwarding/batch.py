"""The interface of the outbound path to the rest of the packet path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.split import Splitter
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.flows import FlowQueue
    from overlay.wire.virtio import Offload


class Batch(Protocol):
    """The datagrams of the batch under way, which leave at its end."""

    splitter: Splitter

    def send_payload(
        self,
        peer: LivePeer,
        keypair: Keypair[LivePeer],
        payload: bytes,
        ecn: int = 0,
        *,
        may_be_cut: bool = False,
    ) -> None:
        """Seal *payload* for *peer* and send it by itself."""

    def send_probe(self, peer: LivePeer, keypair: Keypair[LivePeer], payload: bytes) -> bool:
        """Send a payload whole or not at all, and return False if it is too large for this host's own device."""

    def send_train(
        self, keypair: Keypair[LivePeer], packet: memoryview, offload: Offload, ecn: int, link: bytes = b""
    ) -> int:
        """Send a super-packet segment by segment, and return how many there are.  Raises PacketError."""

    def offer(self, peer: LivePeer, keypair: Keypair[LivePeer], now: float) -> None:
        """Say what this node can, if it is time to."""

    def complete(self, start: int, length: int, csum_start: int, csum_offset: int) -> bool:
        """Finish the checksum that the kernel left partial; return False where it points outside the packet."""

    def queue(self, peer: FlowQueue[LivePeer], datagram: memoryview, size: int, ecn: int) -> None:
        """Append a datagram to those of its lane that can leave in the same call."""

    def flush_peer(self, peer: FlowQueue[LivePeer]) -> None:
        """Send what waits in a lane."""
