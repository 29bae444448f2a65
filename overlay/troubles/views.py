"""What the peers files of two agents say about the two: each reports its view on request, so that they can be compared.

If the files differ, the tunnel works, but packets are dropped at one end for their sources, unseen at the other.
"""

from __future__ import annotations

import itertools
import os
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING

import trio

from overlay.diagnosis.finding import Finding
from overlay.errors import PacketError
from overlay.link.messages import ControlReceived, SendControl
from overlay.wire import control
from overlay.wire.views import PREFIXES, ViewAsked, ViewTold
from peers.addresses import host_prefix
from peers.prefixes import PrefixMap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from overlay.config import Node
    from overlay.link.messages import Command, ServiceReport
    from overlay.roster import Remote, Roster
    from peers.addresses import Prefix
    from peers.peer import Peer

# Ours
PAUSE = 0.25  # seconds between two requests: the first may only have made the two say hello
SHOWN = 3  # prefixes in a sentence


class Views:
    """Asks other agents what their peers files say about both ends, and answers such questions."""

    def __init__(
        self, roster: Roster, node: Callable[[], Node], tell: Callable[[Command], Awaitable[object]]
    ) -> None:
        self._roster, self._node, self._tell = roster, node, tell
        self._numbers = itertools.count(int.from_bytes(os.urandom(6)))
        self._asked: dict[
            int, tuple[int, trio.MemorySendChannel[ViewTold]]
        ] = {}  # by identifier: the peer's number

    async def take(self, report: ControlReceived | ServiceReport) -> bool:
        """Handle a message about views; return False for any other."""
        if not isinstance(report, ControlReceived) or not control.is_about_views(report.payload):
            return False
        remote = self._roster.by_number.get(report.peer)
        try:
            message = control.parse(report.payload)
        except PacketError:
            return False
        match message:
            case ViewAsked() if remote is not None:
                told = tell_view(self._node(), remote.peer, message.identifier)
                await self._tell(SendControl([remote.number], control.build(told), is_for_agents=True))
            case ViewTold():
                number, asker = self._asked.get(message.identifier, (None, None))
                if asker is not None and number == report.peer:
                    del self._asked[message.identifier]
                    asker.send_nowait(message)
        return True

    async def ask(self, remote: Remote, timeout: float) -> ViewTold | None:
        """Return the view of *remote*; None if it does not answer within *timeout* seconds, as WireGuard never does."""
        identifier = next(self._numbers)
        told, answers = trio.open_memory_channel[ViewTold](1)
        self._asked[identifier] = remote.number, told
        request = SendControl([remote.number], control.build(ViewAsked(identifier)), is_for_agents=True)
        with told, answers:
            try:
                with trio.move_on_after(timeout):
                    while True:
                        await self._tell(request)
                        with trio.move_on_after(PAUSE):
                            return await answers.receive()
            finally:
                self._asked.pop(identifier, None)
        return None

    async def differences(self, remotes: Iterable[Remote], timeout: float) -> list[Finding]:
        """Return how the views of those of *remotes* that answer in time differ from this node's."""
        found: list[Finding] = []

        async def ask(remote: Remote) -> None:
            told = await self.ask(remote, timeout)
            if told is not None:
                found.extend(compare(self._node(), remote.peer, told))

        async with trio.open_nursery() as nursery:
            for remote in remotes:
                nursery.start_soon(ask, remote)
        return found


def tell_view(node: Node, peer: Peer, identifier: int) -> ViewTold:
    """Return what *node*'s table says about it and about *peer*."""
    mine, yours = prefixes_of(node.own), prefixes_of(peer)
    return ViewTold(identifier, mine[:PREFIXES], yours[:PREFIXES], len(yours) > PREFIXES)


def prefixes_of(peer: Peer) -> tuple[Prefix, ...]:
    """Return the subnets of *peer*, and its addresses outside of them."""
    alone = (
        each
        for each in peer.addresses
        if not any(each.version == one.version and each in one for one in peer.subnets)
    )
    return (*peer.subnets, *map(host_prefix, alone))


def compare(node: Node, peer: Peer, told: ViewTold) -> Iterator[Finding]:
    """Yield the differences between the view of *peer*, as *told*, and *node*'s by which one end drops packets.

    A larger prefix at the receiving end drops nothing, and may be intended.
    """
    name, own = peer.name, node.own.name
    theirs = _whole(prefixes_of(peer))
    foreign = [
        each
        for each in told.mine
        if (owner := _owner(node, each)) != name and (owner is not None or not any(theirs.covering(each)))
    ]
    if foreign:
        yield Finding(
            "files_differ",
            f"{name} says that it has {_listed(foreign)}, which the peers file here does not give it, so packets from "
            "there are dropped here",
            f"make the sections about {name} in the peers files of both hosts alike",
            name,
        )
    if told.has_more:
        return
    given = _whole(told.yours)
    missing = [each for each in prefixes_of(node.own) if not any(given.covering(each))]
    if missing:
        yield Finding(
            "files_differ",
            f"the peers file of {name} does not give this node {_listed(missing)}, so packets from there are dropped "
            f"by {name}",
            f"make the sections about {own} in the peers files of both hosts alike",
            name,
        )


def _whole(prefixes: Iterable[Prefix]) -> PrefixMap[bool]:
    """Return the prefixes as a map.  Two halves of a prefix, as the other end may write it, count as the whole."""
    listed = list(prefixes)
    whole: list[Prefix] = [
        *collapse_addresses(each for each in listed if isinstance(each, IPv4Network)),
        *collapse_addresses(each for each in listed if isinstance(each, IPv6Network)),
    ]
    return PrefixMap((prefix, True) for prefix in whole)


def _owner(node: Node, prefix: Prefix) -> str | None:
    """Return the peer that has all of *prefix* in the table of *node*; None if none has."""
    return next((owner for _, owner in node.table.owners.covering(prefix)), None)


def _listed(prefixes: Iterable[Prefix]) -> str:
    listed = list(map(str, prefixes))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{', '.join(listed[:SHOWN])}{more}"
