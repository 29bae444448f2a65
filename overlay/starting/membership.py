"""A store that this host takes part in: attended alongside the agent, from before there is a node until after its
end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from overlay import defaults
from overlay.ending import StoppedError
from overlay.errors import ConfigError
from overlay.host.interfaces import source_towards
from overlay.keys.announcing import own_keys
from overlay.keys.files import load_private_key
from overlay.keys.own import load_next_key, next_path
from peers.peer import PEER_NAME, Endpoint
from peers.stores.membership import AttendedStore, Member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from overlay.config import Options
    from overlay.crypto.keys import PrivateKey
    from overlay.starting.waiting import WaitingAgent
    from peers.stores.store import Store

# Ours
DIRECTORY = Path("/var/lib/overlay")  # where root keeps the state of networks
ANYWHERE = "192.0.2.1"  # not a host (RFC 5737): the route there is the default route
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger("overlay")


@contextlib.asynccontextmanager
async def taking_part(
    store: Store,
    key: PrivateKey | None,
    options: Options,
    open_socket: Callable[[int], socket.socket],
    waiting: WaitingAgent,
) -> AsyncIterator[Options]:
    """Take part in *store* in the block, which begins when this host has joined; a file needs none of this.

    The store is reached by sockets that *open_socket* opens, and *waiting* answers questions meanwhile.  The block gets
    the *options* of the node.  Raises StoreError or ConfigError if this host cannot join, and StoppedError if a signal
    or a question says to stop before it has joined.
    """
    if not isinstance(store, AttendedStore):
        _refuse_endpoint(options)
        yield options
        return
    member = replace(
        _describe_member(key or load_private_key(options.key)[0], options), open_socket=open_socket
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(store.attend, member)
        await _until_joined(store, waiting)
        # The node knows itself by its key; the name is for the others.
        yield replace(options, node=None)
        nursery.cancel_scope.cancel()


async def _until_joined(store: AttendedStore, waiting: WaitingAgent) -> None:
    def tell(reason: str) -> None:
        waiting.wait_for("the network", reason, is_logged=True)

    with trio.open_signal_receiver(*HEEDED) as signals:
        async with trio.open_nursery() as nursery:

            async def heed() -> None:
                async for number in signals:
                    if number != signal.SIGHUP:
                        log.info("stopping cause=%s", signal.Signals(number).name)
                        raise StoppedError

            nursery.start_soon(heed)
            nursery.start_soon(waiting.serve)
            await store.joined(tell)
            nursery.cancel_scope.cancel()


def _describe_member(key: PrivateKey, options: Options) -> Member:
    name = options.node or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:63] or "node"
    if not PEER_NAME.fullmatch(name):
        raise ConfigError(
            f"--node {name}: this is not a peer name; write 1 to 63 letters, digits, dots, hyphens or underscores"
        )
    if options.endpoint is not None:
        try:
            Endpoint.parse(options.endpoint, 1)
        except ValueError as error:
            raise ConfigError(f"--endpoint: {options.endpoint!r} {error}") from None
    keys = own_keys(key, load_next_key(options.key, options.interface))
    key_file = options.key.absolute()
    return Member(
        name,
        keys,
        state_directory(),
        key_file,
        next_path(key_file),
        _own_address,
        options.endpoint,
        options.encapsulation,
        interface=None if options.interface == defaults.INTERFACE else options.interface,
    )


def state_directory() -> Path:
    """Return the directory for the state of networks: the service's (systemd.exec), root's, or this user's (XDG)."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    if os.geteuid() == 0:
        return DIRECTORY
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "overlay"


def _own_address(host: str | None) -> str | None:
    """Return the address of this host on the route to *host*, or on its default route."""
    return source_towards(host or ANYWHERE)


def _refuse_endpoint(options: Options) -> None:
    for name, value in (("--endpoint", options.endpoint), ("--encapsulation", options.encapsulation)):
        if value is not None:
            raise ConfigError(
                f"{name} applies only to a network in etcd, and {options.peers} is a file: set it there"
            )
