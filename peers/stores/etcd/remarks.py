"""What an administrator is told of a host's part in a network: how it stands, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.addresses import parse_address
from peers.errors import format_keys
from peers.peer import format_public_key
from peers.stores.etcd.tenant import Standing

# Of a following key that the others are not told of
UNTOLD_IN_SILENCE = "etcd is silent, so the new key of this host is published only once it answers again"
TOLD_SOON = "the new key of this host will be published to the other hosts within seconds"

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.errors import StoreError
    from peers.stores.etcd.document import Document
    from peers.stores.etcd.layout import NodeValue


def describe_silence(trouble: StoreError | None, history: str | None, *, is_first: bool) -> list[str]:
    """Return what to say of an etcd that is not followed, by its *history* or because of *trouble*;
    *is_first* if never.
    """
    if history is not None:
        return [
            (
                f"etcd is not followed, because {history}: the table stays in force; if this etcd is the right one, "
                "run `overlay network accept`"
            )
        ]
    which = "that was in force when this host last ran " if is_first else ""
    return [] if trouble is None else [f"{trouble}; the table {which}stays in force"]


def describe_way(hosts: Iterable[str], carried: Collection[Prefix]) -> list[str]:
    """Return what to say of a silent etcd at *hosts* that the overlay's own routes may hide;
    *carried* are its prefixes.
    """
    for host in hosts:
        try:
            address = parse_address(host)
        except ValueError:
            continue  # a name
        for prefix in carried:
            if address in prefix:
                return [
                    (
                        f"etcd at {host} has an address of the network {prefix}, which leads into the tunnel from "
                        "hosts that are not on etcd's own network: give etcd another address, "
                        "or the network another prefix"
                    )
                ]
    return []


def describe_loss(lost: Iterable[Prefix]) -> list[str]:
    """Return what to say of subnets that are another's now."""
    listed = ", ".join(map(str, lost))
    if not listed:
        return []
    return [
        (
            f"{listed} is not this host's any more: what runs here with its addresses is no longer reached from other "
            "hosts; start it again to give it a new address"
        )
    ]


def describe_unsaved(path: Path, error: OSError) -> str:
    """Return what to say where what is known cannot be kept on disk."""
    return (
        f"what is known of the network cannot be kept in {path}: {error.strerror}; a start while etcd is away will "
        "not be possible"
    )


def describe_standing(
    standing: Standing, document: Document | None, network: str, public_key: bytes
) -> str | None:
    """Return what keeps this host from having a subnet; None if nothing does that a person should know."""
    match standing:
        case Standing.FULL:
            pools = ", ".join(map(str, document.leases.pools)) if document is not None else network
            return (
                f"no subnet is free in {pools}: release one with `overlay network release`, or widen prefix in "
                "[leases] with `overlay network edit`"
            )
        case Standing.COPY:
            return (
                "another host takes part with the private key of this one, as a copy of its disk would: make a key for "
                "this host with `overlay keygen --force`, and start the agent again"
            )
        case Standing.UNVOUCHED:
            return (
                f"nobody vouches for this host in {network}: run `overlay network enroll "
                f"{format_public_key(public_key)}` where the administrator's key is, "
                "or `overlay network enroll --token FILE` here"
            )
    return None


def describe_obstacle(network: str, public_key: bytes, assigned: str, obstacle: str) -> str:
    """Return what to do where this host is vouched for with a subnet that is not available because of an *obstacle*."""
    return (
        f"this host is vouched for in {network} with {assigned}, which {obstacle}: see `overlay network show`, and run "
        f"`overlay network enroll {format_public_key(public_key)}` with another --subnet, or release that one with "
        "`overlay network release`"
    )


def describe_objection(network: str, value: NodeValue, objection: str) -> str:
    """Return what to do about an *objection* to this host, of which etcd has *value*, though it is vouched for."""
    return (
        f"the other hosts of {network} leave {value.name} ({value.subnets[0]}), which is this host, out: {objection}; "
        f"run `overlay network enroll {format_public_key(value.public_key)} --node {value.name}` where the "
        "administrator's key is, or `overlay up` with the --node that is vouched for"
    )


def describe_unvouched(problem: str, network: str, following: bytes) -> str:
    """Return what to do about the *following* key of this host, which is not told to others because of a *problem*."""
    return (
        f"the new key of this host is not published, because in {network} {problem}: run `overlay network "
        f"enroll {format_public_key(following)}` where the administrator's key is, or `overlay network enroll --token "
        "FILE --key FILE.new` here; the agent then publishes it without a further command"
    )


def describe_listed(name: str, following: bytes) -> str:
    """Return what to do about the *following* key of a host that the document lists as *name*."""
    return (
        f"the document has the key of this host, so the other hosts learn of the new one by it: write public_key = "
        f'"{format_public_key(following)}" into {format_keys(("peers", name))} with `overlay network edit`'
    )


def is_reachable(text: str, carried: Iterable[Prefix]) -> bool:
    """Return whether others may reach an address: it is not on this host alone, and not on the overlay itself."""
    try:
        address = parse_address(text)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.is_link_local:
        return False
    return not any(address in prefix for prefix in carried)
