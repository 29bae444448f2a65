"""An etcd in memory behind HTTP, on streams in memory: with trio's simulated clock, hours take a moment."""

from __future__ import annotations

import json

import h11
import trio
import trio.testing

from tests.etcd.memory import Etcd, RefusalError, decode


class Served:
    """Serves *etcd* to everyone who connects with open(); run() it in a nursery.

    While it *is_down* nobody can connect, and connections break.  While it *is_silent* it reads and does not answer.
    With *password* it requires a login, whose tokens are valid until *tokens* is cleared.
    """

    def __init__(self, etcd=None, password=None):
        self.etcd = etcd or Etcd()
        self.is_down = self.is_silent = False
        self.password, self.tokens = password, set()
        self.connections = 0
        self.answer_with = None  # (status, body) returned instead of any answer
        self.slowly = False  # a byte at a time
        self.forbids = False  # if True, writes are refused, as for a user whose role may only read
        self._nursery = None
        self._changed = trio.Event()
        self._lives = set()  # scopes of the connections
        self._epoch = None

    async def run(self, task_status=trio.TASK_STATUS_IGNORED):
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._keep_time)
            task_status.started()
            await trio.sleep_forever()

    async def open(self, endpoint):
        """Return a stream connected to this server."""
        await trio.lowlevel.checkpoint()
        if self.is_down or self._nursery is None:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._converse, theirs)
        self.connections += 1
        return ours

    def stop(self):
        """Go down: all connections break."""
        self.is_down = True
        for scope in self._lives:
            scope.cancel()

    def start(self):
        self.is_down = False
        self.tokens.clear()

    def restart(self):
        """Stop and start, like a member that reads its own disk: the leases start again."""
        self.stop()
        self.start()
        self._tick()
        for lease in self.etcd.leases.values():
            lease.ends = self.etcd.now + lease.seconds

    def tell(self):
        """Notify the watches of changes that a test made."""
        self._changed.set()
        self._changed = trio.Event()

    def put(self, key, value, lease=0):
        self._tick()
        self.etcd.put(key, value, lease)
        self.tell()

    def delete(self, key):
        self._tick()
        self.etcd.delete(key)
        self.tell()

    def _tick(self):
        self._epoch = trio.current_time() if self._epoch is None else self._epoch
        self.etcd.now = trio.current_time() - self._epoch

    async def _keep_time(self):
        while True:
            await trio.sleep(0.5)
            self._tick()
            before = self.etcd.revision
            if not self.is_down:
                self.etcd.expire()
            if self.etcd.revision != before:
                self.tell()

    async def _converse(self, stream):
        http = h11.Connection(h11.SERVER)
        with trio.CancelScope() as scope:
            self._lives.add(scope)
            try:
                while await self._answer(http, stream):
                    http.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
                pass
            finally:
                self._lives.discard(scope)
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)

    async def _answer(self, http, stream):
        request, body = None, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        while self.is_silent:
            await trio.sleep(1)
        path, headers = request.target.decode(), dict(request.headers)
        if self.answer_with is not None:
            status, answer = self.answer_with
        else:
            status, answer = self._call(path, json.loads(body), headers)
        if path == "/v3/watch" and status == 200 and self.answer_with is None:
            await self._watch(http, stream, json.loads(body)["create_request"])
            return False
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        await self._send(
            http, stream, h11.Response(status_code=status, headers=[("Content-Length", str(len(data)))])
        )
        await self._send(http, stream, h11.Data(data=data))
        await self._send(http, stream, h11.EndOfMessage())
        return True

    def _call(self, path, body, headers):
        self._tick()
        if path == "/v3/auth/authenticate":
            if self.password is None:
                return 412, {"error": "etcdserver: authentication is not enabled", "code": 9}
            if (body["name"], body["password"]) != self.password:
                return 400, {
                    "error": "etcdserver: authentication failed, invalid user ID or password",
                    "code": 3,
                }
            token = f"token.{len(self.etcd.calls)}.{len(self.tokens)}"
            self.tokens.add(token)
            return 200, {"header": self.etcd.header(), "token": token}
        if self.password is not None:
            token = headers.get(b"authorization")
            if token is None:
                return 400, {"error": "etcdserver: user name is empty", "code": 3}
            if token.decode() not in self.tokens:
                return 401, {"error": "etcdserver: invalid auth token", "code": 16}
        if path == "/v3/watch":
            self.etcd.calls.append(path)
            return 200, None
        if self.forbids and path == "/v3/kv/txn" and "request_put" in json.dumps(body):
            self.etcd.calls.append(path)
            return 403, {"error": "etcdserver: permission denied", "code": 7}
        before = self.etcd.revision
        try:
            answer = self.etcd.call(path, body)
        except RefusalError as error:
            return error.status, {"error": error.message, "message": error.message, "code": error.code}
        finally:
            if self.etcd.revision != before:
                self.tell()
        return 200, answer

    async def _watch(self, http, stream, create):
        key, end = decode(create["key"]), decode(create.get("range_end", ""))
        start = int(create.get("start_revision", 0)) or self.etcd.revision + 1
        await self._send(
            http, stream, h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")])
        )

        async def line(result):
            data = json.dumps({"result": {"header": self.etcd.header()} | result}).encode() + b"\n"
            for at in range(0, len(data), 1 if self.slowly else len(data)):
                piece = data[at : at + 1] if self.slowly else data
                await self._send(http, stream, h11.Data(data=piece))

        await line({"created": True})
        if start <= self.etcd.compacted:
            await line({"canceled": True, "compact_revision": str(self.etcd.compacted)})
            await self._send(http, stream, h11.EndOfMessage())
            return
        while True:
            changed = self._changed
            for revision, events in self.etcd.events_since(start, key, end):
                await line({"events": events})
                start = revision + 1
            await changed.wait()

    async def _send(self, http, stream, event):
        await stream.send_all(http.send(event))
