"""The forwarder's loop: waits for the tun, the sockets, the agent or a timer, and calls the core for each."""

from __future__ import annotations

import errno
import io
import os
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, cast

from overlay.encap.encapsulation import Role
from overlay.errors import PacketError
from overlay.forwarding import native
from overlay.forwarding.commands import Commands
from overlay.forwarding.core import Core
from overlay.forwarding.lanes import OneLane, compile_core
from overlay.forwarding.native.aes import choose_aes
from overlay.forwarding.poll import Found, Poll
from overlay.forwarding.tun.inbound import DRAIN_BYTES
from overlay.forwarding.underlay.sender import HELD_PAUSE
from overlay.host.paths import PathSocket
from overlay.link.codec import DESCRIPTORS, MESSAGE_BYTES, decode, encode
from overlay.link.messages import Begin, Command, Handshake, Ready, Report, Routes, SetNode, Sockets, Start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.forwarding.commands import AnySocket
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.host.sockets.queues import KernelSocket

# Specification (Linux include/uapi/asm-generic/socket.h)
SO_COOKIE, COOKIE_SIZE = 57, 8  # since Linux 4.12

# Ours
REPORTS_WAITING = (
    20_000  # what the agent has not read yet; beyond that, reports except handshakes are dropped and counted
)
COMMANDS, COMMANDS_TIME = 8, 0.0002  # commands and seconds in one go before packets get their turn
SLICE = 0.0002  # seconds in one go for what is due, and again for what concerns all peers
HANDSHAKE_BYTES = 1024  # of a queue of handshakes in one go: seven initiations, which take 0.2 ms


def _wrapped(
    message: Command | Report, descriptors: list[int], known: Iterable[UdpSocket]
) -> list[AnySocket]:
    """Return the sockets that came with *message*, each as the type for its use, or the one of *known* that it is."""
    opened = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if not isinstance(message, SetNode):
        return _recognised(opened, known) if isinstance(message, Sockets) else cast("list[AnySocket]", opened)
    raw = opened[: message.has_icmp]
    return cast("list[AnySocket]", [*raw, *map(PathSocket, opened[len(raw) :])])


def _recognised(opened: list[socket.socket], known: Iterable[UdpSocket]) -> list[AnySocket]:
    """Return *opened* with those of *known* in the place of further descriptors of the same sockets,
    which are closed.
    """
    sockets = cast("list[AnySocket]", opened)
    in_use = [cast("AnySocket", udp.raw) for udp in known]
    by_cookie = {_cookie(each): each for each in in_use}
    recognised: list[AnySocket] = []
    for each in sockets:
        same = by_cookie.get(_cookie(each))
        if same is not None:
            each.close()
        recognised.append(same or each)
    return recognised


def _cookie(asked: KernelSocket) -> bytes:
    """Return the number that the kernel gives to one socket alone, whatever descriptors it has."""
    return asked.getsockopt(socket.SOL_SOCKET, SO_COOKIE, COOKIE_SIZE)


class LinkEnd:
    """The forwarder's end of the link, which does not block.  Only wait() waits."""

    def __init__(self, link: socket.socket) -> None:
        self.socket = link
        self._waiting: deque[bytes] = deque()

    @property
    def is_full(self) -> bool:
        """Whether something waits for the agent to read."""
        return bool(self._waiting)

    def report(self, message: Report) -> bool:
        """Report to the agent, or keep the message; return False if it was dropped."""
        if len(self._waiting) >= REPORTS_WAITING and not isinstance(message, Handshake):
            return False
        self._waiting.append(encode(message))
        self.flush()
        return True

    def flush(self) -> None:
        """Send what waits, as far as the link accepts it.  Raises EOFError when the agent is gone."""
        while self._waiting:
            try:
                self.socket.send(self._waiting[0])
            except BlockingIOError:
                return
            except OSError as error:
                raise EOFError from error
            self._waiting.popleft()

    def wait(self) -> tuple[Command | Report, list[int]]:
        """Wait for one message of the agent; else as receive()."""
        with select.epoll() as poll:
            poll.register(self.socket.fileno(), select.EPOLLIN)
            while (received := self.receive()) is None:
                poll.poll()
        return received

    def receive(self) -> tuple[Command | Report, list[int]] | None:
        """Return one message of the agent and the descriptors that came with it, or None if there is none now.

        Raises EOFError when the agent is gone, PacketError for bytes that are not a message, OSError when this process
        can hold no more descriptors.
        """
        try:
            data, descriptors, flags, _ = socket.recv_fds(self.socket, MESSAGE_BYTES, DESCRIPTORS)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        if (
            flags & socket.MSG_CTRUNC
        ):  # without the sockets that it should have, it could not explain its silence
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        try:
            return decode(data), descriptors
        except PacketError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise


class TunEnd:
    """The tun as the core reads and writes it."""

    def __init__(self, descriptor: int, writer: int) -> None:
        """*descriptor* is read, and *writer*, which may be the same, is written to."""
        self._file = io.FileIO(descriptor, "r+")
        self.descriptor, self.writer = descriptor, writer
        self.readinto = self._file.readinto

    def write(self, buffers: Iterable[memoryview | bytes]) -> None:
        """Write one packet, its virtio header first."""
        os.writev(self.writer, list(buffers))


class Loop:
    """Runs a core until the agent is gone."""

    def __init__(
        self,
        link: LinkEnd,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        begun: Callable[[], list[str]] = list,
    ) -> None:
        """*begun* is called when all threads run, and returns further notes."""
        self._begun = begun
        self._link, self._clock, self._entropy = link, clock, entropy
        self._poll = Poll(clock)
        self._udp: dict[int, UdpSocket] = {}
        self._for_handshakes: set[int] = set()  # the descriptors of those that get nothing else
        self._lanes, self._aes = OneLane(), ""
        self._queues: dict[int, TunEnd] = {}  # those that are read here, by descriptor
        self._has_tun = False  # read only once the agent says that the table is complete

    def run(self, start: Start, descriptors: list[int], notes: list[str]) -> None:
        """Forward packets until the link ends; *notes* are sent with the report that this has begun."""
        self._notes = notes
        queues = [TunEnd(each, descriptors[-1]) for each in descriptors[:1] + descriptors[1:-1]]
        self._tun = queues[0]
        link = self._link
        self._core = Core(start, self._tun, report=link.report, entropy=self._entropy)
        if native.core is not None:
            seed = int.from_bytes(self._entropy(8), "little")
            lanes = compile_core(native.core, self._core, queues, seed, notes)
            if lanes is not None:
                self._lanes = lanes
                self._poll.register(lanes.descriptor, select.EPOLLIN)
            if self._core.outbound.compiled is not None:
                self._aes = choose_aes(native.core, is_alone=lanes is None)
                self._poll.compile(native.core, self._core.outbound.compiled, takes_clear=lanes is None)
        self._queues = {each.descriptor: each for each in (queues[:1] if self._lanes.count > 1 else queues)}
        self._notes += self._begun()
        self._commands = Commands(self._core, start, link_is_idle=lambda: not link.is_full)
        self._link_descriptor = self._link.socket.fileno()
        self._poll.register(self._link_descriptor, select.EPOLLIN)
        try:
            while True:
                self._turn()
        except EOFError:
            return
        finally:
            self._lanes.end()

    def collecting(self, phase: str, _: dict[str, int]) -> None:
        """Keep the lanes from reading what the garbage collector frees, wherever it starts; for gc.callbacks."""
        if phase == "start":
            self._lanes.halt()

    def _turn(self) -> None:
        core, sender, link, udp_sockets = self._core, self._core.sender, self._link, self._udp
        is_behind, has_jobs = core.table.catch_up(), core.jobs.is_ready()
        deadline = core.next_deadline()
        self._lanes.go()
        found = self._wait(deadline, must_hurry=is_behind or has_jobs)
        ready, now = found.ready, self._clock()
        self._lanes.look(now)
        if found.drained >= 0 or found.result:
            self._go_on(found, now)
        has_work = is_behind or has_jobs or deadline <= now or sender.is_holding
        if self._lanes.count > 1 and (has_work or not self._are_ordinary(ready)):
            self._lanes.stop()
        if deadline <= now:
            for udp in core.handle_deadline(now, self._slice(now)):
                self._forget(udp)
            udp_sockets = self._udp
        has_commands = False
        calling: list[UdpSocket] = []
        for descriptor, events in ready:
            if descriptor in self._queues:
                self._drain_tun(self._queues[descriptor], now)
            elif descriptor in udp_sockets:
                udp = udp_sockets[descriptor]
                if descriptor in self._for_handshakes:
                    calling.append(udp)
                elif (
                    not events & select.EPOLLERR or not sender.take_departures(udp) or events & select.EPOLLIN
                ):
                    core.inbound.drain(udp, now)
            elif descriptor == self._link_descriptor and (not is_behind or events & select.EPOLLHUP):
                has_commands = True
        for udp in calling:  # after the packets
            core.inbound.drain(udp, now, HANDSHAKE_BYTES)
        if has_commands:
            # Last, and with the time of that moment: so a ping leaves when it says, and its pong is read later.
            self._take_commands(self._clock())
        if sender.is_holding:
            sender.resume()
        if has_jobs:
            begins = self._clock()
            core.jobs.run(begins, self._slice(begins))
        if link.is_full:
            link.flush()

    def _slice(self, now: float) -> Callable[[], bool]:
        """Return a function that tells whether there is time left of a slice that begins *now*."""
        ends, clock = now + SLICE, self._clock
        return lambda: clock() < ends

    def _are_ordinary(self, ready: list[tuple[int, int]]) -> bool:
        """Return whether all that is *ready* is for the compiled twin, which can work while other lanes do."""
        for descriptor, events in ready:
            udp = self._udp.get(descriptor)
            is_ordinary = (
                descriptor in self._queues if udp is None else udp.role == Role.ALL and udp.clear is None
            )
            if events != select.EPOLLIN or not is_ordinary:
                return False
        return True

    def _go_on(self, found: Found, now: float) -> None:
        """Continue with what the twin has left for Python while it waited."""
        twin, descriptor = self._core.outbound.compiled, found.drained
        assert twin is not None
        if descriptor in self._udp:
            twin.see_to_udp(found.result, self._udp[descriptor], now, DRAIN_BYTES)
        elif descriptor < 0:
            twin.take_news()
        else:
            try:
                twin.see_to_tun(found.result, self._queues[descriptor], now)
            except OSError as error:
                self._tun_failed(descriptor, error)

    def _drain_tun(self, tun: TunEnd, now: float) -> None:
        try:
            self._core.outbound.drain(tun, now)
        except OSError as error:
            self._tun_failed(tun.descriptor, error)

    def _tun_failed(self, descriptor: int, error: OSError) -> None:
        """Read a queue of the tun no more if the device was removed; raises *error* if it was not."""
        if error.errno != errno.EBADFD:
            raise error
        # The agent notices it as well, and ends; until then nothing comes from it.
        self._poll.forget(descriptor)

    def _wait(self, deadline: float, *, must_hurry: bool) -> Found:
        """Wait for descriptors, or until something is due at *deadline*; with a hurry only look."""
        if must_hurry:
            return self._poll.wait(0.0, deadline, once=True)
        if self._core.sender.is_holding or self._link.is_full:
            return self._poll.wait(self._clock() + HELD_PAUSE, deadline, once=True)
        return self._poll.wait(deadline, deadline, once=False)

    def _take_commands(self, now: float) -> None:
        for _ in range(COMMANDS):
            try:
                received = self._link.receive()
            except PacketError:
                self._core.drops.add("link")
                continue
            if received is None:
                return
            message, descriptors = received
            sockets = _wrapped(message, descriptors, self._core.sender.sockets)
            if isinstance(message, Report):
                self._core.drops.add("link")
                continue
            self._commands.handle(message, sockets, now)
            if isinstance(message, Sockets):
                for udp in self._core.sender.sockets:
                    descriptor = udp.raw.fileno()
                    udp.descriptor = descriptor
                    if descriptor not in self._udp:
                        self._udp[descriptor] = udp
                        if udp.role == Role.HANDSHAKES:
                            self._for_handshakes.add(descriptor)
                        if not self._lanes.watch(udp):
                            self._poll.read(udp)
            if isinstance(message, Begin) and not self._has_tun:
                self._has_tun = True
                for descriptor in self._queues:
                    self._poll.read_tun(descriptor, is_first=descriptor == self._tun.descriptor)
                self._lanes.begin()
                self._link.report(Ready(self._notes, self._core.is_compiled, self._lanes.count, self._aes))
            if isinstance(message, Routes) or self._clock() - now >= COMMANDS_TIME:
                return  # a large table comes in many pieces: packets go between them

    def _forget(self, udp: UdpSocket) -> None:
        """Close a socket that the core uses no more.

        The agent may still have a descriptor of it, so closing this one alone would leave it in the poll: what comes
        to it would wake the loop forever, and the socket could not be registered again.
        """
        if not self._lanes.forget(udp):
            self._poll.forget(udp.descriptor)
        udp.raw.close()
        self._udp = {descriptor: known for descriptor, known in self._udp.items() if known is not udp}
        self._for_handshakes &= self._udp.keys()
