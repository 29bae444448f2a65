"""A dialer that reports each step of a check, with the data sent and received, to a user who watches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.balancing.dialer import TunnelDialer
from overlay.text import printable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    import trio

    from overlay.balancing.dialer import DialedServer


# Specification (RFC 8446 section 5.1)
TLS_RECORDS = range(20, 24)  # the first byte of a record; the second is 3

# Ours
MESSAGES = 30  # of one check that are reported, sent or received; a body of a megabyte arrives in a thousand
SHOWN = 60  # characters of a line of text, or bytes of other data, each as two digits


class RecordingDialer(TunnelDialer):
    """A dialer that passes each step to *note*, in words."""

    def __init__(self, note: Callable[[str], None], dialed: DialedServer) -> None:
        super().__init__(dialed)
        self._note = note
        self._messages = 0

    async def knock(self) -> None:
        await super().knock()
        self._note("the server accepted the connection, which was ended at once")

    async def echo(self) -> tuple[trio.socket.SocketType, int]:
        opened, identifier = await super().echo()
        return self._recorded(opened), identifier

    async def _connected(self, kind: int, protocol: int) -> trio.socket.SocketType:
        opened = await super()._connected(kind, protocol)
        self._note(f"connected from port {opened.getsockname()[1]}")
        return self._recorded(opened)

    def _open(self, kind: int, protocol: int = 0) -> socket.socket:
        opened = super()._open(kind, protocol)
        at = f"[{self.address}]" if ":" in self.address else self.address
        where = f"{at}:{self.port}" if self.port and not protocol else at
        self._note(f"asking {where} from {self._source()}")
        return opened

    async def _pin(self, flow: bytes) -> None:
        await super()._pin(flow)
        self._note(f"the forwarder sends these packets to {self.server}, and no others")

    def _recorded(self, opened: trio.socket.SocketType) -> trio.socket.SocketType:
        """Return *opened* wrapped so that it reports the data that it sends and receives."""
        send, receive = opened.send, opened.recv

        async def noted_send(data: Any, *arguments: Any) -> int:
            sent = await send(data, *arguments)
            self._tell("sent", bytes(data[:sent]))
            return sent

        async def noted_receive(*arguments: Any) -> bytes:
            data = await receive(*arguments)
            self._tell("received", data)
            return data

        # trio's socket class cannot be subclassed
        opened.send, opened.recv = noted_send, noted_receive  # type: ignore[method-assign]
        return opened

    def _tell(self, what: str, data: bytes) -> None:
        self._messages += 1
        if self._messages < MESSAGES:
            self._note(f"{what} {describe(data)}")
        elif self._messages == MESSAGES:
            self._note("and more")


def describe(data: bytes) -> str:
    """Return the size of *data* and its beginning: the first line of text, or bytes in hexadecimal digits."""
    if not data:
        return "the end"
    size = "1 byte" if len(data) == 1 else f"{len(data)} bytes"
    if data[0] in TLS_RECORDS and data[1:2] == b"\x03":
        return f"{size} of TLS"
    line = data.split(b"\r\n")[0].split(b"\n")[0][: SHOWN + 1]
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and text:
        return f"{size}: {printable(text[:SHOWN])}{'...' if len(text) > SHOWN else ''}"
    return f"{size}: {data[:SHOWN].hex()}{'...' if len(data) > SHOWN else ''}"
