"""A packet socket on one Ethernet link, which receives the frames that pass a filter in the kernel."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice
from overlay.host.process.privileges import Capability
from overlay.host.sockets.bpf import SO_ATTACH_FILTER, attach
from overlay.host.sockets.neighbour_filters import ETHERTYPES

if TYPE_CHECKING:
    import array
    from collections.abc import Iterator

    from overlay.host.netlink.lan_interfaces import Interface

# Ours
LARGEST = 2048  # bytes of a frame


class PacketSocket:
    """A socket of *interface* for the frames of one IP version that are about *addresses*, of 4 or 16 bytes.

    *failed* is how its errors begin: what does not work without it.
    """

    def __init__(
        self, interface: Interface, version: int, program: array.array[int], failed: str, queue: int = 0
    ) -> None:
        """Open the socket of an Ethernet with a *queue* of that many bytes, 0 for the system's default.

        Raises HostError.
        """
        assert interface.mac is not None
        self.interface, self.version, self.mac = interface, version, interface.mac
        self.addresses: frozenset[bytes] = frozenset()
        self._failed = failed
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
        except OSError as error:
            raise self._error(error) from error
        try:
            if queue:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, queue)
            self._hear(program)
            self._socket.bind((interface.name, ETHERTYPES[version]))
        except OSError as error:
            self._socket.close()
            raise self._error(error) from error

    @property
    def is_open(self) -> bool:
        """Return whether close() has not been called yet."""
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop receiving."""
        self._socket.close()

    def _hear(self, program: array.array[int]) -> None:
        attach(self._socket, SO_ATTACH_FILTER, program)

    def _frames(self, most: int) -> Iterator[tuple[bytes, int]]:
        """Yield the frames that have arrived, at most *most*, each with its PACKET_ kind."""
        for _ in range(most):
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(LARGEST)
            except OSError:  # nothing left, or the link is down
                return
            yield frame, kind

    def _error(self, error: OSError) -> HostError:
        lacks = isinstance(error, PermissionError)
        return HostError(
            f"{self._failed}: {advice.gain(Capability.NET_RAW) if lacks else advice.with_reason(error)}"
        )
