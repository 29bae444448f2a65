"""The messages between the agent and the forwarder, as frozen values.

The type of a field declares its possible values; ``codec`` makes bytes and checks from it.  A new message must also be
in ``Command`` or ``Report``.  Adding, removing or changing a message, in any field, needs another VERSION.  A field
that its message names in KEYS has the value of the key with that name in the peers file.  Descriptors travel with
``Start``, ``SetNode``, ``Sockets`` and ``BeginCapture`` (SCM_RIGHTS).
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeAlias

from overlay.encap.encapsulation import Ends
from overlay.link.service_messages import (
    VIRTUAL,
    AskFlows,
    AskServices,
    Flows,
    Pin,
    Pinned,
    RemoveService,
    ServiceCounters,
    SetPermits,
    SetServers,
    SetService,
)
from overlay.session.constants import Timing
from overlay.session.outputs import Forget, GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.addresses import Sockaddr
from overlay.wire.bounds import (
    NUMBERS,
    ROWS,
    Address,
    Control,
    Datagram,
    Items,
    Key,
    Mac,
    Mtu,
    Prefix,
    UInt8,
    UInt16,
    UInt32,
    between,
    prefix,
    sized,
    text,
)
from overlay.wire.ip import PROTOCOL_UDP
from overlay.wire.lanes import LANES

# Ours
VERSION = (
    10  # of the messages and their bytes: the files of the forwarder may be newer than the running agent
)
ROUTES_PER_MESSAGE = 100  # applied between batches of packets, in 0.2 ms: no packet waits for a reload
PINGS_WAITING = 256  # in-band pings that may wait for an answer at the same time
CONTROL_PER_SECOND, CONTROL_AT_ONCE = 100.0, 200.0  # in-band messages of one peer for the agent
REPLACED_TIME = 10.0  # seconds for which a replaced socket is read: by then peers have heard from the new one
OWN = 0  # the peer number of this node in the routes: its own subnets
NOTES, NOTE_CHARACTERS = 32, 500  # what the forwarder could not do, as sentences
LIBRARY_CHARACTERS = 80  # the name of a library, and its version
STATIONS = 1_000_000  # Ethernet addresses that may be learned at one place

TIMES = len(dataclasses.fields(Timing))
Route: TypeAlias = Annotated[tuple[bytes, int, int], prefix(between(VIRTUAL, NUMBERS - 1))]


@dataclass(frozen=True, slots=True)
class Start:
    """The agent's first message, with the queues of the tun; if there are several, the one to write to comes last.
    *times* are the fields of Timing, in order.

    *ciphers* are those of bulk units, best first; without any, units are neither sent nor accepted.  With *is_tap* the
    device carries Ethernet frames.
    """

    public_key: Key
    mtu: Mtu
    joins_udp: bool
    segments_udp: bool
    times: Annotated[list[float], Items(TIMES, TIMES)]
    ciphers: list[int] = dataclasses.field(default_factory=list)
    is_tap: bool = False


@dataclass(frozen=True, slots=True)
class SocketRow:
    """The purpose of one socket: *port* is its UDP port, 0 if it has none, *role* a value of Role.

    *lane* is the number of the lane that receives from it.
    """

    family: int
    port: UInt16 = 0
    role: UInt8 = 0  # receives and sends
    protocol: UInt8 = PROTOCOL_UDP
    lane: UInt8 = 0


@dataclass(frozen=True, slots=True)
class Sockets:
    """Sockets to use from now on for *encapsulation*: a row for each of the descriptors that come with it, in order.

    Sockets in use before that are not among them are read for REPLACED_TIME and then closed.
    """

    encapsulation: str
    rows: list[SocketRow]


@dataclass(frozen=True, slots=True)
class SetNode:
    """The interface's MTU and this node's own overlay addresses, 4 or 16 bytes each: ICMP errors come from them.

    With *has_icmp*, a raw socket for IPv4 errors comes with it, followed by one for each of *families* with which to
    ask the kernel for the MTU of a path.  With *inherits_ttl*, the outer header of an unencrypted packet has the TTL of
    the packet inside.  *macs* are the Ethernet addresses that are only here, that of a tap first.  *public_keys* are
    the keys that handshakes may be for: two while one is being replaced; empty leaves them unchanged.
    """

    mtu: Mtu
    has_icmp: bool
    addresses: list[Address]
    inherits_ttl: bool = False
    macs: list[Mac] = dataclasses.field(default_factory=list)
    families: list[int] = dataclasses.field(default_factory=list)
    stations: Annotated[int, between(1, STATIONS)] = 4096  # Ethernet addresses that are learned at one place
    public_keys: Annotated[list[Key], Items(0, 2)] = dataclasses.field(default_factory=list)

    KEYS: ClassVar[tuple[str, ...]] = ("stations",)
    """Keys of [network]."""


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Make or change a peer, whose *encapsulation* never changes.  *keepalive* is in seconds, 0 for none.

    *sources* are prefixes other than its own from which unencrypted packets may come.  *macs* are the Ethernet
    addresses that are only at the peer; the first is that of *addresses*, its own on the overlay.
    """

    peer: int
    keepalive: float
    encapsulation: str = "wireguard"
    sources: list[Prefix] = dataclasses.field(default_factory=list)
    ends: Ends = dataclasses.field(default_factory=Ends)
    macs: list[Mac] = dataclasses.field(default_factory=list)
    addresses: list[Address] = dataclasses.field(default_factory=list)

    KEYS: ClassVar[tuple[str, ...]] = ()
    """Keys of [peers.NAME]."""


def keys_for(message: type[SetNode | SetPeer], section: object) -> dict[str, Any]:
    """Return the fields of *message* whose values come unchanged from *section*, a network or a peer of the peers
    table.
    """
    return {name: getattr(section, name) for name in message.KEYS}


@dataclass(frozen=True, slots=True)
class SetIdentity:
    """Use another key from now on, whose public half is *public_key*: keypairs made with the former key are void."""

    public_key: Key


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Forget a peer, its keys and its staged packets."""

    peer: int


@dataclass(frozen=True, slots=True)
class SetEndpoint:
    """Where to reach a peer from now on, and why: ``configuration`` or ``dns``."""

    peer: int
    endpoint: Sockaddr
    cause: str


@dataclass(frozen=True, slots=True)
class Routes:
    """A part of a table change: prefixes to add as [packed, length, peer], to remove as [packed, length].

    Nothing takes effect before the part with *is_last*; then everything does.
    """

    add: list[Route]
    remove: list[Prefix]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """The table is complete: read the tun from now on.  Packets that arrived earlier wait in its queue."""


@dataclass(frozen=True, slots=True)
class Handled:
    """The agent has handled *count* handshake messages, so that the forwarder knows how busy it is."""

    count: int


@dataclass(frozen=True, slots=True)
class RenewSources:
    """The host's addresses or routes changed: forget from which local address each peer was answered.

    With *has_moved* the host may have a new address for its peers, and those with a session are sent a keepalive.
    """

    has_moved: bool = False


@dataclass(frozen=True, slots=True)
class AskCounters:
    """Send the counters of *peers*, of all if it is empty; *serial* is returned with them."""

    serial: int
    peers: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PingPeer:
    """Send an in-band ping to *peer*; *identifier* is returned with the answer, in ``Ponged``."""

    peer: int
    identifier: int


@dataclass(frozen=True, slots=True)
class AskStation:
    """Report where the Ethernet address *mac* is, or, without one, that of the station with the IP *address*.

    *identifier* comes back in ``Station``.
    """

    identifier: int
    mac: Mac | None = None
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class TellSender:
    """Tell the sender of *packet*, which may be truncated, that its destination cannot be reached."""

    packet: Annotated[bytes, sized(range(28, 577))]


@dataclass(frozen=True, slots=True)
class SendControl:
    """Send the in-band control message *payload* to *peers*, or if empty to every agent with which there is a session.

    A handshake starts with those of *peers* that have no session, and the message is not kept for them.  If it
    *is_for_agents*, those of *peers* that have not said hello are offered one instead: they may be plain WireGuard.
    """

    peers: list[int]
    payload: Control
    is_for_agents: bool = False


@dataclass(frozen=True, slots=True)
class BeginCapture:
    """Report dropped packets on the socket that comes with this message, the first *snaplen* bytes of each, until
    EndCapture.

    *number* identifies the capture; it is unique among running captures.
    """

    number: int
    snaplen: Annotated[int, between(1, 1 << 18)]


@dataclass(frozen=True, slots=True)
class EndCapture:
    """Stop reporting to the capture *number*, and close its socket."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The forwarder runs.  *notes* are sentences on what it could not do.

    *is_compiled*: packets take the compiled path, not only Python's, in that many *lanes*.  *aes* is the library that
    seals units with AES there.
    """

    notes: Annotated[list[Annotated[str, text(0, NOTE_CHARACTERS)]], Items(0, NOTES)]
    is_compiled: bool = False
    lanes: UInt8 = 1
    aes: Annotated[str, text(0, LIBRARY_CHARACTERS)] = ""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A handshake message with a valid size and mac1, and under load a valid mac2.

    A few messages for another public key are reported as well.
    """

    datagram: Datagram
    source: Sockaddr


@dataclass(frozen=True, slots=True)
class SessionWanted:
    """There is something to send to *peer*, and no keypair fresh enough for it; with *is_idle* only a keepalive."""

    peer: int
    is_idle: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The first message arrived under a keypair that this node made as responder, so the peer has it, too."""

    peer: int
    local_index: UInt32


@dataclass(frozen=True, slots=True)
class Retired:
    """The forwarder has forgotten the keypair of *local_index*."""

    local_index: UInt32


@dataclass(frozen=True, slots=True)
class Moved:
    """Authenticated messages of *peer* came from new addresses: *endpoint* is the last, *before* the one before it.

    Of several moves in a second this reports the last, and *count* how many there were.
    """

    peer: int
    endpoint: Sockaddr
    count: int = 1
    before: Sockaddr | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """Packets were sent to *peer*, but nothing has come from it for so long that it must be gone.

    With *is_over* it is back.
    """

    peer: int
    is_over: bool


@dataclass(frozen=True, slots=True)
class Ponged:
    """The ping *identifier* was answered after *seconds*; None if *peer*, not known to answer pings, was sent none."""

    peer: int
    identifier: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Station:
    """What the bridge of a tap knows of the station *mac*; None if no station is known for the IP address.

    *peer* is where it is, OWN for the side of the tap, None if that is not known.  *age* is how many seconds ago it was
    heard, None for an address that the peers file assigns.
    """

    identifier: int
    mac: Mac | None = None
    peer: int | None = None
    age: float | None = None


@dataclass(frozen=True, slots=True)
class ControlReceived:
    """*peer* sent *payload*, an in-band control message for the agent."""

    peer: int
    payload: Control


LaneCounters: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """The counters of one peer.  Bytes are UDP payload bytes of all message types."""

    peer: int
    endpoint: Sockaddr | None
    tx_bytes: int
    rx_bytes: int
    tx_packets: int
    rx_packets: int
    last_received: float
    drops: dict[str, int]
    tx_units: int = 0  # bulk units sent
    rx_units: int = 0  # and opened
    # The largest packet that reaches the peer according to a probe or the kernel; 0 if neither knows
    path_mtu: int = 0
    learnt_macs: int = 0  # Ethernet addresses that were learned there
    # Bytes sent and received, and packets, of each lane of this node, if it has several
    by_lane: Annotated[list[LaneCounters], Items(0, LANES)] = dataclasses.field(default_factory=list)
    session_lanes: UInt8 = 1  # lanes of the session with the peer
    open_lanes: UInt8 = 1  # how many of them carry packets
    unit_segments: UInt8 = (
        0  # of a flow, at most, in one bulk unit to the peer at present; 0 if no units are sent
    )


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of some peers; with *is_last* they are complete.  *drops* are those of no peer."""

    serial: int
    peers: Annotated[list[PeerCounters], Items(0, ROWS)]
    drops: dict[str, int]
    is_last: bool


ServiceCommand: TypeAlias = (
    SetService | SetServers | RemoveService | SetPermits | Pin | AskServices | AskFlows
)
"""Messages about virtual services."""

ServiceReport: TypeAlias = Pinned | ServiceCounters | Flows

Command: TypeAlias = (
    Start | Sockets | SetNode | SetIdentity | SetPeer | RemovePeer | SetEndpoint | Routes | Begin | Handled
    | RenewSources | AskCounters | PingPeer | AskStation
    | TellSender | SendControl | BeginCapture | EndCapture | ServiceCommand | Transmit
    | InstallKeypair | Wipe | Forget | GiveUp
)  # fmt: skip
"""From the agent to the forwarder."""

Report: TypeAlias = (
    Ready | Handshake | SessionWanted | Confirmed | Retired | Moved | Silence | Ponged | Station | ControlReceived
    | Counters | ServiceReport
)  # fmt: skip
"""From the forwarder to the agent."""
