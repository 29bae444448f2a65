"""Read-only questions, for a process that may ask the agent nothing else.

The page is served by a process without any privilege.  A second process may open the agent's control socket, and does
nothing else: relay() checks each question, sends it to the agent, closes the connection for writing, and hands the
connection over.  An attacker who takes over the page's process can read what the page shows and nothing more, because
on every connection that it gets, the one question has been asked already.
"""

from __future__ import annotations

import array
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import trio

from overlay.errors import HostError
from overlay.host import control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# Ours
QUESTIONS: Mapping[str, Mapping[str, type]] = {
    "status": {},
    "history": {"name": str, "samples": int},
    "services": {},
    "events": {"name": str, "since": int, "limit": int},
    "doctor": {},
}
"""The questions by name, with their possible arguments."""
NAME_SIZE = 253  # characters; no name of a peer and no address is longer
MESSAGE_SIZE = 4096  # bytes of a question, and of a refusal instead of a connection
LINE_SIZE = control.LINE_SIZE
PIECE = 256 * 1024  # bytes read at once
CONNECT_TIME = 5.0  # seconds for the agent to take a question
ANSWER_TIME = control.TIMEOUT  # seconds for each line of an answer
DESCRIPTOR = array.array("i").itemsize

Question = dict[str, Any]


class UnansweredError(HostError):
    """The agent does not answer, and why; *kind* is that of its own refusal, or ``no_agent`` if none runs."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def is_harmless(question: object) -> bool:
    """Return whether *question* is one of QUESTIONS, with only the arguments that it may have."""
    if not isinstance(question, dict) or not isinstance(op := question.get("op"), str) or op not in QUESTIONS:
        return False
    arguments = {name: value for name, value in question.items() if name != "op"}
    return all(
        type(value) is QUESTIONS[op].get(name) and (not isinstance(value, str) or len(value) <= NAME_SIZE)
        for name, value in arguments.items()
    )


def relay(link: socket.socket, place: Callable[[], Path]) -> None:
    """Put the questions that arrive by *link* to the agent at *place*, until the other end is closed.

    *link* keeps the boundaries of messages (SOCK_SEQPACKET).
    """
    with contextlib.suppress(ConnectionError):  # the other end is gone, without having read everything
        while data := link.recv(MESSAGE_SIZE):
            try:
                with _ask(data, place()) as connection:
                    socket.send_fds(link, [b"{}"], [connection.fileno()])
            except UnansweredError as error:
                link.send(control.encode({"kind": error.kind, "error": str(error)})[:MESSAGE_SIZE])


def _ask(data: bytes, path: Path) -> socket.socket:
    """Return a connection to the agent at *path* on which the answer will arrive.  Raises UnansweredError."""
    try:
        question = json.loads(data)
    except (ValueError, RecursionError):
        question = None
    if not is_harmless(question):
        raise UnansweredError("failed", "that is not a question that the page may ask")
    interface = control.interface_of(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(CONNECT_TIME)
        control.connect(connection, path, CONNECT_TIME)
        connection.sendall(control.encode(question))
        connection.shutdown(socket.SHUT_WR)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise UnansweredError("no_agent", f"no overlay agent runs for {interface} here") from None
    except OSError as error:
        connection.close()
        reason = "it is too busy" if isinstance(error, TimeoutError) else error.strerror
        raise UnansweredError("no_answer", f"the agent of {interface} could not be asked: {reason}") from None
    return connection


class RelayClient:
    """The other end: asks by *link*, one question at a time, and reads the answers of the agent."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link = trio.socket.from_stdlib_socket(link)
        self._turn = trio.Lock()

    async def ask(self, question: Question) -> tuple[Question, list[Any]]:
        """Return the answer to *question*, and the rows that came before it.  Raises UnansweredError."""
        async with self._turn:
            with trio.CancelScope(shield=True):  # otherwise the next question would get this answer
                connection = await self._connect(question)
        rows: list[Any] = []
        async with trio.SocketStream(trio.socket.from_stdlib_socket(connection)) as stream:
            lines = _Lines(stream)
            try:
                answer = control.decode(await lines.read())
                while answer.get("more") is True:
                    told = answer.get("rows")
                    rows += told if isinstance(told, list) else []
                    answer = control.decode(await lines.read())
            except trio.TooSlowError:
                raise UnansweredError(
                    "no_answer", f"the agent did not answer in {ANSWER_TIME:g} s: see its log"
                ) from None
            except (ValueError, trio.BrokenResourceError):
                raise UnansweredError(
                    "no_answer", "the agent did not answer completely: see its log"
                ) from None
        if answer.get("ok") is not True:
            raise UnansweredError(
                str(answer.get("kind") or "failed"), str(answer.get("error") or "no reason given")
            )
        return answer, rows

    async def _connect(self, question: Question) -> socket.socket:
        await self._link.send(control.encode(question))
        data, ancillary, *_ = await self._link.recvmsg(
            MESSAGE_SIZE, socket.CMSG_LEN(DESCRIPTOR), socket.MSG_CMSG_CLOEXEC
        )
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) & -DESCRIPTOR])
        if descriptors:
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(False)
            return connection
        if not data:
            raise UnansweredError("no_answer", "the process that asks the agent has ended")
        said: Question = {}
        with contextlib.suppress(ValueError):
            said = json.loads(data)
        raise UnansweredError(str(said.get("kind") or "failed"), str(said.get("error") or "no reason given"))


class _Lines:
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = bytearray()

    async def read(self) -> bytes:
        """Return the next line, or its beginning if it does not end or is too long.  Raises TooSlowError."""
        seen = 0
        with trio.fail_after(ANSWER_TIME):
            while (at := self._rest.find(b"\n", seen)) < 0 and len(self._rest) <= LINE_SIZE:
                seen = len(self._rest)
                piece = await self._stream.receive_some(PIECE)
                if not piece:
                    return bytes(self._rest)
                self._rest += piece
        line = bytes(self._rest[: at + 1])
        del self._rest[: at + 1]
        return line
