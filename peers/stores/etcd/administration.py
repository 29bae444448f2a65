"""What an administrator does to a network in etcd: each change as a whole or not at all, and never over another's.

The document is written by comparing its revision, so that of two who edit it at once the second is told.  Where the
network is signed, each change that agents verify takes the administrator's key.
"""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from peers.errors import StoreError, TableError
from peers.peer import format_public_key
from peers.stores.etcd import signatures
from peers.stores.etcd.commands import Commands
from peers.stores.etcd.connection import open_tcp
from peers.stores.etcd.document import check_document, decode_document, read_document
from peers.stores.etcd.gateway import use_once
from peers.stores.etcd.layout import Keys, MalformedError, Reservation, check_network, parse_key, show
from peers.stores.etcd.leases import number_with
from peers.stores.etcd.members import compose, read_members
from peers.stores.etcd.messages import Delete, Put, is_absent, is_unchanged, prefix_end
from peers.stores.etcd.remarks import describe_missing
from peers.stores.etcd.signatures import JoinToken, Promise, SigningKey, Trust, parse_admin_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from peers.addresses import Prefix
    from peers.stores.etcd.connection import Opener
    from peers.stores.etcd.document import Document
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.location import EtcdLocation
    from peers.stores.etcd.members import Members
    from peers.stores.etcd.messages import Compare, KeyValue, Operation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NetworkContents:
    """A network as it was read: *kvs* by key, and what is in them.

    *admin* is its administrator's public key, None also where *remarks* say that etcd has something else in its place;
    *trust* has what it vouches for, and *promises* what join tokens do that were not used.
    """

    kvs: dict[bytes, KeyValue]
    text: str
    document: Document
    members: Members
    admin: bytes | None
    vouched: tuple[bytes, ...]
    tokens: int
    remarks: tuple[str, ...] = ()
    trust: Trust | None = None
    promises: tuple[Promise, ...] = ()

    def modified(self, key: bytes) -> int:
        """Return when *key* was last changed, 0 if it is not there."""
        kv = self.kvs.get(key)
        return kv.modified if kv is not None else 0

    def value(self, key: bytes) -> bytes | None:
        """Return the value at *key*."""
        kv = self.kvs.get(key)
        return kv.value if kv is not None else None


class Administration:
    """The network that *location* names.  Raises StoreError where it, or etcd, does not let a change happen."""

    def __init__(self, location: EtcdLocation, opener: Opener = open_tcp) -> None:
        check_network(location.path, location)
        self.location, self.keys = location, Keys(location.path)
        self.path = Path(self.keys.config.decode())
        self._opener, self._say = opener, Commands(location)

    def read(self) -> NetworkContents:
        """Return the network as it is.  Raises TableError for a document that is wrong."""
        return self._run(self._read)

    def read_text(self) -> tuple[str, int, bool]:
        """Return the document, which may be wrong, when it was last changed, and whether the network is signed."""

        async def ask(gateway: Gateway) -> tuple[str, int, bool]:
            listing = await gateway.range(self.keys.prefix, prefix_end(self.keys.prefix))
            found = {kv.key: kv for kv in listing.kvs}
            if self.keys.config not in found:
                raise self._missing()
            kv = found[self.keys.config]
            return decode_document(kv.value, self.path), kv.modified, self.keys.admin in found

        return self._run(ask)

    def create(self, text: str, admin: SigningKey | None) -> None:
        """Make the network with the document *text*; signed, if there is an *admin*.
        Raises StoreError if it is there.
        """
        self._check(text)
        operations: list[Operation] = [Put(self.keys.config, text.encode())]
        if admin is not None:
            operations += [
                Put(self.keys.admin, base64.b64encode(admin.public)),
                Put(self.keys.signature, signatures.sign_document(admin, self.keys.name, 1, text)),
            ]
        if not self._transact([is_absent(self.keys.config)], operations):
            raise StoreError(
                f"there is a network {self.keys.name} at {self.location} already; see it with {self._say('show')}, "
                f"change it with {self._say('edit')}"
            )

    def write(self, text: str, modified: int, admin: SigningKey | None) -> None:
        """Write *text* as the document in place of the one that was last changed at *modified*; 0 for none."""
        self._check(text)

        async def put(gateway: Gateway) -> bool:
            listing = await gateway.range(self.keys.prefix, prefix_end(self.keys.prefix))
            found = {kv.key: kv for kv in listing.kvs}
            compares = [is_unchanged(self.keys.config, modified)]
            operations: list[Operation] = [Put(self.keys.config, text.encode())]
            known = found.get(self.keys.admin)
            if known is not None:
                before = found.get(self.keys.signature)
                serial = signatures.serial_of(before.value if before is not None else None) + 1
                signer = self._signer(known.value, admin)
                operations.append(
                    Put(self.keys.signature, signatures.sign_document(signer, self.keys.name, serial, text))
                )
                compares.append(
                    is_unchanged(self.keys.signature, before.modified if before is not None else 0)
                )
            return (await gateway.transact(compares, operations)).succeeded

        if not self._run(put):
            raise StoreError(f"{self.path} was changed by somebody else meanwhile; look at it and try again")

    def reserve(self, reservation: Reservation) -> None:
        """Keep a subnet for a node.  Raises StoreError for one that is not given out, or belongs to another."""
        known, subnet = self.read(), reservation.subnet
        leases = known.document.leases
        number = leases.number_of(subnet)
        if number is None:
            pool, length = leases.pools[0], leases.lengths[0]
            raise StoreError(
                f"{subnet} is not one of the subnets that are given out; reserve a /{length} of {pool}, such as "
                f"{leases.subnets(leases.numbers()[0])[0]}"
            )
        for each in leases.subnets(number):
            holder = next((name for _, name in known.document.taken.covering(each)), None)
            if holder is not None or known.document.taken.has_inside(each):
                raise StoreError(f"{each} overlaps a prefix of {holder or 'the document'}; reserve another")
        for placed in known.members.everybody:
            value = placed.value
            if subnet in value.subnets and not reservation.is_for(value.name, value.public_key):
                raise StoreError(
                    f"{subnet} belongs to the node {value.name}; let it go with {self._say('release', str(subnet))}, "
                    "or reserve another"
                )
        key = self.keys.reserved(subnet)
        if not self._transact([is_unchanged(key, known.modified(key))], [Put(key, reservation.build())]):
            raise StoreError(f"the reservation of {subnet} was changed by somebody else meanwhile; try again")

    def release(self, what: str) -> list[str]:
        """Remove what there is of a subnet, or of the node of a name or public key; return sentences on what
        that was.
        """
        known = self.read()
        found: dict[bytes, str] = {}
        for key, described in self._things_of(known, what):
            found.setdefault(key, described)
        if not found:
            raise StoreError(
                f"{self.keys.name} has no node, reservation, enrolment or join token {what}; see {self._say('show')}"
            )
        compares = [is_unchanged(key, known.modified(key)) for key in found]
        if not self._transact(compares, [Delete(key) for key in found]):
            raise StoreError(f"{what} was changed by somebody else meanwhile; try again")
        return list(found.values())

    def _things_of(self, known: NetworkContents, what: str) -> Iterator[tuple[bytes, str]]:
        """Yield the keys in etcd that there are of a subnet, a name or a public key, each with what it is."""
        for placed in known.members.everybody:
            value = placed.value
            if what in {value.name, format_public_key(value.public_key), *map(str, value.subnets)}:
                yield placed.key, f"the node {value.name} with {', '.join(map(str, value.subnets))}"
                vouching = self.keys.vouched(value.public_key)
                if vouching in known.kvs:
                    yield vouching, f"the enrolment of {value.name}"
        for reservation in known.members.reservations:
            if what in {str(reservation.subnet), reservation.name}:
                yield self.keys.reserved(reservation.subnet), f"the reservation of {reservation.subnet}"
        for public_key in known.vouched:
            name, subnet = (known.trust.vouched(public_key) if known.trust is not None else None) or (
                None,
                None,
            )
            if what == format_public_key(public_key) or _is_of(what, name, subnet):
                yield self.keys.vouched(public_key), f"the enrolment of {_named(name, public_key)}"
        for promise in known.promises:
            if _is_of(what, promise.name, promise.subnet):
                yield self.keys.token(promise.key), f"the join token for {_wanted(promise)}"

    def enroll(
        self, admin: SigningKey | None, public_key: bytes, name: str | None, subnet: Prefix | None
    ) -> None:
        """Vouch for a node.  Raises StoreError for a *subnet* that is not given out, or that another has."""

        async def put(gateway: Gateway) -> None:
            signer = self._signer(await self._admin(gateway), admin)
            if subnet is not None:
                self._refuse_taken(await self._read(gateway), subnet, public_key, name)
            value = signatures.vouch(signer, self.keys.name, public_key, name, subnet)
            await gateway.put(self.keys.vouched(public_key), value)

        self._run(put)

    def make_token(
        self, admin: SigningKey | None, key: SigningKey, seconds: int, name: str | None, subnet: Prefix | None
    ) -> str:
        """Return a join token by *key*, fresh, that is good for *seconds* and serves once.
        Raises StoreError as enroll() does.
        """
        token = JoinToken(key, int(time.time()) + seconds, name, subnet)

        async def put(gateway: Gateway) -> None:
            signer = self._signer(await self._admin(gateway), admin)
            if subnet is not None:
                self._refuse_taken(await self._read(gateway), subnet, None, name)
            await gateway.put(self.keys.token(key.public), token.value(signer, self.keys.name))

        self._run(put)
        return token.format()

    def join(self, key: SigningKey, public_key: bytes, name: str) -> None:
        """Use the join token *key* for this host, which takes it away."""

        async def use(gateway: Gateway) -> None:
            place = self.keys.token(key.public)
            kvs = (await gateway.range(place)).kvs
            if not kvs:
                raise StoreError(
                    f"{self.keys.name} does not have that join token (any more): each serves once; make another with "
                    f"{self._say('join-token')}"
                )
            try:
                expires, wanted = signatures.expiry_of(kvs[0].value)
                value = signatures.vouch_by_token(
                    key, kvs[0].value, self.keys.name, public_key, wanted or name
                )
            except MalformedError:
                raise StoreError(f"{place.decode()} is not a join token; make another") from None
            if expires < time.time():
                raise StoreError(f"that join token has expired; make another with {self._say('join-token')}")
            outcome = await gateway.transact(
                [is_unchanged(place, kvs[0].modified)],
                [Delete(place), Put(self.keys.vouched(public_key), value)],
            )
            if not outcome.succeeded:
                raise StoreError("that join token was used by another host meanwhile; make another")

        self._run(use)

    def compose_all(self, known: NetworkContents) -> str:
        """Return a peers file of everybody, the nodes among them."""
        return compose(known.document, known.members, None)

    # Helpers

    def _run(self, use: Callable[[Gateway], Awaitable[T]]) -> T:
        return trio.run(use_once, self.location, self._opener, use)

    def _transact(self, compares: list[Compare], operations: list[Operation]) -> bool:
        async def put(gateway: Gateway) -> bool:
            return (await gateway.transact(compares, operations)).succeeded

        return self._run(put)

    async def _read(self, gateway: Gateway) -> NetworkContents:
        listing = await gateway.range(self.keys.prefix, prefix_end(self.keys.prefix))
        kvs = {kv.key: kv for kv in listing.kvs}
        if self.keys.config not in kvs:
            raise self._missing()
        text = decode_document(kvs[self.keys.config].value, self.path)
        document = read_document(text, self.path)
        stored = kvs.get(self.keys.admin)
        admin, remarks = None, list[str]()
        if stored is not None:
            try:
                admin = parse_admin_key(stored.value.decode("ascii"))
            except ValueError:
                remarks.append(
                    f"{stored.key.decode()} has no public key any more, so what is signed was not verified here: put "
                    f"the administrator's public key back with `etcdctl put {stored.key.decode()} KEY`"
                )
        trust = Trust(admin, self.keys.name, self._say) if admin is not None else None
        members = read_members(self.keys, listing.kvs, document, trust)
        by_folder: dict[str, dict[bytes, bytes]] = {"vouched": {}, "tokens": {}}
        for kv in listing.kvs:
            folder, name = self.keys.split(kv.key)
            if folder in by_folder:
                with contextlib.suppress(MalformedError):
                    by_folder[folder][parse_key(name)] = kv.value
        vouched, tokens = by_folder.values()
        promises = [trust.promise(*token) for token in tokens.items()] if trust is not None else []
        return NetworkContents(
            *(kvs, text, document, members, admin, tuple(vouched), len(tokens), tuple(remarks), trust),
            tuple(each for each in promises if each is not None),
        )

    async def _admin(self, gateway: Gateway) -> bytes:
        """Return what etcd has as the administrator's public key.  Raises StoreError in a network
        that is not signed.
        """
        kvs = (await gateway.range(self.keys.admin)).kvs
        if not kvs:
            raise StoreError(
                f"{self.keys.name} is not signed, so every host that etcd lets write may join, and nobody is enrolled; "
                "`overlay network create --sign` makes one that is"
            )
        return kvs[0].value

    def _signer(self, stored: bytes, admin: SigningKey | None) -> SigningKey:
        """Return *admin*, if it is the key that etcd has *stored* the public half of."""
        if admin is None:
            raise StoreError(
                f"{self.keys.name} is signed; name the administrator's key with --admin-key FILE"
            )
        if stored != base64.b64encode(admin.public):
            raise StoreError(
                f"that key is not the one that {self.keys.name} is signed with, {show(stored)}; name "
                "the right one with --admin-key FILE"
            )
        return admin

    def _check(self, text: str) -> None:
        """Raise TableError for a document that no agent would take."""
        problems = check_document(text, self.path, 10)
        if problems:
            lines = "\nError: ".join(map(str, problems[1:]))
            first = problems[0]
            raise TableError(first.path, first.line, first.problem + (f"\nError: {lines}" if lines else ""))

    def _refuse_taken(
        self, known: NetworkContents, subnet: Prefix, public_key: bytes | None, name: str | None
    ) -> None:
        """Raise StoreError where the host of *public_key* or *name* could not have *subnet*."""
        number = number_with(subnet, known.document)
        if number is None:
            leases = known.document.leases
            given = " or ".join(map(str, leases.subnets(leases.numbers()[0])))
            raise StoreError(
                f"{subnet} is not one of the subnets that are given out; name one such as {given}"
            )
        for each in known.document.leases.subnets(number):
            holder = _holder(known, each, public_key, name)
            if holder is not None:
                who, released = holder
                remedy = f"let it go with {self._say('release', released)}, or " if released else ""
                raise StoreError(f"{each} {who}; {remedy}name another with --subnet")

    def _missing(self) -> StoreError:
        return StoreError(describe_missing(self._say))


def _holder(
    known: NetworkContents, subnet: Prefix, public_key: bytes | None, name: str | None
) -> tuple[str, str | None] | None:
    """Return what keeps *subnet* from the host of *public_key* or *name*, after the subnet in a sentence, and what to
    release; None for nothing.
    """

    def overlaps(*others: Prefix) -> bool:
        return any(each.version == subnet.version and each.overlaps(subnet) for each in others)

    taken = known.document.taken
    listed = next((each for _, each in taken.covering(subnet)), None)
    if listed is not None or taken.has_inside(subnet):
        return f"overlaps a prefix of {listed or 'the document'}", None
    values = [placed.value for placed in known.members.everybody]
    # Two keys while one replaces the other
    own = {public_key}.union(
        *({each.public_key, each.other_key} for each in values if public_key and each.is_of((public_key,)))
    ) - {None}
    for value in values:
        if value.public_key not in own and value.name != name and overlaps(*value.subnets):
            return f"belongs to the node {value.name}", value.name
    for kept in known.members.reservations:
        is_own = kept.public_key in own if kept.public_key is not None else kept.name == name
        if not is_own and overlaps(kept.subnet):
            return f"is reserved for {_named(kept.name, kept.public_key)}", str(kept.subnet)
    for key in known.vouched:
        found = known.trust.vouched(key) if known.trust is not None else None
        other, kept_for_it = found or (None, None)
        is_own = key in own or (other is not None and other == name)
        if not is_own and kept_for_it is not None and overlaps(kept_for_it):
            return f"is what {_named(other, key)} is enrolled with", str(kept_for_it)
    for promise in known.promises:
        is_own = promise.name is not None and promise.name == name
        if (
            not is_own
            and promise.subnet is not None
            and overlaps(promise.subnet)
            and promise.expires > time.time()
        ):
            return f"is what a join token for {_wanted(promise)} promises", str(promise.subnet)
    return None


def _is_of(what: str, name: str | None, subnet: Prefix | None) -> bool:
    return what == name or (subnet is not None and what == str(subnet))


def _wanted(promise: Promise) -> str:
    """Return whom a join token is for."""
    return "any node" if promise.name is None else f"the node {promise.name}"


def _format_optional(public_key: bytes | None) -> str | None:
    return None if public_key is None else format_public_key(public_key)


def _named(name: str | None, public_key: bytes | None) -> str:
    if name is not None or public_key is None:
        return f"the node {name}"
    return f"the public key {format_public_key(public_key)}"


def describe(known: NetworkContents) -> dict[str, object]:
    """Return a network as values that JSON holds."""
    leases = known.document.leases
    accepted = set(known.members.accepted)
    return {
        "prefixes": [str(prefix) for prefix in known.document.network.prefixes],
        "leases": {
            "prefix": [str(pool) for pool in leases.pools],
            "length": list(leases.lengths),
            "seconds": leases.seconds,
            "subnets": len(leases.numbers()),
        },
        "admin_key": None if known.admin is None else base64.b64encode(known.admin).decode(),
        "peers": list(known.document.peers),
        "nodes": [
            {
                "name": placed.value.name,
                "public_key": format_public_key(placed.value.public_key),
                "other_public_key": _format_optional(placed.value.other_key),
                "subnets": [str(subnet) for subnet in placed.value.subnets],
                "endpoints": list(placed.value.endpoints),
                "takes_part": placed in accepted,
            }
            for placed in known.members.everybody
        ],
        "reserved": [
            {
                "subnet": str(each.subnet),
                "name": each.name,
                "public_key": _format_optional(each.public_key),
            }
            for each in known.members.reservations
        ],
        "vouched": [format_public_key(key) for key in known.vouched],
        "tokens": known.tokens,
        "left_out": list(map(str, known.members.left_out)),
        "remarks": list(known.remarks),
    }
