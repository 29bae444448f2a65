"""``http`` and ``https``: the server answers a request with an accepted status and body.

HTTP is that of h11, TLS that of Python.  Redirections are not followed: what they lead to is not this server.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from typing import TYPE_CHECKING

import h11
import trio

from overlay.services.checking import Result
from overlay.services.checks.way import why

if TYPE_CHECKING:
    from pathlib import Path

    from overlay.services.checks.way import Way
    from peers.service import Check

# Ours
READ_BYTES = 16_384
BODY_BYTES = 1 << 20  # of a body; more of it is not what a check asks for
SEARCHED_BYTES = 1 << 16  # of it that a regular expression is sought in: it runs while nothing else does
HASHES = {32: hashlib.md5, 64: hashlib.sha256}  # by the number of digits

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


async def run(check: Check, way: Way) -> Result:
    """Ask for the page and look at it."""
    async with await way.connect() as connection:
        stream: Stream = connection
        if check.kind == "https":
            try:
                stream = await _secure(check, connection)
            except (ssl.SSLError, trio.BrokenResourceError) as error:
                return Result(False, f"TLS fails: {_tls_reason(error)}")
            except OSError as error:
                return Result(False, f"the files of the certificate cannot be used: {why(error)}")
        try:
            status, body = await _ask(stream, check, way)
        except h11.LocalProtocolError as error:
            return Result(False, f"the request cannot be made: {error}")
        except h11.RemoteProtocolError as error:
            return Result(False, f"does not speak HTTP: {error}")
        except trio.BrokenResourceError as error:
            return Result(False, f"ended the connection: {_tls_reason(error)}")
    return _judge(check, status, body)


def _judge(check: Check, status: int, body: bytes | None) -> Result:
    if not any(first <= status <= last for first, last in check.status):
        return Result(False, f"answers {status}")
    if (check.regex is not None or check.digest is not None) and body is None:
        return Result(False, f"answers {status} with a body of more than {BODY_BYTES} bytes")
    if check.digest is not None and HASHES[len(check.digest)](body or b"").hexdigest() != check.digest:
        return Result(False, f"answers {status} with a body of another digest")
    if check.regex is not None and not re.search(check.regex.encode(), (body or b"")[:SEARCHED_BYTES]):
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
    while True:
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


async def _secure(check: Check, connection: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
    """Return TLS over *connection*.  Raises ssl.SSLError, and OSError for files that cannot be read."""
    context = await trio.to_thread.run_sync(
        _context, check.verify, check.ca_file, check.certificate_file, check.key_file
    )
    stream = trio.SSLStream(
        connection, context, server_hostname=check.sni or check.host, https_compatible=True
    )
    await stream.do_handshake()
    return stream


def _context(
    verify: bool, ca_file: Path | None, certificate_file: Path | None, key_file: Path | None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate_file is not None:
        context.load_cert_chain(certificate_file, key_file)
    return context


def _tls_reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return str(cause.verify_message)
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.lower().replace("_", " ")
    return ((isinstance(cause, OSError) and cause.strerror) or str(cause) or "it was reset").lower()
