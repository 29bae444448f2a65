"""The locations of Ethernet addresses, as known by a bridge whose ports are the tap and each peer.

It learns from the source of every frame, forgets after a while of silence, and is told of static addresses, which never
move.  A frame of a peer goes to the tap and nowhere else: all nodes reach each other directly, so frames from one peer
are never sent to another, and nothing can loop between them.

It also knows who has which IP address, from the peers file and from frames, and answers questions on behalf of others
that would otherwise be flooded to every node (as RFC 9161 describes it for ARP and for neighbour solicitations).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from overlay.errors import PacketError
from overlay.forwarding import state
from overlay.link.messages import OWN
from overlay.wire import frames
from overlay.wire.ethernet import ETHERNET_SIZE, ETHERTYPE_IPV4, GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from overlay.wire.frames import Announcement
    from overlay.wire.ip import Buffer

V = TypeVar("V")

_IPV4 = ETHERTYPE_IPV4.to_bytes(2, "big")

# Specification (IEEE 802.1Q section 8.8.3)
AGEING_TIME = 300.0  # seconds without a frame, after which an address is forgotten

# Ours
# seconds for which a source seen on the tap is not believed of a peer: our own frame has come back, within that time
HOLD_TIME = 1.0
FRESH_TIME = 30.0  # seconds since the last frame of a station for which others are answered in its place
REMEMBERED = 16_384  # frames with another header, until what they came to is looked up again
MOST = 4096  # addresses learnt at one place, the longest silent forgotten first, so that no peer crowds out another's
AT_ONCE = 2  # of them are forgotten for one that comes, where fewer are to be known than there were


class _Entry(state.StationState, Generic[V]):
    """What was seen: at which owner, and when last."""

    __slots__ = ("moved_at", "owner", "value")

    def __init__(self, owner: int, value: V, now: float, moved_at: float) -> None:
        self.owner, self.value, self.seen_at = owner, value, now
        self.moved_at = moved_at  # when it was seen at another owner than before; -inf if it was unknown then


class _Learnt(Generic[V]):
    """The entries of all peers, for a while, and at most *most* of each.

    An entry that is forgotten looks like one that was not seen for too long: code that still holds it can tell by its
    time.  The time is kept in the entry and nowhere else, so that code that holds it may note that it was seen again.
    """

    def __init__(self, most: int, crowded: Callable[[int], None] = lambda _: None) -> None:
        """*crowded* is called with an owner when one of its entries had to go before its time."""
        self.most, self._crowded = most, crowded
        self._entries: dict[bytes, _Entry[V]] = {}
        self._of: dict[int, dict[bytes, _Entry[V]]] = {}  # of each owner
        # Of an owner that was crowded, when each was seen, the longest silent last.  It is valid for those that were
        # not seen since, because all others were seen later, and is made again when it is used up.
        self._silent: dict[int, list[tuple[float, bytes]]] = {}

    def find(self, key: bytes, now: float) -> _Entry[V] | None:
        """Return the entry of *key*, if it was seen lately."""
        entry = self._entries.get(key)
        return entry if entry is not None and now - entry.seen_at < AGEING_TIME else None

    def last(self, key: bytes) -> _Entry[V] | None:
        """Return the last entry of *key*, however long ago it was seen."""
        return self._entries.get(key)

    def see(self, key: bytes, owner: int, value: V, now: float) -> None:
        """Note that *key* was seen at *owner*, wherever it was before."""
        entry = self._entries.get(key)
        if entry is not None and entry.owner == owner:
            entry.value, entry.seen_at = value, now
            return
        is_move = entry is not None and now - entry.seen_at < AGEING_TIME
        self.forget(key)
        those = self._of.setdefault(owner, {})
        for _ in range(AT_ONCE):
            if len(those) < self.most:
                break
            silent = self._longest_silent(owner)
            if now - those[silent].seen_at < AGEING_TIME:
                self._crowded(owner)
            self.forget(silent)
        self._entries[key] = those[key] = _Entry(owner, value, now, now if is_move else -math.inf)

    def forget(self, key: bytes) -> None:
        """Forget *key*, if it is known."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            del self._of[entry.owner][key]
            entry.seen_at = -math.inf

    def forget_all_of(self, owner: int) -> None:
        """Forget what was seen at *owner*."""
        self._silent.pop(owner, None)
        for key in self._of.pop(owner, ()):
            self._entries.pop(key).seen_at = -math.inf

    def count(self, owner: int, now: float) -> int:
        """Return how many entries *owner* has; those that are too old are forgotten."""
        those = self._of.get(owner, {})
        for key in [key for key, entry in those.items() if now - entry.seen_at >= AGEING_TIME]:
            self.forget(key)
        return len(those)

    def _longest_silent(self, owner: int) -> bytes:
        """Return the key of *owner*, who has one at least, that was not seen for the longest time."""
        those, silent = self._of[owner], self._silent.get(owner, [])
        while True:
            while silent:
                seen_at, key = silent.pop()
                entry = those.get(key)
                if entry is not None and entry.seen_at == seen_at:
                    return key
            silent = self._silent[owner] = [(entry.seen_at, key) for key, entry in those.items()]
            silent.reverse()  # of those seen at one time, the last
            silent.sort(key=lambda each: each[0], reverse=True)


class _Neighbour(NamedTuple):
    mac: bytes
    is_router: bool


class _Way(NamedTuple):
    """What was decided for a frame of the tap: whom it is for, what was known of that station, None if it is static or
    the frame is for every peer, and whether its sender is known from its frames alone.
    """

    number: int | None
    there: _Entry[None] | None
    is_learnt: bool


def _nothing() -> None:
    """Do nothing: nothing else remembers."""


def _holds(entry: _Entry[None] | None, now: float) -> bool:
    """Return whether a decision from *entry* is still valid; None is that of a static entry, or for every peer."""
    return entry is None or now - entry.seen_at < AGEING_TIME


def _may_say(frame: Buffer) -> bool:
    """Return whether *frame* may tell who has which address."""
    return frame[12:14] != _IPV4 and frames.may_claim(frame)


class Bridge:
    """The addresses of all peers, by peer number; OWN is the side of the tap.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self,
        owner_of: Callable[[bytes], int | None],
        most: int = MOST,
        crowded: Callable[[int], None] = lambda _: None,
    ) -> None:
        """*owner_of* returns the peer that an IP address belongs to by the peers file, or None.

        Of each owner *most* Ethernet addresses are known, and as many IP addresses; *crowded* is called with the owner
        when one of its Ethernet addresses had to be forgotten for another.
        """
        self._owner_of = owner_of
        self.changed: Callable[[], None] = _nothing
        """Called when a static entry changes: remembered results of known() must then be forgotten."""
        self._static: dict[bytes, int] = {}
        # What was decided for frames with one header, and for frames of one peer and source: valid as long as the
        # entries it came from were seen lately, unless a static entry changes.  Unknown addresses are not kept.
        self._of_tap: dict[bytes, _Way] = {}
        self._of_peers: dict[tuple[int, bytes], _Entry[None] | None] = {}
        self._learnt: _Learnt[None] = _Learnt(most, crowded)
        self._hosts: dict[bytes, tuple[int, bytes]] = {}  # by IP address: the owner and its Ethernet address
        self._told: dict[int, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = {}  # what is static, by owner
        self._neighbours: _Learnt[_Neighbour] = _Learnt(most)  # by IP address, as heard

    def set_most(self, most: int) -> None:
        """Know at most *most* addresses of each owner from now on; surplus ones go when others arrive."""
        self._learnt.most = self._neighbours.most = most

    def set_static(self, owner: int, macs: Sequence[bytes], addresses: Iterable[bytes]) -> None:
        """Take *macs* for those that are at *owner* and nowhere else; the first has the IP *addresses*."""
        self._drop_static(owner)
        for mac in macs:
            self._static[mac] = owner
            self._learnt.forget(mac)
        hosts = dict.fromkeys(addresses, (owner, macs[0])) if macs else {}
        self._hosts.update(hosts)
        self._told[owner] = tuple(macs), tuple(hosts)

    def forget(self, owner: int) -> None:
        """Forget a peer that was removed."""
        self._drop_static(owner)
        self._learnt.forget_all_of(owner)
        self._neighbours.forget_all_of(owner)

    def from_tap(self, frame: Buffer, now: float) -> int | None:
        """Learn from a frame of the tap and return whom it is for; None means every peer, OWN means no peer.

        Raises PacketError, with nothing learnt, for a source that no frame has, or that is a peer's.
        """
        header = bytes(frame[:ETHERNET_SIZE])
        way = self._of_tap.get(header)
        if way is not None and not _may_say(frame):
            number, there, is_learnt = way
            if _holds(there, now):
                if is_learnt:
                    self._learnt.see(header[6:12], OWN, None, now)
                return number
        destination, source = header[:6], header[6:12]
        if source[0] & GROUP:
            raise PacketError("frame_source")
        static = self._static.get(source)
        if static is None:
            self._learnt.see(source, OWN, None, now)
        elif static != OWN:
            raise PacketError("mac")
        said = frames.read_neighbour(frame)[1]
        # What claims to be at another is not learnt; those that it is sent to refuse it.
        if said is not None and self._owner_of(said.address) in {None, OWN}:
            self._hear(OWN, said, source, now)
        number, there = None, None
        if not destination[0] & GROUP:
            number = self.locate(destination, now)
            there = self._learnt.find(destination, now) if destination not in self._static else None
        if number is None and not destination[0] & GROUP:
            return None
        if len(self._of_tap) >= REMEMBERED:
            self._of_tap.clear()
        self._of_tap[header] = _Way(number, there, static is None)
        return number

    def from_peer(self, owner: int, frame: Buffer, now: float) -> None:
        """Take note of a frame of *owner*, of which the Ethernet header is enough if it is not about neighbours.

        Raises PacketError, with nothing learnt, for a source that no frame has, that is static elsewhere, or that
        was seen on the tap just now: a frame that came back, over another link between two sites.  Also for a
        claim to an IP address that the peers file gives to another, and for one that is hidden.
        """
        source = bytes(frame[6:12])
        if (owner, source) in self._of_peers and not _may_say(frame):
            here = self._of_peers[owner, source]
            if here is None:
                return
            if now - here.seen_at < AGEING_TIME:
                self._learnt.see(source, owner, None, now)
                return
        if source[0] & GROUP:
            raise PacketError("frame_source")
        static = self._static.get(source, owner)
        if static != owner:
            raise PacketError("mac")
        entry = self._learnt.find(source, now)
        if entry is not None and entry.owner == OWN and now - entry.seen_at < HOLD_TIME:
            raise PacketError("frame_loop")
        if any(self._owner_of(each) not in {None, owner} for each in frames.read_claims(frame)):
            raise PacketError("neighbour")
        said = frames.read_neighbour(frame)[1]
        if said is not None:
            self._hear(owner, said, source, now)
        if source not in self._static:
            self._learnt.see(source, owner, None, now)
        if len(self._of_peers) >= REMEMBERED:
            self._of_peers.clear()
        self._of_peers[owner, source] = self._learnt.find(source, now)

    def locate(self, mac: bytes, now: float) -> int | None:
        """Return whose *mac* is; None if it is unknown."""
        static = self._static.get(mac)
        if static is not None:
            return static
        entry = self._learnt.find(mac, now)
        return None if entry is None else entry.owner

    def sighted(self, mac: bytes, now: float) -> tuple[int | None, float | None]:
        """Return whose *mac* is, None if it is unknown, and when it was heard last, None if it is static."""
        static = self._static.get(mac)
        if static is not None:
            return static, None
        entry = self._learnt.find(mac, now)
        return (None, None) if entry is None else (entry.owner, entry.seen_at)

    def holder(self, address: bytes, now: float) -> bytes | None:
        """Return the Ethernet address of the station that has the IP *address*: as it said, else by the peers file."""
        heard = self._neighbours.find(address, now)
        if heard is not None:
            return heard.value.mac
        told = self._hosts.get(address)
        return None if told is None else told[1]

    def known(self, mac: bytes) -> tuple[int | None, state.StationState | None]:
        """Return whose *mac* was when it was heard last, and the station whose time limits that.

        Without a station it is static, which holds until a static entry changes; None means unknown.
        """
        static = self._static.get(mac)
        if static is not None:
            return static, None
        entry = self._learnt.last(mac)
        return (None, None) if entry is None else (entry.owner, entry)

    def answer(self, frame: Buffer, now: float) -> bytes | None:
        """Return the answer to *frame*, of the tap, on behalf of a peer; None if it must be forwarded.

        A station that asks whether another has the address that it wants, or announces its own, is not answered: the
        holder of the address must receive that.  Nor is a question to one station, which checks whether it is still
        there, or one that the peers file and the station itself answer differently: one of the two has just changed.
        Nor is it answered for a station that has been silent for FRESH_TIME, or was heard at two places lately: whoever
        forged its address, or did not hear it move, would keep its own answer from being asked for.
        """
        asked, _ = frames.read_neighbour(frame)
        if asked is None or not frame[0] & GROUP or asked.mac != bytes(frame[6:12]):
            return None
        if not any(asked.address) or asked.address == asked.target:
            return None
        entry = self._neighbours.find(asked.target, now)
        told = self._hosts.get(asked.target)
        if entry is not None:
            owner, (mac, is_router) = entry.owner, entry.value
            if told not in {None, (owner, mac)}:
                return None
        elif told is not None:
            (owner, mac), is_router = told, False
        else:
            return None
        if owner == OWN or self.locate(mac, now) != owner or not self._is_settled(mac, now):
            return None
        return frames.build_answer(asked, mac, is_router=is_router)

    def _is_settled(self, mac: bytes, now: float) -> bool:
        """Return whether a known station is certainly still where it was heard last."""
        if mac in self._static:
            return True
        entry = self._learnt.find(mac, now)
        return entry is not None and now - entry.seen_at < FRESH_TIME and now - entry.moved_at >= AGEING_TIME

    def learnt(self, owner: int, now: float) -> int:
        """Return how many Ethernet addresses have been learnt at *owner* and are still known."""
        return self._learnt.count(owner, now)

    def _hear(self, owner: int, said: Announcement, source: bytes, now: float) -> None:
        """Learn who has an IP address, unless a station speaks for another."""
        if said.mac == source:
            self._neighbours.see(said.address, owner, _Neighbour(said.mac, said.is_router), now)

    def _drop_static(self, owner: int) -> None:
        self._of_tap.clear()
        self._of_peers.clear()
        self.changed()
        macs, addresses = self._told.pop(owner, ((), ()))
        for mac in macs:
            if self._static.get(mac) == owner:  # not given to another meanwhile
                del self._static[mac]
        for address in addresses:
            if address in self._hosts and self._hosts[address][0] == owner:
                del self._hosts[address]
