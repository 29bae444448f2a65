"""The calls of etcd v3 that stores need, by its JSON gateway: over trio and h11, without a client library.

Each call asks the endpoints one after the other, beginning with the one that answered last.  What fails is one
GatewayError, which says at which endpoint, what happened and what to do.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from peers.garbage import growing
from peers.stores.etcd import failures, messages
from peers.stores.etcd.connection import CHUNK, Connection, EndedError, open_tcp
from peers.stores.etcd.messages import (
    CallRefusedError,
    Cause,
    GarbledError,
    GatewayError,
    Header,
    Lease,
    Listing,
    Notice,
    TransactionResult,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from peers.peer import Endpoint
    from peers.stores.etcd.connection import Opener
    from peers.stores.etcd.location import EtcdLocation
    from peers.stores.etcd.messages import Compare, Operation

T = TypeVar("T")

# Specification
WITH_LEADER = (
    "Grpc-Metadata-hasleader",
    "true",
)  # a member that lost its cluster ends the watch, and is not silent

# Ours
PATIENCE = 5.0  # seconds for one endpoint to connect and answer
PAGE = 2000  # keys of a listing that are asked for at once
LISTING_PATIENCE = 30.0  # seconds for such a page to arrive
ANSWER_SIZE = 256 * 1024 * 1024  # bytes; 50,000 peers take 30 MB
LINE_SIZE = 64 * 1024 * 1024  # bytes of one line of a watch
MOST_IDLE = 2  # connections that are kept for the next call


class Gateway:
    """An etcd at *location*.  Calls may be made from several tasks.  Close it when it is no longer needed.

    *opener* connects; tests have their own.
    """

    def __init__(self, location: EtcdLocation, opener: Opener = open_tcp, patience: float = PATIENCE) -> None:
        self.location, self._opener, self._patience = location, opener, patience
        self._endpoints = list(location.endpoints)
        # Where many hosts have the same URL, they do not all ask the same member.
        self._at = secrets.randbelow(len(self._endpoints))
        self._idle: list[Connection] = []
        self._token: str | None = None
        self.local: str | None = None
        """The address of this host that etcd was last reached from; None if it was not, or not by TCP."""

    @property
    def hosts(self) -> list[str]:
        """Where it is: names and addresses."""
        return [endpoint.host for endpoint in self._endpoints]

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            await self._idle.pop().aclose()

    # The calls

    async def range(self, key: bytes, end: bytes = b"") -> Listing:
        """Return *key*, or all keys from it to before *end*, as they are at one revision.

        They come in pages, each of which is read in some 20 ms.  Raises GatewayError also if etcd compacts meanwhile.
        """
        first, has_more = await self._page(key, end, 0)
        kvs = list(first.kvs)
        with growing():
            while has_more:
                found, has_more = await self._page(kvs[-1].key + b"\0", end, first.header.revision)
                kvs += found.kvs
        return replace(first, kvs=tuple(kvs))

    async def _page(self, key: bytes, end: bytes, revision: int) -> tuple[Listing, bool]:
        body = messages.page(key, end, PAGE, revision)
        return self._read(messages.parse_page, await self._call("/kv/range", body, LISTING_PATIENCE))

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> Header:
        """Write *key*, which ends with *lease*.  Raises GatewayError of Cause.GONE if that is gone."""
        answer = await self._call("/kv/put", messages.Put(key, value, lease).build()["request_put"])
        return self._read(messages.parse_header, answer)

    async def delete(self, key: bytes, end: bytes = b"") -> Header:
        """Remove *key*, or all keys from it to before *end*."""
        return self._read(
            messages.parse_header, await self._call("/kv/deleterange", messages.key_range(key, end))
        )

    async def transact(
        self, compares: Iterable[Compare], success: Iterable[Operation], failure: Iterable[Operation] = ()
    ) -> TransactionResult:
        """Do what is in *success* if all of *compares* hold, else what is in *failure*: all of it or nothing."""
        body = messages.transaction(compares, success, failure)
        return self._read(messages.parse_outcome, await self._call("/kv/txn", body))

    async def grant(self, seconds: int) -> Lease:
        """Return a new lease, which ends after *seconds* without a keepalive."""
        return self._read(messages.parse_lease, await self._call("/lease/grant", {"TTL": str(seconds)}))

    async def keep_alive(self, lease: int) -> Lease:
        """Let *lease* start again, and return it; it has 0 seconds if it is gone."""
        answer = await self._call("/lease/keepalive", {"ID": str(lease)})
        return self._read(lambda each: messages.parse_lease(_result(each)), answer)

    async def revoke(self, lease: int) -> bool:
        """End *lease*, and with it its keys; return whether there was one."""
        try:
            await self._call("/lease/revoke", {"ID": str(lease)})
        except GatewayError as error:
            if error.cause is Cause.GONE:
                return False
            raise
        return True

    async def time_to_live(self, lease: int) -> Lease:
        """Return how long *lease* lives on; it has 0 seconds if it is gone."""
        return self._read(messages.parse_lease, await self._call("/lease/timetolive", {"ID": str(lease)}))

    @contextlib.asynccontextmanager
    async def watch(self, key: bytes, end: bytes, start: int) -> AsyncIterator[Watch]:
        """Watch all keys from *key* to before *end*, from the revision *start* on; the watch ends with the block.

        That it runs is its first notice.
        """
        create = {**messages.key_range(key, end), "start_revision": str(start), "progress_notify": True}
        connection, status = await self._begin("/watch", {"create_request": create}, [WITH_LEADER])
        try:
            if status != 200:
                raise failures.explain(
                    await self._rest(connection), status, connection.endpoint, self.location
                )
            yield Watch(connection, self.location)
        finally:
            with trio.CancelScope(shield=True):
                await connection.aclose()

    # How they are made

    async def _call(
        self, path: str, body: Mapping[str, object], patience: float | None = None
    ) -> messages.Json:
        """Return the answer of the first endpoint that gives one."""
        connection, status = await self._begin(path, body, ())
        try:
            with trio.fail_after(patience or self._patience):
                data = await connection.read_all(ANSWER_SIZE)
        except trio.TooSlowError:
            await connection.aclose()
            raise failures.away(connection.endpoint, "answered by half, and then no more") from None
        except (EndedError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await connection.aclose()
            raise failures.ended(connection.endpoint, error) from None
        except BaseException:
            with trio.CancelScope(shield=True):
                await connection.aclose()
            raise
        if len(self._idle) < MOST_IDLE and connection.renew():
            self._idle.append(connection)
        else:
            await connection.aclose()
        if status != 200:
            raise failures.explain(data, status, connection.endpoint, self.location)
        return self._read(messages.parse_object, data, connection.endpoint)

    async def _begin(
        self, path: str, body: Mapping[str, object], headers: Iterable[tuple[str, str]]
    ) -> tuple[Connection, int]:
        """Send a request to the first endpoint that takes it; return the connection and the status of the answer."""
        if self.location.user is not None and self._token is None:
            await self._log_in()
        connection, status = await self._post_somewhere(path, body, headers)
        if status == 401 and self._token:  # another member, or one that has restarted, knows no old tokens
            await connection.aclose()
            await self._log_in()
            connection, status = await self._post_somewhere(path, body, headers)
        return connection, status

    async def _post_somewhere(
        self, path: str, body: Mapping[str, object], headers: Iterable[tuple[str, str]]
    ) -> tuple[Connection, int]:
        data = json.dumps(body).encode()
        named = [*headers, *([("Authorization", self._token)] if self._token else [])]
        failed: GatewayError | None = None
        for _ in self._endpoints:
            try:
                connection, status = await self._post(
                    self._endpoints[self._at % len(self._endpoints)], path, data, named
                )
            except GatewayError as error:
                failed = failed or error
                if error.cause is not Cause.AWAY:
                    raise
            else:
                if status != 503 or len(self._endpoints) == 1:
                    return connection, status
                failed = failed or failures.explain(
                    await self._rest(connection), status, connection.endpoint, self.location
                )
                await connection.aclose()
            self._at += 1
        assert failed is not None
        raise failed

    async def _post(
        self, endpoint: Endpoint, path: str, data: bytes, headers: list[tuple[str, str]]
    ) -> tuple[Connection, int]:
        """Send a request to *endpoint*, by a connection that is kept if there is one."""
        while kept := self._take_idle(endpoint):
            with contextlib.suppress(
                EndedError, trio.BrokenResourceError, trio.ClosedResourceError, GatewayError
            ):
                return kept, await self._post_by(kept, path, data, headers)
        return (connection := await self._open(endpoint)), await self._post_by(
            connection, path, data, headers
        )

    async def _post_by(
        self, connection: Connection, path: str, data: bytes, headers: list[tuple[str, str]]
    ) -> int:
        try:
            with trio.fail_after(self._patience):
                return await connection.post(f"/v3{path}", data, headers)
        except trio.TooSlowError:
            await connection.aclose()
            raise failures.away(connection.endpoint, f"did not answer within {self._patience:g} s") from None
        except (EndedError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await connection.aclose()
            if isinstance(
                tls := failures.cause_of(error), ssl.SSLError
            ):  # refusals of TLS 1.3 come with the answer
                raise failures.explain_tls(connection.endpoint, tls, self.location) from None
            if not connection.is_heard:  # closed or reset, whichever came first
                raise failures.unanswered(connection.endpoint, self.location) from None
            raise failures.ended(connection.endpoint, error) from None
        except BaseException:
            with trio.CancelScope(shield=True):
                await connection.aclose()
            raise

    def _take_idle(self, endpoint: Endpoint) -> Connection | None:
        for index, connection in enumerate(self._idle):
            if connection.endpoint == endpoint:
                return self._idle.pop(index)
        return None

    async def _open(self, endpoint: Endpoint) -> Connection:
        try:
            with trio.fail_after(self._patience):
                # Certificates are read each time, so that those that were renewed are used.
                context = await _in_thread(self.location.context) if self.location.is_tls else None
                connection = await Connection.open(endpoint, context, self._opener)
        except trio.TooSlowError:
            raise failures.away(endpoint, f"did not answer within {self._patience:g} s") from None
        except OSError as error:
            raise failures.away(endpoint, f"cannot be reached: {failures.reason_of(error)}") from None
        except (trio.BrokenResourceError, ssl.CertificateError) as error:
            raise failures.explain_tls(endpoint, failures.cause_of(error), self.location) from None
        self.local = connection.local or self.local
        return connection

    async def _log_in(self) -> None:
        """Get a token for the user; without any where this etcd asks for no login."""
        self._token = None
        body = {"name": self.location.user, "password": await _in_thread(self.location.password)}
        connection, status = await self._post_somewhere("/auth/authenticate", body, ())
        data = await self._rest(connection)
        await connection.aclose()
        if status == 200:
            token = self._read(messages.parse_object, data, connection.endpoint).get("token")
            self._token = token if isinstance(token, str) and token.isascii() and token.isprintable() else ""
            return
        refused = failures.refused(data)
        if refused.code == messages.PRECONDITION and "not enabled" in refused.message:
            self._token = ""
            return
        raise failures.explain(data, status, connection.endpoint, self.location)

    async def _rest(self, connection: Connection) -> bytes:
        """Return what is left of an answer that is an error; nothing if it does not come."""
        with (
            trio.move_on_after(self._patience),
            contextlib.suppress(EndedError, trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            return await connection.read_all(CHUNK)
        return b""

    def _read(self, parse: Callable[[Any], T], answer: object, endpoint: Endpoint | None = None) -> T:
        """Return what *parse* makes of *answer*.  Raises GatewayError where that is an error, or garbled."""
        at = endpoint or self._endpoints[self._at % len(self._endpoints)]
        try:
            return parse(answer)
        except GarbledError as error:
            raise failures.garbled(at, str(error)) from None
        except CallRefusedError as refused:
            raise failures.describe(refused, 0, at, self.location) from None


class Watch:
    """A watch that runs; only Gateway makes one."""

    def __init__(self, connection: Connection, location: EtcdLocation) -> None:
        self._connection, self.location = connection, location
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that have no end of a line

    async def next(self) -> Notice:
        """Return the next notice.  Raises GatewayError when there will be none."""
        line, endpoint = await self._next_line(), self._connection.endpoint
        try:
            return messages.parse_notice(messages.parse_line(line))
        except GarbledError as error:
            raise failures.garbled(endpoint, str(error)) from None
        except CallRefusedError as refused:
            raise failures.describe(refused, 0, endpoint, self.location) from None

    async def _next_line(self) -> bytes:
        endpoint = self._connection.endpoint
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > LINE_SIZE:
                raise failures.garbled(endpoint, f"a line has more than {LINE_SIZE} bytes")
            try:
                data = await self._connection.read_some()
            except (EndedError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise failures.ended(endpoint, error) from None
            if not data:
                raise failures.away(endpoint, "ended the watch")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line


async def use_once(location: EtcdLocation, opener: Opener, use: Callable[[Gateway], Awaitable[T]]) -> T:
    """Return what *use* makes of the etcd at *location*, by connections that are closed then."""
    gateway = Gateway(location, opener)
    try:
        return await use(gateway)
    finally:
        with trio.CancelScope(shield=True):
            await gateway.aclose()


async def _in_thread(read: Callable[[], T]) -> T:
    """Return what *read* finds in files, whose disks may not answer."""
    return await trio.to_thread.run_sync(read, abandon_on_cancel=True)


def _result(answer: messages.Json) -> messages.Json:
    """Return the first result of a stream."""
    if "error" in answer:
        raise messages.refusal_in(answer)
    result = answer.get("result")
    if not isinstance(result, dict):
        raise GarbledError("there is no result")
    return result
