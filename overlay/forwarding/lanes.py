"""The lanes of the compiled twin other than the first: threads of the extension, and what Python does for them.

A lane drains a queue of the tun and sockets of its own, and never needs the interpreter (``native/workers.h``).  What
is not ordinary there waits, as in the first lane, until Python has dealt with it.  While Python is at work no lane is:
so the state is Python's alone whenever Python touches it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

from overlay.encap.encapsulation import Role
from overlay.forwarding.compiled import Compiled
from overlay.forwarding.offload.flow import HEADER_SIZE
from overlay.forwarding.tun.inbound import DRAIN_BYTES
from overlay.forwarding.twin import TunReader
from overlay.wire.virtio import VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from overlay.forwarding.core import Core
    from overlay.forwarding.underlay.udp_socket import UdpSocket

_VIRTIO_AT = HEADER_SIZE - VIRTIO_SIZE  # tun.outbound


class Queue(TunReader, Protocol):
    """A queue of the tun, and where packets for the tun are written to."""

    descriptor: int
    writer: int


def compile_core(
    native: ModuleType, core: Core, queues: Sequence[Queue], seed: int, notes: list[str]
) -> Lanes | None:
    """Make *core* use the compiled twin, with a lane for each of the *queues* of the tun.

    *seed* is that of Core.compile().
    Returns the lanes other than the first, None where there are none; where the system has no threads for them, packets
    do not go by the twin, and *notes* get a sentence.
    """
    core.lanes.count = len(queues)
    compiled = core.compile(native, (queues[0].descriptor, queues[0].writer), seed)
    if len(queues) == 1:
        return None
    try:
        return Lanes(native, core, compiled, queues[1:])
    except OSError as error:
        core.outbound.compiled = core.inbound.compiled = core.by_index.lane = None
        core.lanes.count = 1
        notes.append(f"the compiled packet path is not used, as its lanes cannot run: {error.strerror}")
        return None


class OneLane:
    """There are no lanes other than the first."""

    descriptor = -1
    count = 1

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def look(self, now: float) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def go(self) -> None:
        """Do nothing."""

    def halt(self) -> None:
        """Do nothing."""

    def watch(self, udp: UdpSocket) -> bool:  # noqa: ARG002
        """Return that the loop must read *udp*."""
        return False

    def forget(self, udp: UdpSocket) -> bool:  # noqa: ARG002
        """Return that it was."""
        return False


class Lane(Compiled):
    """One of them, as Python sees it: the packets of its *queue*, and buffers of its own."""

    def __init__(self, native: ModuleType, core: Core, first: Compiled, number: int, queue: Queue) -> None:
        outbound, inbound = core.outbound, core.inbound
        self._arena = bytearray(len(outbound.arena))
        self._received = memoryview(bytearray(len(inbound.received.buffer)))
        self._unit = memoryview(bytearray(len(inbound.units.unit)))
        pace = type(outbound.pace)()
        lane = native.Lane(self._arena, self._received, self._unit, pace, 0, first.lane, number)
        self._number, first_reassembly = number, inbound.units.reassembly
        super().__init__(lane, core, outbound, inbound, (queue.descriptor, queue.writer))
        inbound.units.reassembly = first_reassembly
        self._queue = queue

    def answer(self, result: int, udp: UdpSocket | None, now: float) -> bool:
        """Deal with the *result* of a drain of *udp*, or of the tun; return False if that is gone."""
        self.lane.counts(True)
        try:
            return self._deal_with(result, udp, now)
        finally:
            self.lane.counts(False)

    def _deal_with(self, result: int, udp: UdpSocket | None, now: float) -> bool:
        if udp is not None:
            self._inbound.units.reassembly, first_reassembly = (
                self._reassembly,
                self._inbound.units.reassembly,
            )
            self.see_to_udp(result, udp, now, DRAIN_BYTES)
            self._inbound.units.reassembly = first_reassembly
            return True
        self._outbound.lane = self._number
        try:
            self.see_to_tun(result, self._queue, now)
        except OSError as error:
            if error.errno != errno.EBADFD:
                raise
            return False  # as in the first lane
        finally:
            self._outbound.lane = 0
        return True

    def _go_on(self, tun: TunReader, now: float) -> None:
        """Forward a packet that is not ordinary, alone: what follows it is for the lane again."""
        self._look_up(tun, now)
        self.lane.took(1)

    def _bring_packet(self, at: int, size: int) -> int:
        start = at + _VIRTIO_AT
        self._outbound.arena[_VIRTIO_AT : _VIRTIO_AT + size] = self._arena[start : start + size]
        return 0

    def _bring(self, start: int, stop: int) -> None:
        self._inbound.received.view[start:stop] = self._received[start:stop]

    def _bring_unit(self, stop: int) -> None:
        self._inbound.units.unit_view[:stop] = self._unit[:stop]


class Lanes(OneLane):
    """The lanes other than the first: stopped while Python is at work, and at work while it waits."""

    def __init__(self, native: ModuleType, core: Core, first: Compiled, queues: Sequence[Queue]) -> None:
        """*queues* are those of the tun except for the first, one for each lane.

        Raises OSError where the system has no more threads.
        """
        self._first, self._now = first, 0.0
        self._lanes = [
            Lane(native, core, first, number, queue) for number, queue in enumerate(queues, start=1)
        ]
        self._workers = native.Workers(first.lane, [lane.lane for lane in self._lanes])
        self.descriptor = self._workers.descriptor  # readable when a lane waits for an answer
        self._is_stopped = self._owes_answers = False
        self._questions: list[tuple[int, int, UdpSocket | None]] = []
        self._watched: set[UdpSocket] = set()
        for each in (first, *self._lanes):
            each.stop = self.halt
        self._workers.begin()
        self.count = 1 + len(queues)

    def begin(self) -> None:
        """Take packets of the tun from now on."""
        self.stop()
        for number, lane in enumerate(self._lanes, start=1):
            lane.settle()
            self._workers.watch_tun(number, True)

    def end(self) -> None:
        """End the threads, for good."""
        self._workers.end()

    def look(self, now: float) -> None:
        """Note that it is *now*: when Python begins to work, whether or not it has to stop the lanes."""
        self._now = now

    def stop(self) -> None:
        """Wait until no lane is at work, and answer what they ask; once until go().

        Call it where Python has no packet in its buffers.
        """
        self.halt()
        if self._owes_answers:
            self._owes_answers = False
            self._answer()

    def go(self) -> None:
        """Let the lanes work while Python waits, by what it has found."""
        if self._is_stopped:
            self.stop()
            self._first.settle()
            self._is_stopped = False
            self._workers.go()

    def watch(self, udp: UdpSocket) -> bool:
        """Let a lane take what arrives at *udp* from now on, if the socket is for a lane; return whether it is."""
        if udp.role != Role.LANE or not 0 < udp.lane <= len(self._lanes):
            return False
        self.stop()
        self._workers.watch(udp.lane, udp)
        self._watched.add(udp)
        return True

    def forget(self, udp: UdpSocket) -> bool:
        """Let no lane take what arrives at *udp*, which is about to be closed; return whether one did."""
        if udp not in self._watched:
            return False
        self.stop()
        self._workers.unwatch(udp.lane, udp)
        self._watched.discard(udp)
        return True

    def _answer(self) -> None:
        """Deal with what the lanes have left for Python."""
        for lane in self._lanes:  # first: its counts may belong to a peer that an answer removes
            lane.take_news()
        for number, result, udp in self._questions:
            lane = self._lanes[number - 1]
            if not lane.answer(result, udp, self._now):
                self._workers.watch_tun(number, False)
            self._workers.answer(number)

    def halt(self) -> None:
        """Wait until no lane is at work, and answer nothing yet: the caller may be in the middle of anything."""
        if not self._is_stopped:
            self._is_stopped = True
            self._owes_answers = self._workers.stop()
            # What they have in hand is kept, whatever becomes of it meanwhile
            self._questions = self._workers.questions() if self._owes_answers else []
