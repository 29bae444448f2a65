"""Where a peer is, by what comes from the ports of its lanes.

A lane sends from the host that its session sends from, and from another port, at which nothing is received.  So it only
shows the host: a peer that is heard through a lane from another host has moved there, and is called at its former port.
Behind NAT the port may have changed as well; datagrams of the session show that, and until then the lane's probes are
not answered.

Some NATs give ports of one host different addresses.  A lane that comes from elsewhere than its session from the first
probe on is not used: it would move the peer to and fro.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.wire.addresses import Sockaddr


def are_of_one_host(one: Sockaddr | None, other: Sockaddr) -> bool:
    """Return whether two addresses differ in their ports at most."""
    return one is not None and one[0] == other[0] and one[3:] == other[3:]


def is_beside(keypair: Keypair[LivePeer], source: Sockaddr) -> bool:
    """Return whether a probe of the lane of *keypair* comes from where the session is; this is remembered."""
    if are_of_one_host(keypair.peer.endpoint, source):
        keypair.was_beside = True
        return True
    return False


def place_of_session(keypair: Keypair[LivePeer], source: Sockaddr) -> Sockaddr | None:
    """Return where the peer is, now that the lane of *keypair* was heard from *source*; None if that does
    not show it.
    """
    endpoint = keypair.peer.endpoint
    if are_of_one_host(endpoint, source):
        return endpoint
    if endpoint is None or not keypair.was_beside:
        return None
    return (source[0], endpoint[1], *source[2:])
