"""A virtual address: each packet to it is for a server of one of its services, or is answered here.

choose() is called for each packet, or each super-packet; for one of a known flow it takes about a microsecond.
Everything else takes the slow path, which begins at _other(): first packets, ends of connections, fragments, ICMP.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from overlay.forwarding.ratelimit import Bucket
from overlay.forwarding.services.answers import echo_reply, flags_of, refusal
from overlay.forwarding.services.errors import about, is_error
from overlay.forwarding.services.fragments import Fragments
from overlay.forwarding.services.headers import SUFFIXES, Upper, upper_of
from overlay.reasons import Drops
from overlay.services.states import CLOSING, State, after_datagram, after_tcp
from overlay.wire.dscp import set_dscp
from overlay.wire.ip import PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP
from overlay.wire.tcp import ACK, FIN, RST, SYN
from overlay.wire.virtio import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.services.errors import About
    from overlay.forwarding.services.flows import Shard
    from overlay.forwarding.services.server import Server
    from overlay.forwarding.services.service import Service

# Of IPv4 without options: first byte, flags and offset of fragments, protocol, the addresses and ports, flags of TCP
_HEAD_V4 = struct.Struct("!B5xHxB2x12s9xB")
# Of IPv6 without extensions: next header, the addresses and ports, flags of TCP
_HEAD_V6 = struct.Struct("!6xBx36s9xB")
_NO_OPTIONS = 0x45
_FRAGMENT = 0x3FFF  # flags and offset of a fragment
_CHANGES = FIN | SYN | RST

# Ours
SERVICE = -1  # the number of a virtual address, where peers have theirs
ANSWERS_PER_SECOND = 5000.0  # RSTs, ICMP errors and echo replies of all virtual addresses together
_PROTOCOLS = (PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP)
_ESTABLISHED, _UDP = int(State.ESTABLISHED), int(State.UDP)
_CLOSING = frozenset(map(int, CLOSING))


class Goal(NamedTuple):
    """The server that a packet is for.  Packets of health checks are led there and not counted among the clients'."""

    service: Service
    server: Server | None  # None for a check of one that is gone
    is_check: bool = False


@dataclass(slots=True)
class Shared:
    """What all virtual addresses have in common.

    *write* puts a packet into the tun, its virtio header before it.  *resend* has packets that were held go the way of
    packets from the tun once more, after the batch.  *pins* lead flows of health checks to the server of a number,
    whatever its state.
    """

    write: Callable[[Iterable[bytes]], None]
    resend: Callable[[list[bytes]], None]
    drops: Drops = field(default_factory=Drops)
    fragments: Fragments[Goal] = field(init=False)
    pins: dict[bytes, tuple[Service, int]] = field(default_factory=dict)
    answers: Bucket = field(default_factory=lambda: Bucket(ANSWERS_PER_SECOND, ANSWERS_PER_SECOND))

    def __post_init__(self) -> None:
        self.fragments = Fragments(self.drops)


class Vip:
    """One virtual address, in the place of a peer in the table of routes."""

    number = SERVICE

    def __init__(self, address: bytes, shared: Shared) -> None:
        self.address = address
        self._shared = shared
        self._rules: dict[int, list[tuple[int, int, Service]]] = {}
        # By protocol, and by the two bytes of a port that was looked for
        self._ports: list[dict[bytes, Service | None]] = [{} for _ in range(256)]

    def set_rules(self, rules: Iterable[tuple[int, int, int, Service]]) -> None:
        """Set the services by ranges of ports: protocol, first and last port, service.  The narrowest range wins."""
        self._rules = {}
        for protocol, first, last, service in sorted(rules, key=lambda rule: rule[2] - rule[1]):
            self._rules.setdefault(protocol, []).append((first, last, service))
        self._ports = [{} for _ in range(256)]

    def service(self, protocol: int, port: bytes) -> Service | None:
        """Return the service that has a port, of 2 bytes; None if none has it."""
        known = self._ports[protocol]
        if port not in known:
            number = int.from_bytes(port, "big")
            rules = self._rules.get(protocol, ())
            known[port] = next((each for first, last, each in rules if first <= number <= last), None)
        return known[port]

    def choose(self, packet: memoryview, now: float, count: int = 1, total: int = -1) -> LivePeer | None:
        """Return the peer of the server that *packet* is for; None if it was answered, held or dropped.

        *packet* is a whole IP packet or super-packet to this address, and may be changed.  It stands for *count*
        packets of *total* bytes together, by default what it has itself.
        """
        size = len(packet)
        if total < 0:
            total = size
        if size >= _HEAD_V4.size:
            first, fragment, protocol, key, flags = _HEAD_V4.unpack_from(packet)
            if first != _NO_OPTIONS:
                if first >> 4 != 6 or size < _HEAD_V6.size:
                    return self._other(packet, now, count, total)
                protocol, key, flags = _HEAD_V6.unpack_from(packet)
            elif fragment & _FRAGMENT:
                return self._other(packet, now, count, total)
            service: Service | None = self._ports[protocol].get(key[-2:])
            if service is not None:
                if protocol != PROTOCOL_TCP:
                    key += SUFFIXES[protocol]
                flows = service.flows
                shard = flows.shards[hash(key) & flows.mask]
                row = shard.index.get(key)
                if row is not None:
                    state = shard.state[row]
                    server = service.servers[shard.server[row]]
                    peer = server.peer
                    if (state == _ESTABLISHED and not flags & _CHANGES) or state == _UDP:
                        shard.seen[row] = now
                    elif (flags & SYN and protocol == PROTOCOL_TCP) or flows.is_over(shard, row, now):
                        peer = None
                    elif peer is not None:
                        self._note(service, shard, row, server, protocol, flags, now)
                    if peer is not None:
                        server.packets += count
                        server.bytes += total
                        if server.dscp:
                            set_dscp(packet, server.dscp)
                        return peer
        return self._other(packet, now, count, total)

    def known(self, packet: memoryview) -> tuple[bytes, Shard, int, Server] | None:
        """Return the key, the row and the server of a flow that is known, and changed neither by *packet* nor its
        packets on their way; None for any other.  Nothing is counted or noted.
        """
        upper = upper_of(packet)
        if upper is None or upper.fragment or upper.protocol not in _PROTOCOLS or len(packet) < upper.at + 20:
            return None
        at, protocol = upper.at, upper.protocol
        service = self.service(protocol, bytes(packet[at + 2 : at + 4]))
        if service is None or (protocol == PROTOCOL_TCP and flags_of(packet, at) & _CHANGES):
            return None
        addresses = bytes(packet[12:20]) if packet[0] >> 4 == 4 else bytes(packet[8:40])
        key = addresses + bytes(packet[at : at + 4]) + SUFFIXES[protocol]
        found = service.flows.find(key)
        if found is None or found[0].state[found[1]] not in {_ESTABLISHED, _UDP}:
            return None
        return key, *found, service.servers[found[0].server[found[1]]]

    def peek(self, packet: memoryview) -> LivePeer | None:
        """Return the peer of a flow that is known, see known(); None where each packet is to be marked."""
        found = self.known(packet)
        return None if found is None or found[3].dscp else found[3].peer

    # The slow path

    def _other(self, packet: memoryview, now: float, count: int, total: int) -> LivePeer | None:
        upper = upper_of(packet)
        if upper is None:
            self._shared.drops.add("tun_malformed", count, packet)
            return None
        if upper.is_later:
            found = self._later_fragment(packet, upper, now)
        elif upper.protocol in _PROTOCOLS:
            found = self._of_flow(packet, upper, now, count)
        else:
            found = self._message(packet, upper, now)
        if found is None:
            return None
        service, server, is_check = found
        if upper.fragment and not upper.is_later:
            held = self._shared.fragments.first(upper.fragment, found, now)
            if held:
                self._shared.resend(held)
        peer = None if server is None else server.peer
        if server is None or peer is None:
            service.drops.add("service_gone", count, packet)
            return None
        if not is_check:
            server.packets += count
            server.bytes += total
        if server.dscp:
            set_dscp(packet, server.dscp)
        return peer

    def _later_fragment(self, packet: memoryview, upper: Upper, now: float) -> Goal | None:
        found = self._shared.fragments.later(upper.fragment, now)
        if found is None:
            self._shared.fragments.hold(upper.fragment, bytes(packet), now)
        return found

    def _pinned(self, key: bytes) -> Goal | None:
        """Return where packets of a health check go; None for a flow that is none."""
        pin = self._shared.pins.get(key)
        if pin is None:
            return None
        service, number = pin
        return Goal(service, service.numbered(number), is_check=True)

    def _of_flow(self, packet: memoryview, upper: Upper, now: float, count: int) -> Goal | None:
        """Return the server of a packet with ports, and note what the packet says of its flow."""
        at, protocol, shared = upper.at, upper.protocol, self._shared
        if len(packet) < at + 4:
            shared.drops.add("tun_malformed", count, packet)
            return None
        addresses = bytes(packet[12:20]) if packet[0] >> 4 == 4 else bytes(packet[8:40])
        ports = bytes(packet[at : at + 4])
        key = addresses + ports + SUFFIXES[protocol]
        pinned = self._pinned(key)
        if pinned is not None:
            return pinned
        service = self.service(protocol, ports[2:])
        if service is None:
            self._refuse(shared.drops, "service_port", packet, upper, now, count)
            return None
        flags = flags_of(packet, at) if protocol == PROTOCOL_TCP else 0
        is_syn = flags & (SYN | ACK | RST) == SYN
        found = service.flows.find(key)
        if found is not None:
            server = service.servers[found[0].server[found[1]]]
            if self._is_over(service, found, server, now, is_syn=is_syn):
                service.flows.remove(found[0], key)
                if server.peer is None and protocol == PROTOCOL_TCP and not is_syn:
                    self._refuse(service.drops, "service_gone", packet, upper, now, count)
                    return None
            else:
                self._note(service, *found, server, protocol, flags, now)
                return Goal(service, server)
        half = len(self.address)
        client, address = addresses[:half], addresses[half:]
        if protocol == PROTOCOL_TCP and not is_syn:
            if now < service.learns_until and (service.is_draining or not service.selection.is_function):
                service.drops.add("service_preparing", count, packet)
                return None
            if not service.selection.is_function:
                self._refuse(service.drops, "service_unknown", packet, upper, now, count)
                return None
        elif not service.may_begin(now):
            service.drops.add("service_rate", count, packet)
            return None
        chosen = service.choose(client, ports[:2], address, now)
        if chosen is None:
            if not service.scheduler_of(packet[0] >> 4).is_ready:
                service.drops.add("service_preparing", count, packet)
                return None
            self._refuse(service.drops, "service_empty", packet, upper, now, count)
            return None
        if protocol != PROTOCOL_TCP and service.settings.one_packet:
            service.pass_by(client, chosen, now)
            return Goal(service, chosen)
        state = after_tcp(State.NONE, flags) if protocol == PROTOCOL_TCP else after_datagram(State.NONE)
        if state is not State.CLOSE and not service.begin(key, state, chosen, now):
            service.drops.add("service_full", count, packet)
            return None
        return Goal(service, chosen)

    @staticmethod
    def _is_over(
        service: Service, found: tuple[Shard, int], server: Server, now: float, *, is_syn: bool
    ) -> bool:
        """Return whether a flow is over before this packet, which then belongs to another one."""
        shard, row = found
        if server.peer is None or service.flows.is_over(shard, row, now):
            return True
        return is_syn and shard.state[row] in _CLOSING and not server.takes_new

    @staticmethod
    def _note(
        service: Service,
        shard: Shard,
        row: int,
        server: Server,
        protocol: int,
        flags: int,
        now: float,
    ) -> None:
        """Note a packet of a flow that is there."""
        before = shard.state[row]
        after = after_tcp(before, flags) if protocol == PROTOCOL_TCP else after_datagram(before)
        if after != before:
            if after is State.SYN_RECV:
                server.connections += 1
            service.flows.set_state(shard, row, after)
        shard.seen[row] = now

    def _message(self, packet: memoryview, upper: Upper, now: float) -> Goal | None:
        """Return the server that an ICMP message is for; answer echo requests."""
        at, protocol, shared = upper.at, upper.protocol, self._shared
        if protocol != (PROTOCOL_ICMP if len(self.address) == 4 else PROTOCOL_ICMPV6):
            shared.drops.add("service_protocol", 1, packet)
            return None
        if is_error(packet, upper):
            quoted = about(packet, upper)
            found = None if quoted is None else self._concerned(quoted, now)
            if found is None:
                shared.drops.add("service_icmp", 1, packet)
            return found
        if shared.pins and len(packet) >= at + 6:
            addresses = bytes(packet[12:20]) if packet[0] >> 4 == 4 else bytes(packet[8:40])
            pinned = self._pinned(addresses + bytes(packet[at + 4 : at + 6]) + bytes([0, 0, protocol]))
            if pinned is not None:
                return pinned
        reply = None if upper.fragment else echo_reply(packet, at)
        if reply is None:
            shared.drops.add("service_icmp", 1, packet)
        else:
            self._answer(reply, now)
        return None

    def _concerned(self, quoted: About, now: float) -> Goal | None:
        """Return the server of a flow, or the one that would get it."""
        protocol, key = quoted
        if protocol not in _PROTOCOLS:
            return None
        pinned = self._pinned(key + SUFFIXES[protocol])
        if pinned is not None:
            return pinned
        service = self.service(protocol, key[-2:])
        if service is None:
            return None
        found = service.flows.find(key + SUFFIXES[protocol])
        if found is not None:
            server: Server | None = service.servers[found[0].server[found[1]]]
        else:
            half = len(self.address)
            server = (
                service.choose(key[:half], key[-4:-2], self.address, now)
                if service.selection.is_function
                else None
            )
        return None if server is None or server.peer is None else Goal(service, server)

    def _refuse(
        self, drops: Drops, reason: str, packet: memoryview, upper: Upper, now: float, count: int
    ) -> None:
        """Drop a packet, and tell its sender that it is refused."""
        drops.add(reason, count, packet)
        answer = refusal(packet, upper.protocol, upper.at)
        if answer is not None:
            self._answer(answer, now)

    def _answer(self, packet: bytes, now: float) -> None:
        if self._shared.answers.take(1, now):
            self._shared.write([PLAIN, packet])
