"""Answers `wg` and other programs that speak WireGuard's cross-platform interface.

It shows the values in force; settings take effect like a new peers file, or not at all.  Clients are root's programs,
but none may hold up another: the cost of each is bounded.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import trio

from overlay import ticks
from overlay.amending import merged_of
from overlay.doors.accepting import take_each
from overlay.doors.giving_way import GaveWayError, WaitingClients
from overlay.ending import StoppedError
from overlay.errors import ConfigError, HostError
from overlay.host import clock
from overlay.host.process import memory
from overlay.host.sockets import uapi_socket
from overlay.uapi.errors import FAILED, PROTOCOL, TOO_LONG, RefusedError
from overlay.uapi.language import GET, SET, DeviceChange, ShownDevice, ShownPeer, describe, parse_set, result
from overlay.wire.addresses import format_sockaddr
from peers.addresses import host_prefix
from peers.garbage import growing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from overlay.answers.running import Running
    from overlay.config import Node
    from overlay.host.sockets.uapi_socket import UapiSocket
    from overlay.link.messages import PeerCounters
    from overlay.uapi.amended import Merged
    from peers.addresses import Prefix
    from peers.peer import Peer

# Ours
CONNECTIONS = 64  # at once; a further one replaces the connection that has been idle for longest
REQUEST_SIZE = 64 * 1024 * 1024  # bytes; ten thousand peers with ten prefixes each take 7 MB
PIECE = 64 * 1024  # bytes that are read or sent at once
PEERS_AT_ONCE = 100  # shown before other tasks have their turn, which takes one millisecond
IDLE_TIME = 60.0  # seconds until a request has begun
REQUEST_TIME = 10.0  # seconds until it has arrived completely, and for a piece of the answer to be read
MANY_PEERS = 1000  # changed by one request; from there on, living objects are exempt from garbage collection
RETRY_INTERVAL = 5.0  # seconds until the socket is tried again while another process has it

log = logging.getLogger("overlay")


async def serve(running: Running, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer for the interface of *running*, as soon as the socket is free; reports that it has started after the first
    attempt.

    A bare node does not run without a socket: raises HostError if it is taken, and StoppedError if it is removed.
    """
    answering, is_told = _Answering(running), False
    while True:
        try:
            opened = uapi_socket.listen(running.host.interface, running.options.wg_directory)
        except HostError as error:
            if running.node().is_bare:
                raise
            if (
                not is_told
            ):  # the network namespaces of one machine share the directory: the overlay works without wg
                is_told = True
                log.info("wg does not reach this node: %s", error)
                task_status.started()
            await trio.sleep(RETRY_INTERVAL)
            continue
        if not is_told:
            is_told = True
            task_status.started()
        try:
            await _answer_at(opened, answering)
        finally:
            opened.close()
        if running.node().is_bare:
            log.info("stopping cause=socket_removed")
            raise StoppedError


async def _answer_at(opened: UapiSocket, answering: _Answering) -> None:
    """Answer at *opened* until it is removed."""
    raw = trio.socket.from_stdlib_socket(opened.socket.dup())
    async with trio.SocketListener(raw) as incoming, trio.open_nursery() as nursery:
        take = partial(take_each, give_way=answering.waiting.give_way)
        nursery.start_soon(take, incoming, answering.converse, CONNECTIONS, "questions of wg")
        while opened.is_there():
            await ticks.next_second()
            await answering.look_at_link()
        nursery.cancel_scope.cancel()


class _Answering:
    def __init__(self, running: Running) -> None:
        self._running = running
        self.waiting = WaitingClients()
        self._moments: dict[
            int, tuple[float, int]
        ] = {}  # of handshakes, by peer: since boot, and by the wall clock

    async def look_at_link(self) -> None:
        """Start keepalives once the interface of a bare node is up; they continue if it goes down later."""
        if self._running.node().is_down and self._running.host.is_up:
            await self._running.amend(DeviceChange(is_up=True))

    async def converse(self, stream: trio.SocketStream) -> None:
        """Answer one request after the other, until there is none."""
        rest = bytearray()
        try:
            while (request := await self._read(stream, rest)) is not None:
                if not await self._answer(request, stream):
                    return
        except (trio.BrokenResourceError, trio.TooSlowError, GaveWayError):
            pass  # nobody reads it, or another client needs the place
        except RefusedError as error:
            log.warning("wg was refused: %s", error)
            with contextlib.suppress(trio.BrokenResourceError, trio.TooSlowError, GaveWayError):
                await self._send(stream, result(error.number))

    async def _answer(self, request: bytes, stream: trio.SocketStream) -> bool:
        """Answer *request*; return whether another may follow."""
        first, _, rest = request.partition(b"\n")
        match first.decode(errors="replace"):
            case word if word == GET and not rest:
                await self._show(stream)
                return True
            case word if word == SET:
                await self._send(stream, result(await self._set(rest)))
                return True
        await self._send(stream, result(PROTOCOL))
        return False

    # get

    async def _show(self, stream: trio.SocketStream) -> None:
        counted = await self._running.count()
        if not counted.is_complete:
            log.warning("wg got no answer: the forwarder did not report its counters")
            await self._send(stream, result(FAILED))
            return
        node = self._running.node()
        merged, allowed = await trio.to_thread.run_sync(what_to_show, node)
        plan = self._running.host.plan
        mark = (plan.fwmark if plan is not None else None) or 0
        device = ShownDevice(merged.private_key, self._running.host.port or 0, mark)
        pieces: list[str] = []
        for number, text in enumerate(describe(device, self._peers(merged, allowed, counted.peers)), 1):
            pieces.append(text)
            if number % PEERS_AT_ONCE == 0:
                await self._send(stream, "".join(pieces))
                pieces.clear()
                await trio.lowlevel.checkpoint()
        await self._send(stream, "".join(pieces) + result())

    def _peers(
        self, merged: Merged, allowed: Mapping[str, list[Prefix]], counters: Mapping[int, PeerCounters]
    ) -> Iterator[ShownPeer]:
        engine, former = self._running.engine, self._moments
        self._moments = {}
        for public_key, peer in merged.peers.items():
            remote = engine.roster.by_name.get(peer.name)
            endpoint, handshake_ns, counted = None, 0, None
            if remote is not None and remote.encapsulation.is_encrypted:
                counted = counters.get(remote.number)
                endpoint = counted.endpoint if counted is not None else remote.endpoint
                completed = engine.sessions.status(remote.number).completed_at
                if completed is not None:
                    # The same time in every answer, although the wall clock is read again.
                    at, wall = former.get(remote.number, (-1.0, 0))
                    if at != completed:
                        wall = clock.wall_ns() - int((clock.now() - completed) * 1e9)
                    self._moments[remote.number] = completed, wall
                    handshake_ns = wall
            yield ShownPeer(
                public_key,
                merged.preshared_keys.get(peer.name),
                format_sockaddr(endpoint) if endpoint is not None else _configured(peer),
                peer.keepalive,
                tuple(allowed.get(peer.name, ())),
                handshake_ns,
                counted.tx_bytes if counted is not None else 0,
                counted.rx_bytes if counted is not None else 0,
            )

    # set

    async def _set(self, request: bytes) -> int:
        """Apply what *request* sets; return 0, or a positive errno."""
        try:
            with growing():
                change = await trio.to_thread.run_sync(_parse, request)
                await self._running.amend(change)
        except RefusedError as error:
            log.warning("wg was refused: %s", error)
            return error.number
        except (ConfigError, HostError) as error:
            log.warning("wg was refused: %s", error)
            cause = error.__cause__
            return (cause.errno if isinstance(cause, OSError) else None) or FAILED
        if len(change.peers) >= MANY_PEERS:
            memory.settle()
        log.info("changed cause=wg peers=%d", len(self._running.roster.by_number))
        return 0

    # The client

    async def _read(self, stream: trio.SocketStream, rest: bytearray) -> bytes | None:
        """Return the next request, without the empty line that ends it; None if the client sends none.

        The bytes after it stay in *rest*.  Raises RefusedError if the request is too long.
        """
        deadline, searched = trio.current_time() + (REQUEST_TIME if rest else IDLE_TIME), 0
        while (at := rest.find(b"\n\n", searched)) < 0:
            searched = max(0, len(rest) - 1)
            if len(rest) > REQUEST_SIZE:
                raise RefusedError(TOO_LONG, f"wg sent more than {REQUEST_SIZE >> 20} MiB at once")
            with trio.move_on_at(deadline) as patience, self.waiting.for_client():
                chunk = await stream.receive_some(PIECE)
            if patience.cancelled_caught or not chunk:
                return None
            if not rest:
                deadline = trio.current_time() + REQUEST_TIME
            rest += chunk
        request = bytes(rest[:at])
        del rest[: at + 2]
        return request

    async def _send(self, stream: trio.SocketStream, text: str) -> None:
        """Send *text*.  Raises TooSlowError if nobody reads it."""
        data = text.encode()
        for at in range(0, len(data), PIECE):
            with trio.fail_after(REQUEST_TIME), self.waiting.for_client():
                await stream.send_all(data[at : at + PIECE])


def _parse(request: bytes) -> DeviceChange:
    """Return the settings in *request*.  Raises RefusedError."""
    return parse_set(request.decode(errors="replace").split("\n") if request else ())


def what_to_show(node: Node) -> tuple[Merged, dict[str, list[Prefix]]]:
    """Return what is in force, and the prefixes of each peer by its name."""
    merged, allowed = merged_of(node), defaultdict[str, "list[Prefix]"](list)
    for prefix, name in node.table.routes:
        allowed[name].append(prefix)
    for peer in merged.peers.values():
        if peer.name not in node.table.peers:  # the peer waits for a private key
            alone = (each for each in peer.addresses if not any(each in subnet for subnet in peer.subnets))
            allowed[peer.name] = [*peer.subnets, *map(host_prefix, alone)]
    return merged, allowed


def _configured(peer: Peer) -> str | None:
    """Return the endpoint of *peer* if it is an address."""
    return str(peer.endpoint) if peer.endpoint is not None and peer.endpoint.address is not None else None
