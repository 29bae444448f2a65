"""The keys of this node that it answers handshakes for, and which peers use which of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.crypto.keys import encode_key
from overlay.keys import rotation
from peers.stores import FILE
from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows

# Ours
SCHEMA = 1


async def answer(running: Running, _request: Answer, _tell_rows: TellRows) -> Answer:
    """Return the public keys, where they come from, and the peers by the key that they used last."""
    node = running.node()
    found = rotation.standing(node, running.roster, running.engine.sessions)
    listed, store = node.own.public_key, running.store
    return {
        "ok": True,
        "schema": SCHEMA,
        "name": node.own.name,
        "key_file": str(running.options.key.absolute()),
        "peers_file": str(running.options.peers),
        "is_by_file": running.options.peers.store == FILE,
        "is_store_silent": isinstance(store, AttendedStore) and store.standing().silent is not None,
        "public_key": encode_key(node.private_key.public),
        "next_public_key": None if node.next_key is None else encode_key(node.next_key.public),
        "listed_public_key": None if listed is None else encode_key(listed),
        "delay": store.key_delay() if isinstance(store, AttendedStore) else None,
        "reload_error": running.reloads.error,
        "peers": None
        if found is None
        else {"new": list(found.new), "old": list(found.old), "silent": list(found.silent)},
    }
