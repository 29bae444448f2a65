"""What the agent and the packet path ask of an encapsulation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from overlay.wire.bounds import Mac, UInt32
from overlay.wire.ip import PROTOCOL_UDP, Buffer
from overlay.wire.neighbours import Question
from peers.encapsulation import FACTS, Facts


class Role(IntEnum):
    """What a socket of the underlay is for."""

    ALL = 0  # receives and sends
    HANDSHAKES = 1  # receives the handshake messages of the address and port that another has too
    RECEIVES = 2
    SENDS = 3
    SENDS_WHOLE = 4  # what routers must not cut
    LANE = 5  # receives the transport messages of a lane, at the address and port that another has too


class Layout(IntEnum):
    """How payloads in the clear are built, as far as the compiled path knows it (``native/native.h``)."""

    OTHER = 0  # they go by Python
    BARE = 1  # the packet and nothing else
    VXLAN = 2
    GENEVE = 3
    GRE = 4


@dataclass(frozen=True, slots=True)
class Ends:
    """What the two ends of a tunnel in the clear must know of it in addition to its encapsulation;
    it crosses the link as it is.

    *identifier* is a GRE key or a VXLAN network identifier, None where there is none; *own_mac* and *mac* are the
    Ethernet addresses of this end and the far one, 6 bytes each, where frames end at the tunnel.  *has_checksum* and
    *has_sequence* tell whether the headers of GRE have these.
    """

    identifier: UInt32 | None = None
    own_mac: Mac = bytes(6)
    mac: Mac = bytes(6)
    has_checksum: bool = False
    has_sequence: bool = False


class Stripped(NamedTuple):
    """Where the packet in a payload begins and ends, and which tunnel the payload says that it is of."""

    start: int
    end: int
    identifier: int | None


@dataclass(frozen=True, slots=True)
class Frames:
    """How frames stand in payloads: those of a tap, and those that a tun's packets are in, which end
    where the tunnel ends.

    *header* returns what stands before each frame that is sent, not more than a transport header of WireGuard.  *find*
    returns where the frame in a payload begins, and which tunnel it is of; it raises PacketError, and nothing else, for
    any bytes that hold no frame.

    With a tun, *admit* raises PacketError for a payload whose frame is for another; the packet in it has been found.
    *question* finds the asker of an Ethernet address, and its tunnel; None if the frame is not a question.  *answer*
    *returns the
    payload that says it is that of this end.
    """

    header: Callable[[Ends], bytes]
    find: Callable[[Buffer], tuple[int, int]]
    admit: Callable[[Buffer, Ends], None]
    question: Callable[[Buffer], tuple[int, Question] | None]
    answer: Callable[[Question, Ends], bytes]


@dataclass(frozen=True, slots=True)
class Clear:
    """How payloads in the clear are made and read.

    A payload is a prefix and the packet.  *prefix* returns it for a tunnel by the packet's IP version, the same even
    number of bytes for both.  *strip* finds the packet; what follows it is padding.  It raises PacketError with the
    reason that is counted, and nothing else, for any bytes.  *mismatch* is the reason for a payload of a tunnel that
    its sender does not have with this node, where tunnels have identifiers.  *frames* is None where there are no frames
    around packets.  *sequence* returns the number of a payload that strip takes, where the encapsulation numbers them,
    and *late* is the reason for one that is not above the last.
    *finisher* returns what writes into a tunnel's payload, which begins with its prefix, what differs from one to the
    next, by how many there were before; None where nothing differs.  *layout* is what the compiled path knows such
    payloads by.
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

    *headers* is what stands before a payload on the underlay, in bytes by the version of the outer IP header: that
    header, those of the transport, and all that a session adds.  *protocols* are the protocols of the outer header by
    the IP version of the packet inside; UDP for all, where nothing else is said.  *clear* is None where payloads are
    sealed: then sessions make and read them.  *senders* is how many sockets of each family send, each from a port of
    its own that tells flows apart on the way; 0 where the one that receives sends too.
    """

    name: str
    headers: Mapping[int, int]
    clear: Clear | None = None
    protocols: Mapping[int, int] = field(default_factory=lambda: {4: PROTOCOL_UDP, 6: PROTOCOL_UDP})
    senders: int = 0

    @property
    def facts(self) -> Facts:
        """What the peers file knows of it."""
        return FACTS[self.name]

    @property
    def is_encrypted(self) -> bool:
        """Whether only the two ends of a tunnel can read and make what it carries."""
        return self.clear is None

    @property
    def has_ports(self) -> bool:
        """Whether its payloads travel in UDP datagrams."""
        return self.protocols[4] == PROTOCOL_UDP

    def has_identifier(self, number: int | None) -> bool:
        """Return whether tunnels can have the identifier *number*; None is none."""
        identifier = self.facts.identifier
        return number is None or (identifier is not None and number <= identifier.largest)

    def overhead(self, version: int, ends: Ends) -> int:
        """Return what the tunnel's MTU is smaller by than an underlay's of IP *version*, in bytes."""
        return self.headers[version] + (len(self.clear.prefix(ends)[4]) if self.clear is not None else 0)
