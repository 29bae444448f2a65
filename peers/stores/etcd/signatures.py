"""Who may take part, where etcd alone is not trusted: the administrator signs, and each agent verifies by itself.

The administrator's key (Ed25519, RFC 8032) vouches for the public key and the name of each node, and for the document.
A join token is a key of its own, which the administrator vouches for until a moment: anyone who has it may vouch for
one node.  Who can write in etcd can still say where a node is and which subnet it has, and so cut nodes off from each
other; it can neither read nor forge what they send.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from peers.peer import format_public_key
from peers.stores.etcd.layout import MalformedError, format_key, parse_json, parse_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers.addresses import Prefix
    from peers.stores.etcd.commands import Commands
    from peers.stores.etcd.layout import NodeValue
    from peers.stores.etcd.messages import KeyValue

# Specification: RFC 8032 section 5.1
KEY_SIZE, SIGNATURE_SIZE = 32, 64

# Ours
NODE, DOCUMENT, TOKEN = "node", "document", "token"  # what is signed begins with one of these
MARK = "overlay-join-1."  # a join token begins with it


class SigningKey:
    """A private key that signs; its repr hides it."""

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == KEY_SIZE
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what format() wrote.  Raises ValueError, whose message does not repeat it."""
        return cls(_decode(text.strip(), KEY_SIZE))

    def format(self) -> str:
        """Return the key as text, a secret."""
        return base64.b64encode(self._seed).decode("ascii")

    def sign(self, kind: str, *fields: object) -> bytes:
        """Return the signature of a statement."""
        return self._key.sign(_statement(kind, *fields))

    def __repr__(self) -> str:
        return f"SigningKey(public={format_public_key(self.public)})"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What one node may join with until *expires*, in seconds since 1970; *name* and *subnet*, if given,
    are its own.
    """

    key: SigningKey
    expires: int
    name: str | None = None
    subnet: Prefix | None = None

    def format(self) -> str:
        """Return the token as text, a secret."""
        return MARK + format_key(base64.b64decode(self.key.format()))

    @staticmethod
    def read_key(text: str) -> SigningKey:
        """Return the key in a token's text.  Raises ValueError, whose message does not repeat it."""
        rest = text.strip().removeprefix(MARK)
        try:
            return SigningKey(parse_key(rest))
        except MalformedError:
            raise ValueError(
                "is not a join token; copy all of what `overlay network join-token` printed"
            ) from None

    def value(self, admin: SigningKey, network: str) -> bytes:
        """Return what stands at the token's key in etcd, signed by *admin*."""
        signature = admin.sign(
            TOKEN, network, *_token_fields(self.key.public, self.expires, self.name, self.subnet)
        )
        return _build(
            expires=self.expires,
            name=self.name,
            subnet=None if self.subnet is None else str(self.subnet),
            signature=_encode(signature),
        )


@dataclass(frozen=True, slots=True)
class Promise:
    """What the join token with the public *key* lets one node have, as the administrator signed it: see JoinToken."""

    key: bytes
    expires: int
    name: str | None
    subnet: Prefix | None


def vouch(
    admin: SigningKey, network: str, public_key: bytes, name: str | None = None, subnet: Prefix | None = None
) -> bytes:
    """Return the value that vouches for a node; without a *name*, under any, without a *subnet*, with any."""
    fields = _node_fields(public_key, name, subnet)
    return _build(name=name, subnet=fields[2] or None, signature=_encode(admin.sign(NODE, network, *fields)))


def vouch_by_token(key: SigningKey, kept: bytes, network: str, public_key: bytes, name: str) -> bytes:
    """Return the value that vouches for a node by a token, of which etcd had *kept*.  Raises MalformedError."""
    token = parse_json(kept)
    fields = _node_fields(public_key, name, _optional_subnet(token))
    return _build(
        name=name,
        subnet=fields[2] or None,
        signature=_encode(key.sign(NODE, network, *fields)),
        token={"key": format_key(key.public)} | token,
    )


def expiry_of(kept: bytes) -> tuple[int, str | None]:
    """Return until when the token that etcd *kept* is good, and the name that it is for.  Raises MalformedError."""
    token = parse_json(kept)
    expires, name = token.get("expires"), token.get("name")
    if not isinstance(expires, int) or not (name is None or isinstance(name, str)):
        raise MalformedError("it is not a token")
    return expires, name


def sign_document(admin: SigningKey, network: str, serial: int, text: str) -> bytes:
    """Return the value that vouches for the document *text*, the *serial*-th."""
    signature = admin.sign(DOCUMENT, network, serial, _digest(text))
    return _build(serial=serial, signature=_encode(signature))


def serial_of(signature: bytes | None) -> int:
    """Return the number of the document that a signature is for; 0 for none."""
    try:
        serial = parse_json(signature or b"").get("serial")
    except MalformedError:
        return 0
    return serial if isinstance(serial, int) and 0 <= serial < 2**53 else 0


def parse_admin_key(text: str) -> bytes:
    """Return the administrator's public key that *text* writes.  Raises ValueError."""
    return _decode(text.strip(), KEY_SIZE)


class Trust:
    """What the administrator with the public key *admin* vouches for in a network.

    *serial* is that of the newest document known: one that was in force before is not taken again.  *run* has the
    commands of the network, for sentences on it.
    """

    def __init__(self, admin: bytes, network: str, run: Commands, serial: int = 0) -> None:
        self.admin, self.network, self.run, self.serial = admin, network, run, serial
        self._public = Ed25519PublicKey.from_public_bytes(admin)
        self._vouched: Mapping[str, KeyValue] = {}
        self._claims: dict[
            str, list[str]
        ] = {}  # by the key of a token, the nodes that name it, the first one first
        self._served: dict[str, str | None] = {}  # and that one of them that it served
        self._known: dict[tuple[bytes, str], tuple[str | None, str | None, str | None]] = {}

    def learn(self, vouched: Mapping[str, KeyValue]) -> None:
        """Take note of what stands under vouched/; of two nodes by one token the first counts that it vouches for."""
        self._vouched, self._claims, self._served = vouched, {}, {}
        self._known = {
            (value, name): found
            for (value, name), found in self._known.items()
            if name in vouched and vouched[name].value == value
        }
        for name, kv in sorted(vouched.items(), key=lambda item: item[1].created):
            token = _token_key(kv.value)
            if token is not None:
                self._claims.setdefault(token, []).append(name)

    def objection(self, value: NodeValue) -> str | None:
        """Return why the node is not to be trusted; None if it is."""
        name = format_key(value.public_key)
        kv = self._vouched.get(name)
        if kv is None:
            return "its public key is not enrolled"
        problem, own_name, subnet = self._verified(name, kv.value, value.public_key)
        if problem is None and own_name is not None and own_name != value.name:
            problem = f"its public key is enrolled as {own_name}"
        if problem is None and subnet is not None and subnet not in map(str, value.subnets):
            problem = f"its public key is enrolled with {subnet}"
        token = _token_key(kv.value)
        if problem is None and token is not None and self._served_by(token) != name:
            problem = "its join token has served another node"
        return problem

    def vouched(self, public_key: bytes) -> tuple[str | None, Prefix | None] | None:
        """Return the name and the subnet that the node is vouched for with, each None if it may be any; None if the
        node is not vouched for.
        """
        name = format_key(public_key)
        kv = self._vouched.get(name)
        if kv is None:
            return None
        problem, own_name, subnet = self._verified(name, kv.value, public_key)
        token = _token_key(kv.value)
        if problem is not None or (token is not None and self._served_by(token) != name):
            return None
        return own_name, None if subnet is None else ip_network(subnet)

    def assigned(self, public_key: bytes) -> Prefix | None:
        """Return the subnet that the node is vouched for with; None if that is any subnet, or it is not vouched for."""
        vouched = self.vouched(public_key)
        return vouched[1] if vouched is not None else None

    def promise(self, key: bytes, kept: bytes) -> Promise | None:
        """Return what the token with the public *key*, of which etcd has *kept*, is good for; None if the administrator
        has not signed it.
        """
        try:
            expires, name = expiry_of(kept)
            token = parse_json(kept)
            subnet = _optional_subnet(token)
            signature = _decode(str(token.get("signature")), SIGNATURE_SIZE)
        except (MalformedError, ValueError):
            return None
        fields = _token_fields(key, expires, name, subnet)
        if not _holds(self._public, signature, TOKEN, self.network, *fields):
            return None
        return Promise(key, expires, name, subnet)

    def document_objection(self, text: str, signature: bytes | None) -> str | None:
        """Return why the document is not to be trusted; None if it is, and its serial is then known."""
        if signature is None:
            return f"it is not signed; sign it with {self.run('edit', '--admin-key', 'FILE')}"
        try:
            found = parse_json(signature)
            serial = serial_of(signature)
            signed = _decode(str(found.get("signature")), SIGNATURE_SIZE)
        except (MalformedError, ValueError):
            return "its signature is none"
        if not _holds(self._public, signed, DOCUMENT, self.network, serial, _digest(text)):
            return "its signature is not that of the administrator for this text"
        if serial < self.serial:
            return f"it is an earlier one (number {serial}, after number {self.serial})"
        self.serial = serial
        return None

    def _served_by(self, token: str) -> str | None:
        """Return the node that a token served.  Who only names the token, and does not have it, has not used it up."""
        if token not in self._served:
            self._served[token] = next(filter(self._is_vouched_for, self._claims.get(token, ())), None)
        return self._served[token]

    def _is_vouched_for(self, name: str) -> bool:
        try:
            public_key = parse_key(name)
        except MalformedError:
            return False
        return self._verified(name, self._vouched[name].value, public_key)[0] is None

    def _verified(
        self, name: str, kept: bytes, public_key: bytes
    ) -> tuple[str | None, str | None, str | None]:
        """Return what _verify() does, which takes a while, and is done once."""
        held = kept, name
        if held not in self._known:
            self._known[held] = self._verify(kept, public_key)
        return self._known[held]

    def _verify(self, kept: bytes, public_key: bytes) -> tuple[str | None, str | None, str | None]:
        """Return what is wrong with a vouching, the name and the subnet that it is for."""
        wrong = "the enrolment of its public key has a wrong signature"
        try:
            found = parse_json(kept)
            subnet = _optional_subnet(found)
            name = found.get("name")
            if not (name is None or isinstance(name, str)):
                raise MalformedError("its name is none")
            signature = _decode(str(found.get("signature")), SIGNATURE_SIZE)
            signer = self._public
            token = found.get("token")
            if token is not None:
                signer = self._verify_token(token, name, subnet)
        except (MalformedError, ValueError):
            return wrong, None, None
        fields = _node_fields(public_key, name, subnet)
        if not _holds(signer, signature, NODE, self.network, *fields):
            return wrong, None, None
        return None, name, fields[2] or None

    def _verify_token(self, token: object, name: str | None, subnet: Prefix | None) -> Ed25519PublicKey:
        """Return the key of a token.  Raises ValueError where the administrator does not vouch for it."""
        if not isinstance(token, dict):
            raise ValueError("no token")  # noqa: TRY004  one kind of error for whatever stands there
        key, expires = parse_key(str(token.get("key"))), token.get("expires")
        wanted, limited = token.get("name"), _optional_subnet(token)
        signature = _decode(str(token.get("signature")), SIGNATURE_SIZE)
        # Compared, not looked up in a set: what stands there may be a list, which has no hash.
        if not isinstance(expires, int) or wanted not in (None, name) or limited not in (None, subnet):
            raise ValueError("another node")
        fields = _token_fields(key, expires, wanted, limited)
        if not _holds(self._public, signature, TOKEN, self.network, *fields):
            raise ValueError("not the administrator's")
        return Ed25519PublicKey.from_public_bytes(key)


def _statement(kind: str, *fields: object) -> bytes:
    return b"overlay 1\0" + json.dumps([kind, *fields], separators=(",", ":"), ensure_ascii=True).encode()


def _holds(public: Ed25519PublicKey, signature: bytes, kind: str, *fields: object) -> bool:
    try:
        public.verify(signature, _statement(kind, *fields))
    except InvalidSignature:
        return False
    return True


def _node_fields(public_key: bytes, name: str | None, subnet: Prefix | None) -> tuple[str, str, str]:
    return format_public_key(public_key), name or "", "" if subnet is None else str(subnet)


def _token_fields(
    key: bytes, expires: int, name: str | None, subnet: Prefix | None
) -> tuple[str, int, str, str]:
    return format_public_key(key), expires, name or "", "" if subnet is None else str(subnet)


def _token_key(kept: bytes) -> str | None:
    try:
        token = parse_json(kept).get("token")
    except MalformedError:
        return None
    key = token.get("key") if isinstance(token, dict) else None
    return key if isinstance(key, str) else None


def _optional_subnet(found: Mapping[str, object]) -> Prefix | None:
    text = found.get("subnet")
    if text is None:
        return None
    try:
        return ip_network(str(text))
    except ValueError:
        raise MalformedError("its subnet is none") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str, size: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise ValueError(f"is not the base64 of {size} bytes")
    return data


def _build(**values: object) -> bytes:
    return json.dumps(values).encode()
