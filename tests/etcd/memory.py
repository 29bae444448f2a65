"""A small etcd in memory: keys, revisions, transactions, leases and watches as its documentation describes them.

It is written to be obvious, and answers in the JSON of the gateway, of which transcripts of etcd 3.4.23 were taken.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Kept:
    """A key with its current value."""

    key: bytes
    value: bytes
    created: int
    modified: int
    version: int
    lease: int

    def json(self):
        numbers = {
            "create_revision": self.created,
            "mod_revision": self.modified,
            "version": self.version,
            "lease": self.lease,
        }
        found = {name: str(number) for name, number in numbers.items() if number}
        found["key"] = encode(self.key)
        return found | ({"value": encode(self.value)} if self.value else {})


@dataclass
class LeaseKept:
    """A lease, and when it ends."""

    seconds: int
    ends: float


class RefusalError(Exception):
    """An error that etcd returns instead of an answer."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Etcd:
    """The store; its owner sets the time in *now*."""

    cluster: int = 14841639068965178418
    revision: int = 1
    now: float = 0.0
    keys: dict[bytes, Kept] = field(default_factory=dict)
    leases: dict[int, LeaseKept] = field(default_factory=dict)
    history: list[tuple[int, dict]] = field(default_factory=list)  # revision, event
    compacted: int = 0
    pinned: dict[int, dict[bytes, Kept]] = field(default_factory=dict)
    next_lease: int = 1000
    calls: list[str] = field(default_factory=list)

    # The gateway's calls, by path

    def call(self, path, body):
        """Return the answer to *body*.  Raises RefusalError."""
        self.calls.append(path)
        self.expire()
        return {
            "/v3/kv/range": self._range,
            "/v3/kv/put": lambda body: self._change([{"request_put": body}]) and {},
            "/v3/kv/deleterange": lambda body: self._change([{"request_delete_range": body}]) and {},
            "/v3/kv/txn": self._txn,
            "/v3/kv/compaction": self._compact,
            "/v3/lease/grant": self._grant,
            "/v3/lease/keepalive": self._keep_alive,
            "/v3/lease/revoke": self._revoke,
            "/v3/lease/timetolive": self._time_to_live,
        }[path](body) | {"header": self.header()}

    def header(self):
        return {
            "cluster_id": str(self.cluster),
            "member_id": "1",
            "revision": str(self.revision),
            "raft_term": "2",
        }

    def expire(self):
        """End the leases whose time has come."""
        for number in [each for each, lease in self.leases.items() if lease.ends <= self.now]:
            self._end(number)

    def next_end(self):
        """Return when the next lease ends."""
        return min((lease.ends for lease in self.leases.values()), default=math.inf)

    def events_since(self, start, key, end):
        """Return the lines of a watch from the revision *start* on: (revision, events)."""
        by_revision = {}
        for revision, event in self.history:
            if revision >= start and is_in(decode(event["kv"]["key"]), key, end):
                by_revision.setdefault(revision, []).append(event)
        return sorted(by_revision.items())

    # Changes made by a test

    def put(self, key, value, lease=0):
        self._change([{"request_put": {"key": encode(key), "value": encode(value), "lease": str(lease)}}])

    def delete(self, key):
        self._change([{"request_delete_range": {"key": encode(key)}}])

    def backup(self):
        """Return a copy that can be restored later."""
        return replace(
            self, keys=dict(self.keys), leases={n: replace(each) for n, each in self.leases.items()}, calls=[],
            history=list(self.history),
        )  # fmt: skip

    # One method for each call

    def _range(self, body):
        key, end = decode(body["key"]), decode(body.get("range_end", ""))
        revision, limit = int(body.get("revision", 0)), int(body.get("limit", 0))
        if revision and revision < self.compacted:
            raise RefusalError(400, 11, "etcdserver: mvcc: required revision has been compacted")
        names = sorted(name for name in self._at(revision) if is_in(name, key, end))
        found = [self._at(revision)[name].json() for name in names[: limit or None]]
        more = {"more": True} if len(found) < len(names) else {}
        if more:  # the next page is of this revision
            self.pinned.setdefault(revision or self.revision, dict(self._at(revision)))
        return {"kvs": found, "count": str(len(names)), **more} if found else {}

    def _at(self, revision):
        """Return the keys as they were at a *revision*, which must be a recent one, or as they are now."""
        return self.keys if revision in {0, self.revision} else self.pinned[revision]

    def _txn(self, body):
        succeeded = all(self._holds(each) for each in body.get("compare", []))
        operations = body.get("success" if succeeded else "failure", [])
        changes = [each for each in operations if "request_range" not in each]
        if changes:
            self._change(changes)
        responses = [
            {"response_range": self._range(each["request_range"])}
            if "request_range" in each
            else {"response_put": {}}
            for each in operations
        ]
        return ({"succeeded": True} if succeeded else {}) | ({"responses": responses} if responses else {})

    def _holds(self, compare):
        kept = self.keys.get(decode(compare["key"]))
        target = compare["target"]
        name = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision"}[target]
        attribute = {"VERSION": "version", "CREATE": "created", "MOD": "modified"}[target]
        assert compare["result"] == "EQUAL"
        return (getattr(kept, attribute) if kept else 0) == int(compare.get(name, 0))

    def _change(self, changes):
        """Apply all *changes* at the next revision."""
        for change in changes:
            lease = int(change.get("request_put", {}).get("lease", 0))
            if lease and lease not in self.leases:
                raise RefusalError(404, 5, "etcdserver: requested lease not found")
        revision, events = self.revision + 1, []
        for change in changes:
            if "request_put" in change:
                body = change["request_put"]
                key = decode(body["key"])
                before = self.keys.get(key)
                kept = Kept(
                    key,
                    decode(body.get("value", "")),
                    before.created if before else revision,
                    revision,
                    before.version + 1 if before else 1,
                    int(body.get("lease", 0)),
                )
                self.keys[key] = kept
                events.append({"kv": kept.json()})
            else:
                body = change["request_delete_range"]
                key, end = decode(body["key"]), decode(body.get("range_end", ""))
                for name in [each for each in sorted(self.keys) if is_in(each, key, end)]:
                    del self.keys[name]
                    kv = {"key": encode(name), "mod_revision": str(revision)}
                    events.append({"type": "DELETE", "kv": kv})
        if events:
            self.revision = revision
            self.history += [(revision, event) for event in events]
        return True

    def _compact(self, body):
        revision = int(body["revision"])
        if revision > self.revision:
            raise RefusalError(400, 11, "etcdserver: mvcc: required revision is a future revision")
        self.compacted = revision
        self.history = [each for each in self.history if each[0] >= revision]
        return {}

    def _grant(self, body):
        self.next_lease += 1
        number = int(body.get("ID", 0)) or self.next_lease
        self.leases[number] = LeaseKept(int(body["TTL"]), self.now + int(body["TTL"]))
        return {"ID": str(number), "TTL": str(body["TTL"])}

    def _keep_alive(self, body):
        lease = self.leases.get(int(body["ID"]))
        if lease is None:
            return {"result": {"header": self.header(), "ID": body["ID"]}}
        lease.ends = self.now + lease.seconds
        return {"result": {"header": self.header(), "ID": body["ID"], "TTL": str(lease.seconds)}}

    def _revoke(self, body):
        if int(body["ID"]) not in self.leases:
            raise RefusalError(404, 5, "etcdserver: requested lease not found")
        self._end(int(body["ID"]))
        return {}

    def _time_to_live(self, body):
        lease = self.leases.get(int(body["ID"]))
        left = "-1" if lease is None else str(math.ceil(lease.ends - self.now))
        return {"ID": body["ID"], "TTL": left}

    def _end(self, number):
        del self.leases[number]
        keys = [name for name, kept in self.keys.items() if kept.lease == number]
        if keys:
            self._change([{"request_delete_range": {"key": encode(name)}} for name in sorted(keys)])


def is_in(name, key, end):
    return name == key if not end else key <= name and (name < end or end == b"\0")


def encode(data):
    return base64.b64encode(data).decode()


def decode(text):
    return base64.b64decode(text)
