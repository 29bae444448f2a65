"""Many hosts of a network in etcd, in one process: python -m scripts.benchmarks.members.

Each is the store of a real agent without the agent: it joins, keeps its lease and follows the others.  From stdin this
reads a line of JSON: the URL, how many hosts, the first one's number, a directory, and how many of them read the table
as an agent does, which looks once a second.  The others take in every change, but once they have joined they read who
takes part, and write it to disk, only every QUIET seconds: each host has a processor of its own for that, and here they
share one.  For the same reason they join in groups, WAVE at a time.

It says ``joined`` with the seconds that took.  Each further line is a command: ``sees NAME`` is answered when every
host has been told of the node NAME, with the moments of the last that was told and of the last table that has it;
``heard`` when every host follows etcd (again), with the moment of the last and how many listings there were since it
was asked last.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import trio

from peers.stores.etcd.attendance import Attendance
from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.participant import GATHERING
from peers.stores.etcd.store import EtcdStore
from peers.stores.membership import Member, OwnKeys

QUIET = 300.0  # seconds
LOOK = 1.0  # seconds between two looks of an agent (overlay.ticks)
POLL = 0.02
WAVE = 10

_listings = [0]
_list = Gateway.range


async def _counted(self: Gateway, key: bytes, end: bytes = b"") -> Any:
    _listings[0] += end != b""
    return await _list(self, key, end)


class QuietAttendance(Attendance):
    """One that reads who takes part less often, once it has joined, and hardly ever writes it to disk."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._keeping.interval = QUIET

    @property
    def gathering(self) -> float:
        """Seconds between two readings."""
        return QUIET if self.standing().state == "held" else GATHERING


class QuietStore(EtcdStore):
    """The store of a host whose table is never read."""

    attendance_class = QuietAttendance


class Host:
    """One host of the network."""

    def __init__(self, url: str, number: int, directory: Path, *, reads: bool) -> None:
        location = EtcdLocation.parse("etcd", url.removeprefix("etcd:"))
        self.store = EtcdStore(location) if reads else QuietStore(location)
        self.reads, self.name = reads, f"host{number}"
        key = hashlib.sha256(self.name.encode()).digest()
        files = directory / "private.key", directory / "private.key.new"
        endpoint = f"192.0.{number // 250}.{number % 250 + 1}"
        self.member = Member(self.name, OwnKeys(key), directory, *files, lambda _: None, endpoint)
        self.names: dict[str, float] = {}

    async def read(self) -> None:
        """Read the table whenever it has changed, as an agent does."""
        while True:
            await trio.sleep(LOOK)
            if self.store.changed():
                table = await trio.to_thread.run_sync(self.store.load)
                now = time.time()
                for name in table.peers:
                    self.names.setdefault(name, now)

    def knows(self, name: str) -> bool:
        """Return whether it has learned of the node *name*."""
        newest = itertools.islice(reversed(self.store.known_keys().values()), 3)
        return any(f'"name": "{name}"'.encode() in kv.value for kv in newest)


async def run(hosts: list[Host]) -> None:
    """Join, and answer commands."""
    began = time.time()
    async with trio.open_nursery() as nursery:
        for wave in (hosts[first : first + WAVE] for first in range(0, len(hosts), WAVE)):
            for host in wave:
                await nursery.start(host.store.attend, host.member)
            for host in wave:
                await host.store.joined(lambda reason: print(reason, file=sys.stderr))
        for host in hosts:
            if host.reads:
                nursery.start_soon(host.read)
        _tell(joined=time.time() - began)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            command, _, name = line.strip().partition(" ")
            if command == "sees":
                await _wait(lambda name=name: all(host.knows(name) for host in hosts))
                told = time.time()
                readers = [host for host in hosts if host.reads]
                await _wait(lambda name=name, readers=readers: all(name in host.names for host in readers))
                _tell(told=told, read=max((host.names[name] for host in readers), default=None))
            elif command == "heard":
                await _wait(lambda: all(host.store.standing().silent is None for host in hosts))
                _tell(heard=time.time(), listings=_listings[0])
                _listings[0] = 0
        nursery.cancel_scope.cancel()


async def _wait(condition: Any) -> None:
    while not condition():
        await trio.sleep(POLL)


def _tell(**values: object) -> None:
    print(json.dumps(values), flush=True)


def main() -> None:
    """Read what to be, and be it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.disable()
    setattr(Gateway, "range", _counted)  # noqa: B010  counted, and else as it is
    told = json.loads(sys.stdin.readline())
    first, count, readers = told["first"], told["count"], told["readers"]
    directory = Path(told["directory"])
    hosts = [
        Host(told["url"], first + number, directory / f"{first + number}", reads=number < readers)
        for number in range(count)
    ]
    trio.run(run, hosts)


if __name__ == "__main__":
    main()
