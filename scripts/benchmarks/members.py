"""Many hosts of a network in etcd, in one process: python -m scripts.benchmarks.members.

Each is the store of a real agent without the agent: it joins, keeps its lease and follows the others.  The first line
of stdin is JSON: the URL, the number of hosts, the number of the first one, a directory, and how many of the hosts read
the table like an agent, which looks once a second.  The others receive every change, but once they have joined, they
read the list of members and write it to disk only every QUIET seconds: real hosts have a processor each for that, and
here they share one.  For the same reason they join in groups, WAVE at a time.

It prints ``joined`` with the seconds that this took.  Each further line is a command: ``sees NAME`` is answered once
every host has heard of the node NAME, with the moments of the last host that heard and of the last table that has it;
``heard`` once every host follows etcd (again), with the moment of the last one and the number of listings since the
last such command.
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
LOOK = 1.0  # seconds between two checks of an agent (overlay.ticks)
POLL = 0.02
WAVE = 10

_listings = [0]
_list = Gateway.range


async def _counted(self: Gateway, key: bytes, end: bytes = b"") -> Any:
    _listings[0] += end != b""
    return await _list(self, key, end)


class QuietAttendance(Attendance):
    """A store that, once it has joined, reads the list of members less often, and hardly ever writes it to disk."""

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
        """Read the table whenever it has changed, like an agent."""
        while True:
            await trio.sleep(LOOK)
            if self.store.changed():
                table = await trio.to_thread.run_sync(self.store.load)
                now = time.time()
                for name in table.peers:
                    self.names.setdefault(name, now)

    def knows(self, name: str) -> bool:
        """Return whether this host has heard of the node *name*."""
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
    """Read the settings, and run the hosts."""
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
