"""``http`` and ``https``: the server answers a request with an accepted status and body.

HTTP is parsed by h11; TLS is Python's.  Redirections are not followed: they lead away from this server.
"""

from __future__ import annotations

import functools
import hashlib
import re
import ssl
from typing import TYPE_CHECKING

import h11
import trio

from overlay.services.checking import Result
from overlay.services.checks.exchange import Exchange
from overlay.services.checks.searching import is_found
from overlay.services.checks.tls import context_of

if TYPE_CHECKING:
    from overlay.services.checks.dialer import Dialer
    from peers.service import Check

# Specification: a status line that is final, fields, and an empty line (RFC 9112 sections 4 and 5)
_HEAD = re.compile(
    rb"HTTP/1\.[01] ([2-9][0-9][0-9])(?: [\t -~\x80-\xff]*)?\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*\r\n"  # noqa: E501
)

# Ours
READ_BYTES = 16_384
BODY_BYTES = 1 << 20  # of a body; a check does not ask for larger ones
SEARCHED_BYTES = 1 << 16  # of a body in which a regular expression is searched for
PIECES = 10_000  # of an answer; so many take a tenth of a second of processor time
HASHES = {32: hashlib.md5, 64: hashlib.sha256}  # by the number of digits

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


async def run(check: Check, dialer: Dialer) -> Result:
    """Request the page and examine it."""
    async with await dialer.connect() as connection:
        stream: Stream = connection
        if check.kind == "https":
            try:
                context = await context_of(check)
            except OSError as error:
                return Result(False, f"the files of the certificate cannot be used: {_tls_reason(error)}")
            try:
                stream = await _secure(check, connection, context)
            except (ssl.SSLError, trio.BrokenResourceError) as error:
                return Result(False, f"TLS fails: {_tls_reason(error)}")
        try:
            asking = _Asking(check, dialer)
            await stream.send_all(asking.request)
            while (answer := asking.receive(bytes(await stream.receive_some(READ_BYTES)))) is None:
                pass
        except h11.LocalProtocolError as error:
            return Result(False, f"the request cannot be made: {error}")
        except h11.RemoteProtocolError as error:
            return _no_http(error)
        except trio.BrokenResourceError as error:
            return Result(False, f"ended the connection: {_tls_reason(error)}")
    result = _judge(check, *answer)
    return await _search(check, *answer) if result.is_good and check.regex is not None else result


def exchange(check: Check, dialer: Dialer) -> Exchange | None:
    """Return the same as one exchange; None if it needs TLS or a search in the body, or the request cannot be made."""
    if check.kind != "http" or check.regex is not None:
        return None
    try:
        asking = _Asking(check, dialer)
    except h11.LocalProtocolError:
        return None

    def receive(data: bytes) -> Result | None:
        try:
            answer = asking.receive(data)
        except h11.RemoteProtocolError as error:
            return _no_http(error)
        return None if answer is None else _judge(check, *answer)

    return Exchange(check.timeout, request=asking.request, receive=receive)


def _no_http(error: h11.RemoteProtocolError) -> Result:
    return Result(False, f"does not speak HTTP: {error}")


def _judge(check: Check, status: int, body: bytes | None) -> Result:
    """Return the result of the answer, without the search for a text in it."""
    if not any(first <= status <= last for first, last in check.status):
        return Result(False, f"answers {status}")
    if (check.regex is not None or check.digest is not None) and body is None:
        return Result(False, f"answers {status} with a body of more than {BODY_BYTES} bytes")
    if check.digest is not None and HASHES[len(check.digest)](body or b"").hexdigest() != check.digest:
        return Result(False, f"answers {status} with a body that has a different digest")
    return Result(True, f"answers {status}")


async def _search(check: Check, status: int, body: bytes | None) -> Result:
    """Return whether the regular expression matches in the answer."""
    if check.regex is not None:
        try:
            found = await is_found(check.regex, (body or b"")[:SEARCHED_BYTES])
        except ValueError as error:
            return Result(False, f"{check.regex!r} is not a regular expression: {error}")
        if found is None:
            return Result(
                False, f"answers {status} with a body in which {check.regex!r} takes too long to find"
            )
        if not found:
            return Result(False, f"answers {status} with a body in which {check.regex!r} is not found")
    return Result(True, f"answers {status}")


class _Asking:
    """One request, and its answer as it arrives.

    h11 reads the answer.  If only its status counts, and a plain head arrives in one piece, a regular expression reads
    it in a thirtieth of the time.
    """

    def __init__(self, check: Check, dialer: Dialer) -> None:
        """Raises h11.LocalProtocolError for a request that cannot be made."""
        where = f"[{dialer.address}]" if ":" in dialer.address else dialer.address
        self._place = check.path, check.host or f"{where}:{dialer.port}"
        self.request = _request(*self._place)
        self._wants_body = check.regex is not None or check.digest is not None
        self._connection: h11.Connection | None = None
        self._status, self._body, self._pieces = 0, bytearray(), 0

    def receive(self, data: bytes) -> tuple[int, bytes | None] | None:
        """Return the status and the body of the answer, None for a body that is too long or does not count.

        None while more is to come; b"" is the end.  Raises h11.RemoteProtocolError.
        """
        if self._connection is None:
            if not self._wants_body and (head := _HEAD.match(data)) is not None:
                return int(head[1]), None
            self._connection = _asked(*self._place)
        self._connection.receive_data(data)
        while self._pieces < PIECES:
            self._pieces += 1
            match self._connection.next_event():
                case h11.NEED_DATA:
                    return None
                case h11.Response() as response:
                    self._status = response.status_code
                    if not self._wants_body:
                        return self._status, None
                case h11.Data() as piece:
                    self._body += piece.data
                    if len(self._body) > BODY_BYTES:
                        return self._status, None
                case h11.EndOfMessage():
                    return self._status, bytes(self._body)
                case h11.ConnectionClosed() | h11.PAUSED:
                    raise h11.RemoteProtocolError("the answer is cut")
        raise h11.RemoteProtocolError(f"the answer is in more than {PIECES} pieces")


@functools.lru_cache(maxsize=4096)
def _request(path: str, host: str) -> bytes:
    """Return the bytes of a request.  Raises h11.LocalProtocolError."""
    connection = h11.Connection(h11.CLIENT)
    head = connection.send(_message(path, host)) or b""
    return head + (connection.send(h11.EndOfMessage()) or b"")


def _asked(path: str, host: str) -> h11.Connection:
    """Return a connection whose request has been sent."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(_message(path, host))
    connection.send(h11.EndOfMessage())
    return connection


def _message(path: str, host: str) -> h11.Request:
    headers = [("Host", host), ("User-Agent", "overlay"), ("Accept", "*/*"), ("Connection", "close")]
    return h11.Request(method="GET", target=path, headers=headers)


async def _secure(
    check: Check, connection: trio.SocketStream, context: ssl.SSLContext
) -> trio.SSLStream[trio.SocketStream]:
    """Return TLS over *connection*.  Raises ssl.SSLError, trio.BrokenResourceError."""
    stream = trio.SSLStream(
        connection, context, server_hostname=check.sni or check.host, https_compatible=True
    )
    await stream.do_handshake()
    return stream


def _tls_reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return str(cause.verify_message)
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.lower().replace("_", " ")
    return ((isinstance(cause, OSError) and cause.strerror) or str(cause) or "it was reset").lower()
