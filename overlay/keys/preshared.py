"""Sentences about preshared keys: where one comes from, and how the two ends can compare theirs without showing
them.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from peers.peer import preshared_key_file_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peers.peer import Peer
    from peers.stores import Location

# Ours
NAMED = 5  # peers in a line of the log


def how_to_compare(own: Peer, peer: Peer, peers_file: Location) -> str:
    """Return what to do if the preshared keys of *own*, this node, and *peer* may differ.

    A hash of a random key reveals nothing.
    """
    file = preshared_key_file_for(own, peer)
    if file is None:
        return (
            f"{peers_file} names no preshared_key_file for peers.{own.name} or peers.{peer.name}, so see whether "
            f"{peer.name} has a preshared key for this node"
        )
    owner = min((each for each in (own, peer) if each.preshared_key_file == file), key=lambda each: each.name)
    return (
        f"compare the preshared_key_file of peers.{owner.name} in {peers_file} with that at {peer.name}, by "
        f"`sha256sum {shlex.quote(str(file))}`; an agent reads a changed file when it gets SIGHUP"
    )


def describe_change(names: Sequence[str], reject_after_time: float) -> str:
    """Return a log line on the peers *names*, whose preshared keys a reload changed."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"preshared keys changed peers={','.join(names[:NAMED])}{more}: the next handshake uses the new one, and "
        f"begins at once; sessions keep their keys until then, {reject_after_time:g} s at most"
    )
