"""``http`` and ``https``: the server answers a request with an accepted status and body.

HTTP is that of h11, TLS that of Python.  Redirections are not followed: what they lead to is not this server.
"""

from __future__ import annotations

import hashlib
import ssl
from typing import TYPE_CHECKING

import h11
import trio

from overlay.services.checking import Result
from overlay.services.checks.searching import is_found
from overlay.services.checks.tls import context_of

if TYPE_CHECKING:
    from overlay.services.checks.way import Way
    from peers.service import Check

# Ours
READ_BYTES = 16_384
BODY_BYTES = 1 << 20  # of a body; more of it is not what a check asks for
SEARCHED_BYTES = 1 << 16  # of it that a regular expression is sought in
PIECES = 10_000  # of an answer, which take a tenth of a second of a processor
HASHES = {32: hashlib.md5, 64: hashlib.sha256}  # by the number of digits

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


async def run(check: Check, way: Way) -> Result:
    """Ask for the page and look at it."""
    async with await way.connect() as connection:
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
            status, body = await _ask(stream, check, way)
        except h11.LocalProtocolError as error:
            return Result(False, f"the request cannot be made: {error}")
        except h11.RemoteProtocolError as error:
            return Result(False, f"does not speak HTTP: {error}")
        except trio.BrokenResourceError as error:
            return Result(False, f"ended the connection: {_tls_reason(error)}")
    return await _judge(check, status, body)


async def _judge(check: Check, status: int, body: bytes | None) -> Result:
    if not any(first <= status <= last for first, last in check.status):
        return Result(False, f"answers {status}")
    if (check.regex is not None or check.digest is not None) and body is None:
        return Result(False, f"answers {status} with a body of more than {BODY_BYTES} bytes")
    if check.digest is not None and HASHES[len(check.digest)](body or b"").hexdigest() != check.digest:
        return Result(False, f"answers {status} with a body of another digest")
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


async def _ask(stream: Stream, check: Check, way: Way) -> tuple[int, bytes | None]:
    """Return the status and the body of the answer, None for one that is too long."""
    connection = h11.Connection(h11.CLIENT)
    where = f"[{way.address}]" if ":" in way.address else way.address
    request = h11.Request(
        method="GET",
        target=check.path,
        headers=[
            ("Host", check.host or f"{where}:{way.port}"),
            ("User-Agent", "overlay"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ],
    )
    await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    wants_body = check.regex is not None or check.digest is not None
    for _ in range(PIECES):
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(READ_BYTES)))
            case h11.Response() as response:
                status = response.status_code
                if not wants_body:
                    return status, None
            case h11.Data() as data:
                body += data.data
                if len(body) > BODY_BYTES:
                    return status, None
            case h11.EndOfMessage():
                return status, bytes(body)
            case h11.ConnectionClosed() | h11.PAUSED:
                raise h11.RemoteProtocolError("the answer is cut")
    raise h11.RemoteProtocolError(f"the answer is in more than {PIECES} pieces")


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
