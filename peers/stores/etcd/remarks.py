"""What an administrator is told of a host's part in a network: how it stands, and what to do about it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from peers.addresses import parse_address
from peers.errors import format_keys
from peers.peer import format_public_key
from peers.stores.etcd import commands
from peers.stores.etcd.tenant import Standing
from peers.stores.remark import StoreRemark

# Of a following key that the others are not told of
UNTOLD_IN_SILENCE = StoreRemark(
    "etcd is silent, so the new key of this host is published only once it answers again"
)
TOLD_SOON = StoreRemark("the new key of this host will be published to the other hosts within seconds")

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.errors import StoreError
    from peers.stores.etcd.commands import Commands
    from peers.stores.etcd.document import Document
    from peers.stores.etcd.layout import NodeValue
    from peers.stores.membership import Member


def describe_silence(
    trouble: StoreError | None, history: str | None, interface: str | None, *, is_first: bool
) -> list[StoreRemark]:
    """Return what to say of an etcd that the agent of *interface* does not follow, by its *history* or because of
    *trouble*; *is_first* if never.
    """
    if history is not None:
        return [
            StoreRemark(
                f"etcd is not followed, because {history}, and the table stays in force",
                f"if this etcd is the right one, run {commands.accept(interface)}",
            )
        ]
    which = "that was in force when this host last ran " if is_first else ""
    return [] if trouble is None else [StoreRemark.of(str(trouble), f", and the table {which}stays in force")]


def describe_missing(run: Commands) -> str:
    """Return what to do about a network that has not been created."""
    create = run("create", "--prefix", "PREFIX")
    return f"there is no network {run.location.path} at {run.location}; create it with {create}, or correct the URL"


def describe_way(hosts: Iterable[str], carried: Collection[Prefix]) -> list[StoreRemark]:
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
                    StoreRemark(
                        f"etcd at {host} has an address of the network {prefix}, which leads into the tunnel from "
                        "hosts that are not on etcd's own network",
                        "give etcd another address, or the network another prefix",
                    )
                ]
    return []


def describe_loss(lost: Iterable[Prefix]) -> list[StoreRemark]:
    """Return what to say of subnets that are another's now."""
    listed = ", ".join(map(str, lost))
    if not listed:
        return []
    return [
        StoreRemark(
            f"{listed} is not this host's any more, and what runs here with its addresses is no longer reached from "
            "other hosts",
            "start it again to give it a new address",
        )
    ]


def describe_unsaved(path: Path, error: OSError) -> StoreRemark:
    """Return what to say where what is known cannot be kept on disk."""
    return StoreRemark(
        f"what is known of the network cannot be kept in {path} ({error.strerror}), so a start while etcd is away will "
        "not be possible",
        f"make room, or have this host's agent write to {path.parent}",
    )


def describe_standing(
    standing: Standing, document: Document | None, member: Member, public_key: bytes, run: Commands
) -> StoreRemark | None:
    """Return what keeps this host, *member* by *public_key*, from having a subnet;
    None if nothing does that a person should know.
    """
    network = run.location.path
    match standing:
        case Standing.FULL:
            pools = ", ".join(map(str, document.leases.pools)) if document is not None else network
            return StoreRemark(
                f"no subnet is free in {pools}",
                f"release one with {run('release', 'SUBNET')}, or widen prefix in [leases] with {run('edit')}",
            )
        case Standing.COPY:
            keygen = shlex.join(["overlay", "keygen", "--force", "--key", str(member.key_file)])
            return StoreRemark(
                "another host takes part with the private key of this one, as a copy of its disk would",
                f"make a key for this host with `{keygen}`, and start the agent again",
            )
        case Standing.UNVOUCHED:
            return StoreRemark(
                f"this host is not enrolled in {network}",
                f"run {run.enroll(public_key)} where the administrator's key is, or "
                f"{run.enroll_here(member.key_file, member.name)} here",
            )
    return None


def describe_obstacle(run: Commands, public_key: bytes, assigned: str, obstacle: str) -> StoreRemark:
    """Return what to do where this host is vouched for with a subnet that is not available because of an *obstacle*."""
    return StoreRemark(
        f"this host is enrolled in {run.location.path} with {assigned}, which {obstacle}",
        f"see {run('show')}, and run {run.enroll(public_key, '--subnet', 'SUBNET')} with another one where the "
        f"administrator's key is, or {run('release', assigned)}",
    )


def describe_objection(run: Commands, value: NodeValue, objection: str) -> StoreRemark:
    """Return what to do about an *objection* to this host, of which etcd has *value*, though it is vouched for."""
    return StoreRemark(
        f"the other hosts of {run.location.path} leave {value.name} ({value.subnets[0]}), which is this host, out, "
        f"because {objection}",
        f"run {run.enroll(value.public_key, '--node', value.name)} where the administrator's key is, or `overlay up` "
        "with the --node that is enrolled",
    )


def describe_left_out(run: Commands, value: NodeValue, objection: str) -> StoreRemark:
    """Return that the node with *value* is left out, why, and what lets it in."""
    return StoreRemark(
        f"the node {value.name} ({value.subnets[0]}) is left out: {objection}",
        f"if it is to take part, run {run.enroll(value.public_key, '--node', value.name)} where the administrator's "
        "key is",
    )


def describe_unvouched(problem: str, member: Member, following: bytes, run: Commands) -> StoreRemark:
    """Return what to do about the *following* key of this host, *member*, which is not told to others because of
    a *problem*.
    """
    return StoreRemark(
        f"the new key of this host is not published, because in {run.location.path} {problem}",
        f"run {run.enroll(following)} where the administrator's key is, or "
        f"{run.enroll_here(member.next_key_file, member.name)} here; the agent then publishes it without a further "
        "command",
    )


def describe_untold(problem: str, run: Commands) -> StoreRemark:
    """Return why the next key of this host is not told to others, where that goes away with the *problem*."""
    return StoreRemark(f"the new key of this host is not published, because in {run.location.path} {problem}")


def describe_listed(name: str, following: bytes, run: Commands) -> StoreRemark:
    """Return what to do about the *following* key of a host that the document lists as *name*."""
    return StoreRemark(
        "the document has the key of this host, so the other hosts learn of the new one by it",
        f'write public_key = "{format_public_key(following)}" into {format_keys(("peers", name))} with {run("edit")}',
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
