"""In-band pings: the agent has its forwarder send them, and reports the round trip that the forwarder measured."""

from __future__ import annotations

import contextlib
import select
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.host.control import connect, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Ours
SEND_TIMEOUT = 1.0  # seconds for the agent to accept a question
ANSWER_BYTES = 4096  # one sentence at most


class NotAbleError(Exception):
    """The peer is not known to answer in-band pings under the current keys, or the agent does not know such pings."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the ping *sequence* after *seconds*; None if it did not come."""

    sequence: int
    seconds: float | None


class InBandPings:
    """Pings of one peer.  Each waiting one has a connection to the agent."""

    def __init__(self, path: Path, peer: str, timeout: float, sleep: Callable[[float], None]) -> None:
        """*path* is the agent's control socket; it waits *timeout* seconds for each pong."""
        self._path, self._question = path, encode({"op": "ping", "name": peer, "timeout": timeout})
        self._sleep = sleep
        self._waiting: dict[socket.socket, tuple[int, bytearray]] = {}

    def send(self, sequence: int) -> None:
        """Send a ping; it is lost if the agent does not accept the request in time.

        Raises NotAbleError if no agent accepts it.
        """
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._waiting[stream] = sequence, bytearray()
        try:
            stream.settimeout(SEND_TIMEOUT)
            connect(stream, self._path, SEND_TIMEOUT)
            stream.sendall(self._question)
        except TimeoutError:
            del self._waiting[stream]
            stream.close()
        except OSError as error:
            raise NotAbleError from error

    def receive(self, timeout: float) -> Reply | None:
        """Return the next answer; None if none came within *timeout* seconds.

        Raises NotAbleError if the agent answers that no ping will be answered.
        """
        if not self._waiting:
            self._sleep(timeout)
            return None
        for stream in select.select(list(self._waiting), [], [], timeout)[0]:
            sequence, line = self._waiting[stream]
            chunk = b""
            with contextlib.suppress(OSError):
                chunk = stream.recv(ANSWER_BYTES)
            line += chunk
            if line.endswith(b"\n") or not chunk or len(line) > ANSWER_BYTES:
                del self._waiting[stream]
                stream.close()
                return Reply(sequence, _seconds(bytes(line)))
        return None

    def close(self) -> None:
        """Stop waiting for all of them."""
        for stream in self._waiting:
            stream.close()
        self._waiting.clear()


def _seconds(line: bytes) -> float | None:
    """Return the round trip in an answer of the agent."""
    try:
        answer = decode(line)
    except ValueError:
        raise NotAbleError from None  # the agent has ended
    if answer.get("kind") == "busy":
        return None  # too many wait: this one is lost
    ping = answer.get("ping")
    if answer.get("ok") is not True or not isinstance(ping, dict) or ping.get("is_possible") is not True:
        raise NotAbleError
    seconds = ping.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None
