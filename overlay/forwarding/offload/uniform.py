"""Small packets of one flow that were read in a row: completed, numbered and sealed as a table.

Packets of a batch that have one size and one destination differ in little else, so only the first is examined, and the
others are compared with it column by column.
"""

from __future__ import annotations

import functools
from collections import deque
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

import numpy as np

from overlay.forwarding.offload.flow import HEADER_SIZE, OVERHEAD, complement, padded
from overlay.forwarding.offload.split import MAXIMUM_TRAIN_BYTES, SealedTrain
from overlay.wire.ip import EXTENSIONS, IPV6_HEADER_SIZE, PROTOCOL_TCP
from overlay.wire.messages import TYPE_TRANSPORT
from overlay.wire.mss import PROTOCOL_AT
from overlay.wire.partial import UDP_CSUM_OFFSET
from overlay.wire.tcp import FIN, FLAGS_OFFSET, RST, SYN
from overlay.wire.virtio import VIRTIO_SIZE

if TYPE_CHECKING:
    import numpy.typing as npt

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.flow import Bytes2D
    from overlay.forwarding.peer import LivePeer

# Specification
PORTS_SIZE = 4  # bytes of both ports, of TCP and UDP
_FRAGMENT = (0x3F, 0xFF)  # RFC 791: more fragments, and the offset
_CHANGES = FIN | SYN | RST

# Ours
WORTH = 4  # packets; fewer go one by one
MOST = 64  # packets in a table: one send
LAYOUTS = 64  # sizes remembered before starting over
_BEFORE = HEADER_SIZE - VIRTIO_SIZE  # where the virtio header of a row begins


def stride_of(length: int, mtu: int) -> int:
    """Return how far behind a packet of *length* bytes the next of its size is to be read."""
    return padded(length, mtu) + OVERHEAD


def have_syn(rows: Bytes2D, length: int) -> bool:
    """Return whether one of the packets of *length* bytes, all with the same first byte, may be a TCP SYN,
    which needs a look.
    """
    first = int(rows[0, HEADER_SIZE])
    version = first >> 4
    protocols = rows[:, HEADER_SIZE + PROTOCOL_AT[version]]
    if version == 6 and not EXTENSIONS.isdisjoint(protocols.tolist()):
        return True
    flags_at = ((first & 15) * 4 if version == 4 else IPV6_HEADER_SIZE) + FLAGS_OFFSET
    if flags_at >= length:
        return False
    flags = rows[:, HEADER_SIZE + flags_at]
    return bool(((protocols == PROTOCOL_TCP) & (flags & SYN != 0)).any())


@functools.cache
def _flow_mask(version: int, at: int, end: int) -> npt.NDArray[np.uint8]:
    """Return the bits in which packets of one flow agree, of the first *end* bytes; their ports are *at*."""
    mask = np.zeros(end, np.uint8)
    mask[PROTOCOL_AT[version]] = 0xFF
    if version == 4:
        mask[6:8] = _FRAGMENT
    mask[12 if version == 4 else 8 : 20 if version == 4 else 40] = 0xFF
    mask[at : at + PORTS_SIZE] = 0xFF
    if end > at + PORTS_SIZE:
        mask[end - 1] = _CHANGES
    return mask


class UniformRows:
    """Tables of packets at the start of a buffer, each with room for a header before and a tag behind."""

    def __init__(self, buffer: bytearray, mtu: int) -> None:
        self._buffer, self._array, self._mtu = buffer, np.frombuffer(buffer, np.uint8), mtu
        self._trains: dict[int, SealedTrain] = {}

    def are(self, length: int, count: int) -> bool:
        """Return whether the first *count* packets, of *length* bytes each, agree in what decides where they go.

        That is the virtio header, version, traffic class and destination.  So one send may carry them, unless a SYN
        among them must be examined.
        """
        stride = stride_of(length, self._mtu)
        if stride & 3 or not HEADER_SIZE + length > 36:
            return False
        rows = self._array[: count * stride].reshape(count, stride)
        first = rows[0]
        version = int(first[HEADER_SIZE]) >> 4
        if version not in PROTOCOL_AT:
            return False
        begin, end = (32, 36) if version == 4 else (40, 56)
        return bool(
            (rows[:, _BEFORE : HEADER_SIZE + 2] == first[_BEFORE : HEADER_SIZE + 2]).all()
            and (rows[:, begin:end] == first[begin:end]).all()
            and not have_syn(rows, length)
        )

    def are_of_one_flow(self, length: int, count: int) -> bool:
        """Return whether packets for which are() is true have the same ends and ports, and none begins or ends a
        connection.

        Also False for fragments, and if there are headers between that of IP and the ports.
        """
        stride = stride_of(length, self._mtu)
        rows = self._array[: count * stride].reshape(count, stride)[:, HEADER_SIZE:]
        first = rows[0]
        version, at = int(first[0]) >> 4, IPV6_HEADER_SIZE
        protocol = int(first[PROTOCOL_AT[version]])
        if version == 4:
            at = int(first[0] & 15) * 4
            is_whole = not (first[6] & _FRAGMENT[0] or first[7])
        else:
            is_whole = protocol not in EXTENSIONS
        end = at + (FLAGS_OFFSET + 1 if protocol == PROTOCOL_TCP else PORTS_SIZE)
        if not is_whole or end > length or (protocol == PROTOCOL_TCP and first[end - 1] & _CHANGES):
            return False
        return not ((rows[:, :end] ^ first[:end]) & _flow_mask(version, at, end)).any()

    def complete(self, length: int, count: int, start: int, offset: int) -> bool:
        """Finish the checksums that the kernel left partial; return False, with nothing done, if that must be done
        elsewhere.

        They cover each packet from *start* on; their field is *offset* bytes further.
        """
        stride = stride_of(length, self._mtu)
        odd = length & 1
        end = HEADER_SIZE + length
        if (
            start < 20
            or start & 1
            or offset & 1
            or start + offset + 2 > length
            or (odd and end >= stride - 16)
        ):
            return False
        rows = self._array[: count * stride].reshape(count, stride)
        if odd:
            rows[:, end] = 0
        words = rows[:, HEADER_SIZE + start : end + odd].view("<u2")
        checks = complement(np.add.reduce(words, axis=1, dtype=np.uint32))
        if offset == UDP_CSUM_OFFSET:
            checks[checks == 0] = 0xFFFF  # RFC 768: zero would mean no checksum
        field = HEADER_SIZE + start + offset
        rows[:, field : field + 2].view("<u2")[:, 0] = checks
        return True

    def seal(self, keypair: Keypair[LivePeer], length: int, count: int) -> list[memoryview]:
        """Seal the packets in place and return the contents of sends, in each datagrams of equal size."""
        train = self._train(length)
        counter = keypair.counter
        keypair.counter = counter + count
        if train.padding.shape[1]:
            train.padding[:count] = 0
        words = train.words[:count]
        words[:, 0] = TYPE_TRANSPORT
        words[:, 1] = 0  # the nonces lie over the headers, which get their index once all is sealed
        np.add(train.offsets[:count], np.uint64(counter), out=train.counters[:count])
        deque(map(keypair.seal, train.nonces[:count], train.plain, repeat(None), train.sealed), maxlen=0)
        words[:, 1] = keypair.remote_index
        stride = train.stride
        limit = min(MOST, MAXIMUM_TRAIN_BYTES // stride) or 1
        sends = -(-count // limit)
        cuts = [count * part // sends * stride for part in range(sends + 1)]
        return [train.view[a:b] for a, b in pairwise(cuts)]

    def _train(self, length: int) -> SealedTrain:
        train = self._trains.get(length)
        if train is None:
            if len(self._trains) >= LAYOUTS:
                self._trains.clear()
            most = min(MOST, len(self._buffer) // stride_of(length, self._mtu))
            train = self._trains[length] = SealedTrain(self._buffer, length, 0, most, self._mtu, 0)
        return train
