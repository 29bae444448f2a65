"""The configuration file of wg-quick(8) and wg(8), as a value.

    [Interface]                                [Peer]
    PrivateKey = KEY                           PublicKey = KEY
    Address = ADDRESS[/LENGTH], ...            PresharedKey = KEY
    ListenPort = PORT                          AllowedIPs = ADDRESS[/LENGTH], ...
    FwMark = NUMBER|off                        Endpoint = HOST:PORT
    MTU = BYTES                                PersistentKeepalive = SECONDS|off
    DNS, Table, SaveConfig, PreUp, PostUp, PreDown, PostDown

Keys and sections are case-insensitive, ``#`` starts a comment, and Address and AllowedIPs may be repeated and add up.
Names are in comments: see overlay.wg_quick.naming.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from overlay.crypto.keys import PresharedKey, PrivateKey, encode_key
from overlay.importing.places import FileLine, UnreadableError
from overlay.text import printable
from overlay.wg_quick.naming import Comments
from peers.addresses import is_host_address
from peers.peer import Endpoint, parse_public_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peers.addresses import Prefix

T = TypeVar("T")

Interface: TypeAlias = IPv4Interface | IPv6Interface

# Specification
UNSUPPORTED = {
    each.lower(): each for each in ("DNS", "Table", "SaveConfig", "PreUp", "PostUp", "PreDown", "PostDown")
}
INTERFACE = {
    each.lower(): each for each in ("PrivateKey", "Address", "ListenPort", "FwMark", "MTU")
} | UNSUPPORTED
PEER = {
    each.lower(): each
    for each in ("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive")
}
SECTIONS = {"[interface]": INTERFACE, "[peer]": PEER}
REPEATED = {"Address", "AllowedIPs", *UNSUPPORTED.values()}
LARGEST_MARK = 2**32 - 1
NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}")

# Ours
LONGEST = 1024 * 1024  # characters of a line; 20,000 prefixes of IPv6


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting without a counterpart in this project.  Its *value* may contain anything, including secrets."""

    place: FileLine
    key: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Host:
    """An [Interface]: the host that the file is for.

    *private_key* is None if the file leaves it out.  *mtu* is in bytes; *fwmark* is None for none.
    """

    place: FileLine = field(compare=False)
    name: str | None = None
    private_key: PrivateKey | None = None
    addresses: tuple[Interface, ...] = ()
    listen_port: int | None = None
    fwmark: int | None = None
    mtu: int | None = None
    unsupported: tuple[Setting, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Other:
    """A [Peer].  *keepalive* is in seconds, 0 for none; *preshared_key* hides itself."""

    place: FileLine = field(compare=False)
    public_key: bytes
    name: str | None = None
    preshared_key: PresharedKey | None = None
    allowed: tuple[Prefix, ...] = ()
    endpoint: Endpoint | None = None
    keepalive: int = 0


@dataclass(frozen=True, slots=True)
class Conf:
    """One file: the host that it is for, and its peers in the order of the file."""

    host: Host
    others: tuple[Other, ...] = ()

    @classmethod
    def parse(cls, text: str, path: str) -> Conf:
        """Read *text*, the file *path*.  Raises UnreadableError, and nothing else, for any text."""
        sections = list(_sections(text, path))
        hosts = [each for each in sections if each.keys is INTERFACE]
        if not hosts:
            raise UnreadableError(
                FileLine(path, 1), "has no [Interface], so it is not a wg-quick file; name one that has it"
            )
        if len(hosts) > 1:
            raise UnreadableError(
                hosts[1].place, f"[Interface] is here twice, first in line {hosts[0].place.line}; keep one"
            )
        others: dict[bytes, Other] = {}
        for section in sections:
            if section.keys is PEER:
                other = _read_other(section)
                earlier = others.setdefault(other.public_key, other)
                if earlier is not other:
                    raise UnreadableError(
                        section.place,
                        f"this peer is here twice, first in line {earlier.place.line}; make one section of both",
                    )
        return cls(_read_host(hosts[0]), tuple(others.values()))

    def build(self) -> str:
        """Return the text that parse() reads back into an equal value.  It may contain secrets."""
        return "\n".join(
            ["\n".join(lines) + "\n" for lines in (_host_lines(self.host), *map(_other_lines, self.others))]
        )


@dataclass(slots=True)
class _Section:
    place: FileLine
    keys: dict[str, str]
    comments: Comments
    settings: list[tuple[FileLine, str, str]] = field(default_factory=list)

    def one(self, key: str) -> tuple[FileLine, str] | None:
        found = [(place, value) for place, name, value in self.settings if name == key]
        return found[0] if found else None

    def items(self, key: str) -> Iterator[tuple[FileLine, str]]:
        """Yield the items of the lists of *key*."""
        for place, name, value in self.settings:
            if name == key:
                for item in value.replace(",", " ").split():
                    yield place, item


def _sections(text: str, path: str) -> Iterator[_Section]:
    """Yield the sections with their settings.  Raises UnreadableError for lines that wg-quick would not accept."""
    section: _Section | None = None
    pending: list[str | None] = []  # comments since the last setting; None for a blank line
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        place = FileLine(path, number)
        if "\0" in line or len(line) > LONGEST:
            raise UnreadableError(place, "is not a line of text; name a wg-quick file")
        stripped, mark, comment = line.partition("#")
        stripped = stripped.strip()
        if not stripped:
            pending.append(comment if mark else None)
        elif stripped.startswith("["):
            if section is not None:
                yield section
            keys = SECTIONS.get(stripped.lower())
            if keys is None:
                raise UnreadableError(place, "is neither [Interface] nor [Peer]; name a wg-quick file")
            section, pending = _Section(place, keys, Comments(pending, comment)), []
        else:
            if section is None:
                raise UnreadableError(
                    place, "is before the first [Interface] or [Peer]; name a wg-quick file"
                )
            _add_setting(section, place, stripped)
            section.comments.inside += pending
            pending = []
    if section is not None:
        yield section


def _add_setting(section: _Section, place: FileLine, line: str) -> None:
    key, equals, value = line.partition("=")
    if not equals:
        raise UnreadableError(place, "is not KEY = VALUE; correct the line")
    name = section.keys.get(key.strip().lower())
    if name is None:
        kind = "[Interface]" if section.keys is INTERFACE else "[Peer]"
        raise UnreadableError(
            place, f"wg-quick has no such key in {kind}; remove the line, or correct the key"
        )
    if name not in REPEATED and (earlier := section.one(name)) is not None:
        raise UnreadableError(place, f"{name} is here twice, first in line {earlier[0].line}; keep one")
    section.settings.append((place, name, value.strip()))


def _read_host(section: _Section) -> Host:
    return Host(
        section.place,
        section.comments.name(is_plain=False),  # comments above it are about the file
        _read_one(section, "PrivateKey", PrivateKey.from_base64),
        tuple(_read_address(place, item) for place, item in section.items("Address")),
        _read_number(section, "ListenPort", 65535) or None,  # 0 is any port
        _read_number(section, "FwMark", LARGEST_MARK) or None,
        _read_number(section, "MTU", 65535) or None,
        tuple(Setting(*each) for each in section.settings if each[1] in UNSUPPORTED.values()),
    )


def _read_other(section: _Section) -> Other:
    public_key = _read_one(section, "PublicKey", parse_public_key)
    if public_key is None:
        raise UnreadableError(section.place, "this peer has no PublicKey; write it, or remove the section")
    preshared = _read_one(section, "PresharedKey", PresharedKey.from_base64)
    if preshared is not None and not any(preshared.secret):
        preshared = None  # as in wg(8)
    allowed = dict.fromkeys(_read_prefix(place, item) for place, item in section.items("AllowedIPs"))
    return Other(
        section.place,
        public_key,
        section.comments.name(is_plain=True),
        preshared,
        tuple(allowed),
        _read_one(section, "Endpoint", _endpoint),
        _read_number(section, "PersistentKeepalive", 65535) or 0,
    )


def _read_one(section: _Section, key: str, parse: Callable[[str], T]) -> T | None:
    found = section.one(key)
    if found is None:
        return None
    try:
        return parse(found[1])
    except ValueError as error:
        raise UnreadableError(found[0], f"{key}: {error}") from None


def _read_number(section: _Section, key: str, largest: int) -> int | None:
    found = section.one(key)
    if found is None:
        return None
    place, text = found
    number = 0 if text.lower() == "off" else _number(text)
    if number is None or number > largest:
        raise UnreadableError(place, f"{key} is not a number from 0 to {largest}; correct it")
    return number


def _number(text: str) -> int | None:
    if NUMBER.fullmatch(text) is None:
        return None
    return int(text, 16) if text[:2].lower() == "0x" else int(text)


def _endpoint(text: str) -> Endpoint:
    endpoint = Endpoint.parse(text, 0)
    if not endpoint.port:
        raise ValueError("has no port; write HOST:PORT")
    return endpoint


def _read_address(place: FileLine, text: str) -> Interface:
    try:
        address = _interface(text)
    except ValueError:
        raise UnreadableError(
            place, f"Address {printable(text)} is not an address such as 10.244.0.1/24"
        ) from None
    if not is_host_address(address.ip):
        raise UnreadableError(place, f"Address {address} is not an address that a host can have")
    return address


def _read_prefix(place: FileLine, text: str) -> Prefix:
    try:
        return _interface(text).network
    except ValueError:
        raise UnreadableError(
            place, f"AllowedIPs {printable(text)} is not a prefix such as 10.244.0.0/24"
        ) from None


def _interface(text: str) -> Interface:
    if "%" in text or ("/" in text and not text.rpartition("/")[2].isdigit()):
        raise ValueError
    return ip_interface(text)


def _host_lines(host: Host) -> Iterator[str]:
    yield "[Interface]"
    if host.name is not None:
        yield f"# Name = {host.name}"
    if host.private_key is not None:
        yield f"PrivateKey = {host.private_key.to_base64()}"
    if host.addresses:
        yield f"Address = {', '.join(map(str, host.addresses))}"
    if host.listen_port is not None:
        yield f"ListenPort = {host.listen_port}"
    if host.fwmark is not None:
        yield f"FwMark = 0x{host.fwmark:x}"
    if host.mtu is not None:
        yield f"MTU = {host.mtu}"
    for setting in host.unsupported:
        yield f"{setting.key} = {setting.value}"


def _other_lines(other: Other) -> Iterator[str]:
    yield "[Peer]"
    if other.name is not None:
        yield f"# Name = {other.name}"
    yield f"PublicKey = {encode_key(other.public_key)}"
    if other.preshared_key is not None:
        yield f"PresharedKey = {other.preshared_key.to_base64()}"
    if other.allowed:
        yield f"AllowedIPs = {', '.join(map(str, other.allowed))}"
    if other.endpoint is not None:
        yield f"Endpoint = {other.endpoint}"
    if other.keepalive:
        yield f"PersistentKeepalive = {other.keepalive}"
