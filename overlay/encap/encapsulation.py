"""What the agent and the packet path ask of an encapsulation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from overlay.wire.bounds import Mac, UInt32
from overlay.wire.ip import PROTOCOL_UDP, Buffer
from overlay.wire.neighbours import Question
from peers.encapsulation import FACTS, EncapsulationFacts


class Role(IntEnum):
    """The purpose of a socket of the underlay."""

    ALL = 0  # receives and sends
    HANDSHAKES = 1  # receives the handshake messages for the address and port of another socket
    RECEIVES = 2
    SENDS = 3
    SENDS_WHOLE = 4  # sends what routers must not fragment
    LANE = 5  # receives the transport messages of a lane, at the address and port of another socket


class Layout(IntEnum):
    """How unencrypted payloads are built, as far as the compiled path knows it (``native/native.h``)."""

    OTHER = 0  # handled by Python
    BARE = 1  # only the packet
    VXLAN = 2
    GENEVE = 3
    GRE = 4


@dataclass(frozen=True, slots=True)
class Ends:
    """What the two ends of an unencrypted tunnel must know about it in addition to its encapsulation; sent over the
    link unchanged.

    *identifier* is a GRE key or a VXLAN network identifier, None if there is none; *own_mac* and *mac* are the Ethernet
    addresses of this end and the far one, 6 bytes each, if frames end at the tunnel.  *has_checksum* and *has_sequence*
    tell whether GRE headers have these.
    """

    identifier: UInt32 | None = None
    own_mac: Mac = bytes(6)
    mac: Mac = bytes(6)
    has_checksum: bool = False
    has_sequence: bool = False


class Stripped(NamedTuple):
    """Where the packet in a payload begins and ends, and the identifier of the tunnel in the payload."""

    start: int
    end: int
    identifier: int | None


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames in payloads: those of a tap, and those around a tun's packets, which end where the tunnel ends.

    *header* returns what comes before each frame that is sent, no longer than a transport header of WireGuard.  *find*
    returns where the frame in a payload begins, and the identifier of its tunnel; it raises PacketError, and nothing
    else, for any bytes without a frame.

    With a tun, *admit* is called once the packet in a payload was found; it raises PacketError if the frame is for
    another station.  *question* finds who asks for an Ethernet address, and its tunnel; None if the frame is not a
    question.  *answer* returns the payload that says that the address is at this end.
    """

    header: Callable[[Ends], bytes]
    find: Callable[[Buffer], tuple[int, int]]
    admit: Callable[[Buffer, Ends], None]
    question: Callable[[Buffer], tuple[int, Question] | None]
    answer: Callable[[Question, Ends], bytes]


@dataclass(frozen=True, slots=True)
class Clear:
    """How unencrypted payloads are made and read.

    A payload is a prefix and the packet.  *prefix* returns it for a tunnel by the packet's IP version, the same even
    number of bytes for both.  *strip* finds the packet; what follows it is padding.  It raises PacketError with the
    reason that is counted, and nothing else, for any bytes.  *mismatch* is the drop reason for a payload of a tunnel
    that its sender does not have with this node, if tunnels have identifiers.  *frames* is None if packets are not in
    frames.  If the encapsulation numbers payloads, *sequence* returns the number of one that strip accepts, and *late*
    is the drop reason for a number not above the last.  *finisher* returns a function that writes into a tunnel's
    payload, which begins with its prefix, what depends on the number of payloads before it; None if nothing does.
    *layout* is the compiled path's name for such payloads.
    """

    prefix: Callable[[Ends], Mapping[int, bytes]]
    strip: Callable[[Buffer], Stripped]
    mismatch: str = ""
    frames: Frames | None = None
    sequence: Callable[[Buffer], int | None] | None = None
    late: str = ""
    finisher: Callable[[Ends], Callable[[memoryview, int], None] | None] = field(default=lambda _: None)
    layout: Layout = Layout.OTHER


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """One way to carry packets between two peers: how payloads are made and read, in addition to the facts in
    ``peers``.

    *headers* is the size of everything around a packet on the underlay, in bytes by the version of the outer IP header:
    that header, those of the transport, and what a session adds.  *protocols* are the protocols of the outer header by
    the IP version of the packet inside; UDP for all by default.  *clear* is None if payloads are sealed: then sessions
    make and read them.  *senders* is how many sockets of each family send, each from a port of its own that
    distinguishes flows on the way; 0 if the receiving socket sends, too.
    """

    name: str
    headers: Mapping[int, int]
    clear: Clear | None = None
    protocols: Mapping[int, int] = field(default_factory=lambda: {4: PROTOCOL_UDP, 6: PROTOCOL_UDP})
    senders: int = 0

    @property
    def facts(self) -> EncapsulationFacts:
        """Return what the peers file knows about it."""
        return FACTS[self.name]

    @property
    def is_encrypted(self) -> bool:
        """Return whether only the two ends of a tunnel can read and make its payloads."""
        return self.clear is None

    @property
    def has_ports(self) -> bool:
        """Return whether its payloads travel in UDP datagrams."""
        return self.protocols[4] == PROTOCOL_UDP

    def has_identifier(self, number: int | None) -> bool:
        """Return whether tunnels can have the identifier *number*; None means no identifier."""
        identifier = self.facts.identifier
        return number is None or (identifier is not None and number <= identifier.largest)

    def overhead(self, version: int, ends: Ends) -> int:
        """Return by how many bytes the tunnel's MTU is smaller than that of an underlay of IP *version*."""
        return self.headers[version] + (len(self.clear.prefix(ends)[4]) if self.clear is not None else 0)
