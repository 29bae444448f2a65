"""Peers that a node knows but has no tunnel with: they wait for its private key, or `wg` removed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.numbers import count

if TYPE_CHECKING:
    from overlay.config import Node, Options


@dataclass(frozen=True, slots=True)
class Absent:
    """How many peers wait for this node's private key, and how many peers of the peers file `wg` has removed."""

    waiting: int = 0
    removed: int = 0

    def describe(self) -> str:
        """Return why there are no other peers, as a part of a sentence."""
        found = []
        if self.waiting:
            verb = "waits" if self.waiting == 1 else "wait"
            found.append(f"{count(self.waiting, 'peer')} {verb} for the private key of this node")
        if self.removed:
            found.append(f"wg removed {count(self.removed, 'peer')}")
        return f"no tunnels: {'; '.join(found)}" if found else "no other peers"


def absent(node: Node) -> Absent:
    """Return how many known peers *node* has no tunnel with."""
    if node.merged is None:
        return Absent()
    removed = [each for each in node.merged.amendments.peers.values() if each.peer is None]
    return Absent(len(node.merged.waiting), len(removed))


def describe_absence(name: object, node: Node, options: Options) -> str | None:
    """Return a sentence on why there is no tunnel with the known peer *name*; None if no such peer is known."""
    if node.merged is None:
        return None
    if any(peer.name == name for peer in node.merged.waiting):
        command = f"`wg set {options.interface} private-key FILE`"
        return f"there is no tunnel with {name}, because this node has no private key: give it one with {command}"
    gone = (each.filed for each in node.merged.amendments.peers.values() if each.peer is None)
    if any(filed is not None and filed.name == name for filed in gone):
        return (
            f"wg removed {name} from this node: it comes back when its section in the peers file changes, or when "
            "the agent is restarted"
        )
    return None
