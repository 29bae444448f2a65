"""A node whose private key was removed by `wg`, so that tunnels that need one do not work, and how to restore it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.numbers import count
from overlay.troubles.absent import absent

if TYPE_CHECKING:
    from overlay.config import Node, Options


def is_unkeyed(node: Node) -> bool:
    """Return whether *node* has a private key in its file, but none in force.

    A bare node begins without one, and its key is up to its operator.
    """
    merged = node.merged
    return (
        merged is not None
        and merged.private_key is None
        and not node.is_bare
        and node.as_filed.own.public_key is not None
    )


def has_key(node: Node) -> bool:
    """Return whether *node* has a private key in force."""
    key = node.own.public_key if node.merged is None else node.merged.private_key
    return key is not None


def describe(node: Node, options: Options) -> Finding | None:
    """Return a finding on *node* without a private key; None unless the key was removed, or has not been set yet
    although peers have.
    """
    if node.merged is None:
        return None
    if node.is_bare and node.merged.private_key is None and node.merged.peers:
        return Finding(
            "key_removed",
            f"{options.interface} has no private key, so its tunnels are down",
            f"set it with `wg set {options.interface} private-key FILE`",
        )
    if not is_unkeyed(node):
        return None
    tunnels = len(node.merged.peers)
    what = "it has no tunnel"
    if tunnels:
        what = f"its {count(tunnels, 'tunnel')} {'is' if tunnels == 1 else 'are'} down"
    command = shlex.join(["wg", "set", options.interface, "private-key", str(options.key.absolute())])
    remedy = f"restore it with `{command}`"
    if absent(node).removed:
        remedy += ", and the peers that wg removed by restarting the agent"
    return Finding(
        "key_removed",
        f"wg removed the private key of this node, as `wg setconf` with a file without PrivateKey does, so {what}",
        remedy,
    )
