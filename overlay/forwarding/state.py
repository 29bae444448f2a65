"""The state that both packet paths read and write: base classes whose fields are in the compiled twin, if there is one.

Each is named after what it is the state of: the packet path's ``Keypair`` begins with ``KeypairState`` and adds what
only Python needs; a ``LivePeer`` has a ``PeerState``.  Here they are as Python alone has them; ``native/*_types.c``
have the same names.  Methods with an underscore hand the twin what it cannot read by itself, and do nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.crypto.replay import ReplayWindow as _ReplayWindow
from overlay.forwarding import native

if TYPE_CHECKING or native.core is None:
    ReplayWindow = _ReplayWindow

    class TrafficState:
        """Counters of one peer."""

        __slots__ = ("rx_bytes", "rx_packets", "rx_units", "tx_bytes", "tx_packets", "tx_units")

        tx_bytes: int
        rx_bytes: int
        tx_packets: int
        rx_packets: int
        tx_units: int
        rx_units: int

        def by_lane(self, count: int) -> list[tuple[int, int, int, int]]:
            """Return bytes sent and received, and packets, of each of *count* lanes;
            all are those of the first here.
            """
            first = self.tx_bytes, self.rx_bytes, self.tx_packets, self.rx_packets
            return [first, *[(0, 0, 0, 0)] * (count - 1)]

    class ContactState:
        """Moments of one peer, in seconds; *armed* has a bit for each timer of ``timers.ARMED`` that is in force."""

        __slots__ = (
            "armed", "is_silent", "last_received", "last_traffic", "owed_since", "reporting", "unanswered_since",
            "wanted_at",
        )  # fmt: skip

        unanswered_since: float
        owed_since: float
        last_traffic: float
        last_received: float
        wanted_at: float
        armed: int
        is_silent: bool
        reporting: Any

    class PathState:
        """The path to one peer."""

        __slots__ = ("due", "mtu", "omits")

        mtu: int
        due: float
        omits: bool

    class AskingState:
        """Whether a peer is worth a hello."""

        __slots__ = ("_next", "is_worth_it")

        is_worth_it: bool
        _next: float

    class DiscoveryState:
        """The mode that a socket rests in."""

        __slots__ = ("omits",)

        omits: bool

    class BatchingState:
        """How much is read in one go."""

        __slots__ = ("_is_single", "_last", "_quick")

        _is_single: bool
        _last: float
        _quick: int

    class UdpSocketState:
        """One socket of the underlay; *descriptor* is -1 for one that the kernel does not know."""

        __slots__ = (
            "closes_at", "descriptor", "discovery", "layout", "pace", "protocol", "sends_by", "shares",
        )  # fmt: skip

        closes_at: float
        descriptor: int
        layout: int
        protocol: int
        discovery: Any
        pace: Any
        sends_by: Any
        shares: Any

        def spread_over(self, pool: list[Any]) -> None:
            """Spread flows over *pool*; none are not known yet."""

    class LocalEndState:
        """From where one peer is sent to."""

        __slots__ = ("socket",)

        socket: Any

        def _near(self, level: int, kind: int, data: bytes, received: bytes) -> None:
            """Send with this control message, if *data* is not empty; the peer called the address *received*."""

        def _leaves_by(self, kind: int, udp: Any) -> None:
            """Send what has marks of *kind* from *udp*, which may be None, where there are no ports."""

    class TunnelState:
        """The bytes before packets of an unencrypted tunnel; *sent* counts payloads if no two are alike."""

        __slots__ = ("sent",)

        sent: int

        def _stand(
            self,
            layout: int,
            protocols: tuple[int, int],
            prefixes: tuple[bytes, bytes],
            identifier: int,
            own_mac: bytes,
            flows: int,
            has_checksum: bool,
            has_sequence: bool,
        ) -> None:
            """Build and read payloads of *layout*; protocols and prefixes are those for IPv4 and IPv6 inside."""

    class UnsealedState:
        """What unencrypted packets of one peer have shown."""

        __slots__ = ("segment_limit", "segment_limit_ends", "segment_size", "sequence", "sequence_at")

        segment_limit: int
        segment_limit_ends: float
        segment_size: int
        sequence: int
        sequence_at: float

        def tell_ranges(self, changes4: bytes, changes6: bytes) -> None:
            """Take as sent by it, besides what is its own, addresses from the first of each family's on, up to the
            second, from the third on, and so on.
            """

    class UnitSizeState:
        """How large units may be."""

        __slots__ = (
            "_has_probe", "_is_probe_late", "_next", "_plain_until", "_probe_at", "_probe_counter", "is_plain", "limit",
            "waits_since",
        )  # fmt: skip

        limit: int
        is_plain: bool
        waits_since: float
        _plain_until: float
        _next: int
        _has_probe: bool
        _is_probe_late: bool
        _probe_counter: int
        _probe_at: float

    class UnitKeyState:
        """What seals units."""

        __slots__ = ("blocks", "cipher", "counter", "receiver_index")

        cipher: int
        receiver_index: int
        counter: int
        blocks: int

        def _seals(self, cipher: int, key: bytes, seal: Any) -> None:
            """Seal with *key*; *seal* does it in Python."""

    class BulkState:
        """What one keypair knows of units."""

        __slots__ = (
            "_newest_at", "datagrams", "fragments", "has_heard", "has_said_hello", "hello_due", "is_put_off", "key",
            "missing", "most", "newest", "packet", "size", "told_packet", "units", "window",
        )  # fmt: skip

        hello_due: float
        is_put_off: bool
        _newest_at: float
        newest: int
        units: int
        datagrams: int
        missing: int
        most: int
        fragments: int
        packet: int
        told_packet: int
        has_heard: bool
        has_said_hello: bool
        key: Any
        size: Any
        window: _ReplayWindow

        def _opens(self, cipher: int, key: bytes, opens: Any) -> None:
            """Open units of *cipher* with *key*; *opens* does it in Python."""

    class KeypairState:
        """The keys of one handshake, and what they have sealed."""

        __slots__ = (
            "_state", "bulk", "counter", "lane", "local_index", "reject_at", "rekey_at", "rekey_receive_at",
            "remote_index", "session", "window",
        )  # fmt: skip

        counter: int
        lane: int
        local_index: int
        remote_index: int
        reject_at: float
        rekey_at: float
        rekey_receive_at: float
        bulk: Any
        window: _ReplayWindow
        session: Any
        _state: Any

        def _send_by(self, by_lane: list[Any]) -> None:
            """Let each lane of this node seal with one of these; None is this one."""

        def _keys(self, local_index: int, remote_index: int, send: bytes, receive: bytes) -> None:  # noqa: ARG002
            """Seal with *send* for the peer's *remote_index*, open with *receive* what comes for *local_index*."""
            self.local_index, self.remote_index = local_index, remote_index

    class KeypairsState:
        """Two of the slots of a peer."""

        __slots__ = ("current", "settled")

        current: Any
        settled: Any

    class StationState:
        """An address that was heard of on a link; *seen_at* is -inf once it is forgotten."""

        __slots__ = ("seen_at",)

        seen_at: float

    class ServerState:
        """A server of a virtual service, and what went to it."""

        __slots__ = ("_goes_to", "bytes", "connections", "dscp", "packets")

        packets: int
        bytes: int
        connections: int
        dscp: int
        _goes_to: Any

    class PeerState:
        """The parts of one peer, for the twin to find, and where it is."""

        __slots__ = (
            "asking", "contact", "is_held", "keypairs", "local", "number", "path", "traffic", "tunnel", "unsealed",
        )  # fmt: skip

        number: int
        is_held: bool
        traffic: Any
        contact: Any
        path: Any
        asking: Any
        local: Any
        keypairs: Any
        tunnel: Any
        unsealed: Any

        def move(self, address: bytes, port: int = 0, flow: int = 0, scope: int = 0) -> None:
            """Send to *address*, packed; to none with no bytes."""

else:
    ReplayWindow = native.core.ReplayWindow
    TrafficState, ContactState, PathState, AskingState = (
        native.core.TrafficState,
        native.core.ContactState,
        native.core.PathState,
        native.core.AskingState,
    )
    DiscoveryState, BatchingState = native.core.DiscoveryState, native.core.BatchingState
    UdpSocketState, LocalEndState = native.core.UdpSocketState, native.core.LocalEndState
    TunnelState, UnsealedState, ServerState = (
        native.core.TunnelState,
        native.core.UnsealedState,
        native.core.ServerState,
    )
    StationState = native.core.StationState
    UnitSizeState, UnitKeyState, BulkState = (
        native.core.UnitSizeState,
        native.core.UnitKeyState,
        native.core.BulkState,
    )
    KeypairState, KeypairsState, PeerState = (
        native.core.KeypairState,
        native.core.KeypairsState,
        native.core.PeerState,
    )
