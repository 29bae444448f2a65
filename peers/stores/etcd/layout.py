"""The keys of a network in etcd and their values: codecs with bounds,
because anyone who may write there may write anything.

/overlay/NAME/config                 a peers file, in which [leases] may say how subnets are given out
/overlay/NAME/config.signature       who vouches for it, where the network is signed
/overlay/NAME/nodes/10.244.7.0-24    a node and its subnets, as long as its lease lives
/overlay/NAME/reserved/10.244.7.0-24 whom a subnet is kept for
/overlay/NAME/vouched/KEY            that the node with this public key may take part
/overlay/NAME/tokens/KEY             a join token that has not been used
/overlay/NAME/admin                  the administrator's public key, for people to read: no agent trusts it
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peers.addresses import parse_prefix
from peers.encapsulation import ENCAPSULATIONS
from peers.errors import StoreError
from peers.peer import KEY_SIZE, PEER_NAME, Endpoint, format_public_key, parse_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peers.addresses import Prefix

# Ours
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # of a network: it is a part of keys and file names
VALUE_SIZE = 4096  # bytes of any value but the config
CONFIG_SIZE = 1024 * 1024  # bytes; etcd takes 1.5 MiB
MOST_SUBNETS, MOST_ENDPOINTS = 8, 8
SHOWN = 120  # characters; a key of etcd's may have a million, of any kind
INSTANCE = re.compile(r"[0-9a-f]{32}")
PORT = 51820  # any: it is parsed to be checked, and the text is kept


class MalformedError(Exception):
    """A value that is not valid for its key.  The text says why."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the network *name*."""

    name: str

    @property
    def prefix(self) -> bytes:
        """What all of them begin with."""
        return f"/overlay/{self.name}/".encode()

    def __truediv__(self, rest: str) -> bytes:
        return self.prefix + rest.encode()

    @property
    def config(self) -> bytes:
        """The key of the document."""
        return self / "config"

    @property
    def signature(self) -> bytes:
        """The key of the document's signature."""
        return self / "config.signature"

    @property
    def admin(self) -> bytes:
        """The key of the administrator's public key."""
        return self / "admin"

    def node(self, subnet: Prefix) -> bytes:
        """Return the key of the node whose first subnet is *subnet*."""
        return self / f"nodes/{format_subnet(subnet)}"

    def reserved(self, subnet: Prefix) -> bytes:
        """Return the key of the reservation of *subnet*."""
        return self / f"reserved/{format_subnet(subnet)}"

    def vouched(self, public_key: bytes) -> bytes:
        """Return the key of what vouches for a node."""
        return self / f"vouched/{format_key(public_key)}"

    def token(self, public_key: bytes) -> bytes:
        """Return the key of the token whose own key is *public_key*."""
        return self / f"tokens/{format_key(public_key)}"

    def split(self, key: bytes) -> tuple[str, str]:
        """Return the folder of *key*, empty if it is in none, and its name there."""
        try:
            rest = key.removeprefix(self.prefix).decode("ascii")
        except UnicodeDecodeError:
            return "", ""
        folder, _, name = rest.rpartition("/")
        return folder, name


@dataclass(frozen=True, slots=True)
class NodeValue:
    """What a node says of itself.

    *endpoints* are as in a peers file, the best first.  *instance* is another at each start of an agent, and tells a
    restart from a copy of the whole host.  While its key is being replaced, *other_key* is the public key that the node
    also answers to: by it the node finds its own value again, whichever of the two keys it is left with.
    """

    name: str
    public_key: bytes
    subnets: tuple[Prefix, ...]
    instance: str
    endpoints: tuple[str, ...] = ()
    encapsulation: str | None = None
    other_key: bytes | None = None

    @classmethod
    def parse(cls, name: str, value: bytes) -> NodeValue:
        """Read the *value* of the key *name* among nodes.  Raises MalformedError, and nothing else, for any bytes."""
        found = _parse_object(value)
        subnets = tuple(map(_subnet, _texts(found, "subnets", MOST_SUBNETS)))
        if not subnets or format_subnet(subnets[0]) != name:
            raise MalformedError("its first subnet is not that of its key")
        if len(set(subnets)) < len(subnets):
            raise MalformedError("a subnet is in it twice")
        encapsulation = found.get("encapsulation")
        if encapsulation is not None and encapsulation not in ENCAPSULATIONS:
            raise MalformedError("its encapsulation is not known")
        instance = _text(found, "instance")
        if not INSTANCE.fullmatch(instance):
            raise MalformedError("its instance is not 32 hexadecimal digits")
        endpoints = _texts(found, "endpoints", MOST_ENDPOINTS)
        for endpoint in endpoints:
            try:
                Endpoint.parse(endpoint, PORT)
            except ValueError:
                raise MalformedError("an endpoint of it is none") from None
        other = _public_key(found, "other_key") if found.get("other_key") is not None else None
        return cls(_name(found), _public_key(found), subnets, instance, endpoints, encapsulation, other)

    def build(self) -> bytes:
        """Return the bytes that parse() reads back into an equal value."""
        value: dict[str, object] = {
            "name": self.name,
            "public_key": format_public_key(self.public_key),
            "endpoints": list(self.endpoints),
            "subnets": [str(subnet) for subnet in self.subnets],
            "encapsulation": self.encapsulation,
            "instance": self.instance,
        }
        if self.other_key is not None:
            value["other_key"] = format_public_key(self.other_key)
        return _build(value)

    def is_of(self, keys: Iterable[bytes]) -> bool:
        """Return whether this is what the node says that answers to *keys*."""
        return any(key in {self.public_key, self.other_key} for key in keys)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A subnet that is kept for the node of a *name* or of a *public_key*."""

    subnet: Prefix
    name: str | None = None
    public_key: bytes | None = None

    @classmethod
    def parse(cls, name: str, value: bytes) -> Reservation:
        """Read the *value* of the key *name* among those reserved.  Raises MalformedError."""
        found = _parse_object(value)
        subnet = parse_subnet(name)
        if "public_key" in found:
            return cls(subnet, None, _public_key(found))
        return cls(subnet, _name(found), None)

    def build(self) -> bytes:
        """Return the bytes that parse() reads back."""
        if self.public_key is not None:
            return _build({"public_key": format_public_key(self.public_key)})
        return _build({"name": self.name})

    def is_for(self, name: str, public_key: bytes) -> bool:
        """Return whether it is kept for the node of that name and key."""
        return public_key == self.public_key if self.public_key is not None else name == self.name


def format_subnet(subnet: Prefix) -> str:
    """Return *subnet* as a key has it, as flannel does: ``10.244.7.0-24``, ``fd00-244-7---64``."""
    return f"{subnet.network_address}-{subnet.prefixlen}".replace(":", "-")


def parse_subnet(text: str) -> Prefix:
    """Return the subnet that *text* writes as a key has it.  Raises MalformedError."""
    address, dash, length = text.rpartition("-")
    try:
        return parse_prefix(
            f"{address if '.' in address else address.replace('-', ':')}{dash and '/'}{length}"
        )
    except ValueError:
        raise MalformedError("its key is not a subnet") from None


def format_key(public_key: bytes) -> str:
    """Return a public key as a part of a key: base64 without slashes (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(public_key).decode("ascii").rstrip("=")


def parse_key(text: str) -> bytes:
    """Return the public key that is a part of a key.  Raises MalformedError."""
    try:
        key = base64.urlsafe_b64decode(text + "=")
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE or format_key(key) != text:
        raise MalformedError("its key is not a public key")
    return key


def show(what: str | bytes) -> str:
    """Return *what*, which anyone may have written, for a sentence: a part of it, in printable characters."""
    text = what.decode("utf-8", "backslashreplace") if isinstance(what, bytes) else what
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:SHOWN])
    return shown if len(text) <= SHOWN else f"{shown}..."


def check_network(name: str, url: object) -> None:
    """Raise StoreError where *name* cannot be that of a network."""
    if not NAME.fullmatch(name):
        named = f"names the network {name!r}" if name else "names no network"
        raise StoreError(
            f"{url} {named}; write 1 to 63 letters, digits, dots, hyphens or underscores after the host, "
            "such as etcd://10.0.0.5:2379/office"
        )


def parse_json(value: bytes) -> dict[str, Any]:
    """Return the object in a *value*.  Raises MalformedError."""
    return _parse_object(value)


def _parse_object(value: bytes) -> dict[str, Any]:
    if len(value) > VALUE_SIZE:
        raise MalformedError(f"it has more than {VALUE_SIZE} bytes")
    try:
        found = json.loads(value.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedError("it is not JSON") from None
    if not isinstance(found, dict):
        raise MalformedError("it is not a JSON object")
    return found


def _build(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode()


def _text(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        raise MalformedError(f"its {key} is missing, or not a text")
    return value


def _texts(found: dict[str, Any], key: str, most: int) -> tuple[str, ...]:
    value = found.get(key)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(each, str) for each in value):
        raise MalformedError(f"its {key} are not at most {most} texts")
    return tuple(value)


def _name(found: dict[str, Any]) -> str:
    name = _text(found, "name")
    if not PEER_NAME.fullmatch(name):
        raise MalformedError("its name is not that of a peer")
    return name


def _public_key(found: dict[str, Any], key: str = "public_key") -> bytes:
    try:
        return parse_public_key(_text(found, key))
    except ValueError:
        raise MalformedError(f"its {key} is none") from None


def _subnet(text: str) -> Prefix:
    try:
        return parse_prefix(text)
    except ValueError:
        raise MalformedError("a subnet of it is none") from None
