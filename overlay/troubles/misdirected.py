"""Senders of handshakes that are made for another public key: usually peers with a wrong key for this node.

The mac1 of a handshake message is keyed by the public key of its recipient (whitepaper section 5.4.4).  So a message
for another node can be recognized, and whether it is for a key of the peers file.  Its source address can be forged, so
the only consequence is a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from overlay.crypto import cookies
from overlay.diagnosis.finding import Finding
from overlay.durations import format_duration
from overlay.wire.addresses import format_sockaddr
from peers.peer import format_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlay.wire.addresses import Sockaddr
    from peers.peer import Peer

# Ours
MOST = 16  # hosts
WORTH_TELLING = 3  # messages of one host: a single one may be damaged, or malicious
TOLD_TIME = 3600.0  # seconds for which a host is reported after its last message
TRIED_KEYS = 1000  # of the peers file, for one host; they take a few milliseconds


@dataclass(slots=True)
class MisdirectedCaller:
    """A host, the source and time of its last message, and that message."""

    source: Sockaddr
    datagram: bytes
    last_call: float
    calls: int = 1


class Misdirected:
    """The MOST hosts that sent the most such messages, so that a flood from forged addresses displaces only itself."""

    def __init__(self) -> None:
        self._by_host: dict[str, MisdirectedCaller] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._by_host)

    def note(self, datagram: bytes, source: Sockaddr, now: float) -> bool:
        """Record an initiation that is not for this node; return whether it makes the host worth reporting."""
        known = self._by_host.get(source[0])
        if known is not None:
            known.source, known.datagram, known.last_call = source, datagram, now
            known.calls += 1
            return known.calls == WORTH_TELLING
        if len(self._by_host) >= MOST:
            del self._by_host[
                min(self._by_host.items(), key=lambda each: (each[1].calls, each[1].last_call))[0]
            ]
        self._by_host[source[0]] = MisdirectedCaller(source, datagram, now)
        return False

    def forget(self, host: str) -> None:
        """Forget *host*: a peer there has the right key, or has it again."""
        self._by_host.pop(host, None)

    def describe(
        self, names: Mapping[str, str], own: Peer, others: Iterable[Peer], now: float
    ) -> dict[str, Finding]:
        """Return, by host, a finding on the peer there, if there is one, the last caller first.

        *names* are those of peers by underlay address.
        """
        if own.public_key is None:
            return {}
        told = [
            (host, caller)
            for host, caller in self._by_host.items()
            if caller.calls >= WORTH_TELLING and now - caller.last_call < TOLD_TIME
        ]
        told.sort(key=lambda each: -each[1].last_call)
        return {host: _describe(caller, names.get(host), own, others, now) for host, caller in told}


def _describe(
    caller: MisdirectedCaller, name: str | None, own: Peer, others: Iterable[Peer], now: float
) -> Finding:
    place = f"the address of {name}" if name is not None else "which is not the address of a known peer"
    age = now - caller.last_call
    since = f" (the last {format_duration(age)} ago)" if age >= 1 else ""
    came = f"arrive from {format_sockaddr(caller.source)}, {place}{since}"
    meant = next((each for each in islice(others, TRIED_KEYS) if _is_for(each, caller.datagram)), None)
    if meant is not None:
        return Finding(
            "wrong_place_there",
            f"handshakes for the public key of {meant.name} {came}",
            f"see whether the peers file there has this node's address as the endpoint of {meant.name}, or the key of "
            f"{meant.name} for {own.name}",
            name,
        )
    assert own.public_key is not None
    return Finding(
        "wrong_key_there",
        f"handshakes for a public key other than this node's {came}",
        f"compare the public_key of {own.name} in the peers file there with {format_public_key(own.public_key)}, "
        "which is this node's",
        name,
    )


def _is_for(peer: Peer, datagram: bytes) -> bool:
    return peer.public_key is not None and cookies.is_mac1_valid(cookies.mac1_key(peer.public_key), datagram)
