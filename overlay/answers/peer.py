"""One peer: which one is meant, and everything that may explain why it does not answer."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from overlay.encap.carrier import carried_by, identified_by
from overlay.errors import HostError
from overlay.host import clock
from overlay.host.netlink.route_lookup import RouteLookup, RouteOutcome, RouteQuery
from overlay.link.messages import OWN
from overlay.questions import refusal
from overlay.status import describe_silence
from overlay.supervision.counters import Counted
from overlay.troubles.absent import describe_absence
from overlay.wire.addresses import format_sockaddr
from peers.peer import format_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.answers.running import Running
    from overlay.config import Node
    from overlay.diagnosis.finding import Finding
    from overlay.questions import Answer, TellRows
    from overlay.roster import Remote, Roster
    from peers.addresses import Address


# Ours
TRIED = 16  # prefixes of a peer at most for which the kernel's route is looked up


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Describe the peer ``name``, or the peer with that address."""
    asked, node = request.get("name"), running.node()
    remote = find_peer(asked, running.roster)
    if remote is None:
        return refuse_peer(asked, running)
    counted = await running.count(remote) if request.get("is_counted") is True else Counted(is_complete=True)
    node, now = running.node(), clock.now()
    row, refusals = running.row(remote, counted.peers.get(remote.number), now), running.refusals
    row["notes"] += misdirected_notes(row, refusals.describe_misdirected(node, now).values())
    described = describe_peer(asked, remote, row, node, refusals.describe_strangers(now))
    if node.is_bare:
        described |= _kernel_addresses(running, remote, described["asked_address"])
    described["services"] = list(_services_on(running, remote.peer.name))
    if not counted.is_complete and remote.number not in counted.peers:
        described["forwarder_note"] = describe_silence(running.supervisor.forwarder.pid, counted.patience)
    return {"ok": True, "peer": described}


def _kernel_addresses(running: Running, remote: Remote, asked: str | None) -> dict[str, list[str]]:
    """Return addresses of *remote*, for which `wg` has only prefixes, and this host's own for packets to them.

    A prefix of one address is taken for the peer's own address, and so is *asked*.
    """
    own: dict[str, None] = {}
    addresses: dict[str, None] = {}
    targets = [each.network_address for each in remote.peer.subnets if each.num_addresses == 1]
    if asked is not None:
        targets = [ip_address(asked)]
    with contextlib.suppress(HostError), contextlib.closing(RouteLookup()) as ways:
        for target in targets[:TRIED]:
            way = ways.of(RouteQuery(target))
            if (
                way.outcome is RouteOutcome.OUT
                and way.interface == running.host.interface
                and way.source is not None
            ):
                own[str(way.source)] = addresses[str(target)] = None
    return {"own_addresses": list(own), "addresses": list(addresses)}


def asked_address(asked: object) -> Address | None:
    """Return *asked* as an address; None if it is not one, or has a zone."""
    try:
        address = ip_address(asked) if isinstance(asked, str) else None
    except ValueError:
        return None
    return None if "%" in str(address) else address


def find_peer(asked: object, roster: Roster) -> Remote | None:
    """Return the peer with the name *asked*, or whose subnets contain the address *asked*; None if there is none."""
    if not isinstance(asked, str):
        return None
    named = roster.by_name.get(asked)
    address = asked_address(asked) if named is None else None
    number = None if address is None else roster.owner(address)
    return named if number is None else roster.by_number.get(number)


def refuse_peer(asked: object, running: Running) -> dict[str, Any]:
    """Return a refusal that says why *asked* is not another peer.

    Its kind is ``own`` for this node itself and its subnets, and ``absent`` for a peer that is known, but not in use.
    """
    address, node, roster = asked_address(asked), running.node(), running.roster
    if asked == node.own.name or address in node.own.addresses:
        return refusal(f"{asked} is this node itself; name another peer", "own")
    if address is not None and roster.owner(address) == OWN:
        return refusal(
            f"{asked} is in a subnet of this node, so no tunnel leads to it: use `ping {asked}`, or name another peer",
            "own",
        )
    if (absence := describe_absence(asked, node, running.options)) is not None:
        return refusal(absence, "absent")
    if address is not None:
        error = f"no peer in {running.options.peers} has the address {asked}"
    else:
        error = f"there is no peer {asked or 'with an empty name'} in {running.options.peers}"
    return {"ok": False, "kind": "unknown_peer", "error": error, "known": list(roster.by_name)}


def misdirected_notes(row: dict[str, Any], told: Iterable[Finding]) -> list[str]:
    """Return the findings in *told*, as sentences, that may explain why the peer of *row* does not answer.

    Anyone may have sent handshakes for another key from its address.  They mean nothing once a handshake with the peer
    was completed.
    """
    return [str(each) for each in told if each.peer == row["name"] and row["last_handshake"] is None]


def describe_peer(
    asked: object, remote: Remote, row: dict[str, Any], node: Node, strangers: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Return the answer about *remote*: its *row* of the status, and what explains it.

    *strangers* are those who call with keys that no peer has.
    """
    address, own = asked_address(asked), node.own
    encapsulation, clear = remote.encapsulation, remote.encapsulation.clear
    return {
        **row,
        "own_name": own.name,
        "own_addresses": [str(each) for each in own.addresses],
        "own_public_key": None if own.public_key is None else format_public_key(own.public_key),
        "has_own_endpoint": own.endpoint is not None,
        "is_bare": node.is_bare,
        "is_agent": remote.peer.is_agent,
        "is_configured": remote.configured is not None,
        "configured_endpoint": None if remote.configured is None else str(remote.configured),
        "endpoint_origin": endpoint_origin(remote, row.get("endpoint")),
        "round_trip": None if remote.round_trip is None else round(remote.round_trip, 6),
        "resolve_error": remote.resolve_error,
        "strangers": [each["public_key"] for each in strangers if each["peer"] == remote.peer.name],
        "asked_address": None if address is None else str(address),
        "carried_by": carried_by(encapsulation),
        "identified_by": identified_by(encapsulation, remote.ends),
        "forwarder_note": None,
        "foreign": (row.get("drops") or {}).get("source", 0),
        "mismatched": (row.get("drops") or {}).get(clear.mismatch, 0) if clear is not None else 0,
    }


def endpoint_origin(remote: Remote, endpoint: str | None) -> str | None:
    """Return where *endpoint* of *remote* comes from; None if it has no endpoint.

    It is ``configured`` as an address, ``resolved`` from the configured name, or the peer was ``heard`` there.
    """
    if endpoint is None:
        return None
    if endpoint not in map(format_sockaddr, remote.resolved):
        return "heard"
    return "resolved" if remote.configured is not None and remote.configured.address is None else "configured"


def _services_on(running: Running, peer: str) -> Iterator[dict[str, Any]]:
    """Yield the servers of services at *peer*; their state is null if this node does not balance the service.

    The reason is the last result of the checks, if the server *is_checked*.
    """
    for service in running.services.values():
        health = running.balancing.watching.healths.get(service.name)
        for server in service.entries_at(peer):
            known: dict[str, Any] = {"state": None, "reason": None, "is_checked": False}
            if health is not None:
                known["state"], known["reason"] = (
                    health.standings[server.key].condition.value,
                    health.reason(server),
                )
                known["is_checked"] = bool(service.checks_of(server))
            addresses = list(map(str, service.addresses))
            yield {"service": service.name, "server": server.name, "addresses": addresses, **known}
