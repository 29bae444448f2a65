"""Peers that are heard from the endpoint that the peers file has for another peer.

A message is authenticated by the key of its sender, so the owner of that key is at that address.  If it is the endpoint
of another peer, the endpoints or public keys of the two are swapped in the peers file, or one host has the private key
of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.wire.addresses import format_sockaddr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.roster import Remote
    from overlay.wire.addresses import Sockaddr


def find_misplaced(remotes: Iterable[Remote], is_met: Callable[[Remote], bool]) -> dict[str, Finding]:
    """Return a finding on each of *remotes* that is heard from the endpoint of another, by its name.

    Only peers with a session count, which *is_met* reports.  Two peers in each other's place share one finding.

    Peers behind one NAT share an address, and the NAT may lend a peer the port that leads to another.  So nothing is
    found if the peer is at the address of its own endpoint, or if the other is heard at its endpoint, too.
    """
    remotes = [each for each in remotes if each.encapsulation.is_encrypted and each.resolved]
    owners: dict[Sockaddr, Remote] = {}
    for remote in remotes:
        owners.update(dict.fromkeys(remote.resolved, remote))
    met = [each for each in remotes if each.heard_at is not None and is_met(each)]
    places = {each.number: each.heard_at for each in met}
    found: dict[str, Finding] = {}
    for remote in met:
        assert remote.heard_at is not None
        owner = owners.get(remote.heard_at)
        if owner is None or remote.heard_at[0] in {each[0] for each in remote.resolved}:
            continue
        theirs = places.get(owner.number)
        if theirs is None or theirs not in (*owner.resolved, *remote.resolved):
            found[remote.peer.name] = _describe_one(remote, owner, remote.heard_at)
        elif theirs in remote.resolved:
            found[remote.peer.name] = found.get(owner.peer.name) or _describe_two(
                remote, owner, remote.heard_at, theirs
            )
    return found


def _describe_one(remote: Remote, owner: Remote, place: Sockaddr) -> Finding:
    name, other = remote.peer.name, owner.peer.name
    return Finding(
        "endpoint_of_other",
        f"{name} is heard from {format_sockaddr(place)}, which the peers file here has as the endpoint of {other}",
        f"see whether endpoint or public_key of {name} and {other} are in each other's place in the peers file here, "
        f"or the host at that address has the private key of {name}: `overlay pubkey` there prints its public key",
        name,
    )


def _describe_two(remote: Remote, owner: Remote, place: Sockaddr, other_place: Sockaddr) -> Finding:
    name, other = remote.peer.name, owner.peer.name
    return Finding(
        "endpoint_of_other",
        f"{name} is heard from {format_sockaddr(place)} and {other} from {format_sockaddr(other_place)}, each of which "
        "the peers file here has as the endpoint of the other",
        f"exchange the endpoints of {name} and {other} in the peers file here, or their public keys if those are in "
        f"each other's place: `overlay pubkey` at {name} prints its own",
        name,
    )
