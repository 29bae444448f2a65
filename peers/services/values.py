"""How the values of keys of services, checks and VRRP are read, each bounded and refused in one sentence."""

from __future__ import annotations

import re
import shlex
from ipaddress import IPv6Address
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from peers.addresses import parse_address, parse_host_address
from peers.errors import KeyProblem
from peers.peer import PEER_NAME
from peers.service import EVERY_PORT
from peers.toml_section import describe, refuse_repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers.addresses import Address
    from peers.errors import Keys
    from peers.key import Read
    from peers.service import Ports
    from peers.toml_section import Section

T = TypeVar("T")

# Specification
STATUS = (100, 599)  # RFC 9110 section 15
DIGESTS = {32: "MD5", 64: "SHA-256"}  # by the number of their hexadecimal digits

# Ours
MOST_ITEMS = 256  # addresses, ranges of ports and other lists at one service
MOST_WORDS = 64  # of a command
LONGEST = 1024  # characters of a path, a regular expression or a word
INTERFACE = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}")  # as Linux names them


def seconds(least: float, most: float) -> Read:
    return lambda section, key: section.number(key, least, most, "seconds")


def scheduler(accepted: tuple[str, ...], aliases: Mapping[str, str]) -> Read:
    """Return what reads one of *accepted*, or another name of it."""

    def read(section: Section, key: str) -> str | None:
        if section.values.get(key) in (*aliases, None):
            return aliases.get(str(section.values.get(key)))
        return section.choice(key, accepted)

    return read


def text(what: str, most: int, *, encoding: str | None = None, least: int = 1) -> Read:
    """Return what reads a string of *least* to *most* characters; as bytes, and printable or not,
    with an *encoding*.
    """

    def read(section: Section, key: str) -> str | bytes | None:
        found = section.string(key, what)
        if found is None:
            return None
        data = found if encoding is None else found.encode(encoding)
        is_plain = encoding is not None or (found.isprintable() and found.isascii() and " " not in found)
        if not least <= len(data) <= most or not is_plain:
            raise KeyProblem(
                (*section.keys, key), f"is {describe(found)}; write {what}, {least} to {most} characters"
            )
        return data

    return read


def names(what: str, parse: Callable[[str], str]) -> Read:
    """Return what reads a list of distinct names, or a single one; *parse* raises ValueError for an invalid name."""

    def read(section: Section, key: str) -> tuple[str, ...] | None:
        return _items(section, key, parse, what)

    return read


def addresses(section: Section, key: str) -> tuple[Address, ...] | None:
    """Read virtual addresses."""
    return _items(section, key, _virtual_address, "an address such as 192.0.2.100")


def _virtual_address(text: str) -> Address:
    address = parse_host_address(text)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise ValueError(f"is an IPv4 address in IPv6 form; write {address.ipv4_mapped}")
        if address.is_link_local:
            raise ValueError("is link-local, which no router forwards; write one such as 2001:db8::100")
    return address


def server_address(section: Section, key: str) -> Address | None:
    """Read the address of a server behind its peer."""
    found = section.string(key, "the address of a container behind the peer")
    if found is None:
        return None
    try:
        return _virtual_address(found)
    except ValueError as error:
        raise KeyProblem((*section.keys, key), f"{describe(found)} {error}") from None


def unicast(section: Section, key: str) -> tuple[Address, ...] | None:
    """Read the addresses of routers on a LAN, link-local ones among them."""
    return _items(section, key, _router_address, "an address such as 192.0.2.2")


def _router_address(text: str) -> Address:
    address = parse_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"has a scope; write {text.partition('%')[0]}")
    return parse_host_address(text)


def ports(section: Section, key: str) -> tuple[Ports, ...] | None:
    """Read ports and port ranges, no two of which overlap.  They come out sorted, for their order means nothing."""
    accepted = 'a port such as 80, or a range such as "8000-8099"'
    found = _ranges(section, key, EVERY_PORT, accepted)
    if found is None:
        return None
    if not found:
        raise KeyProblem((*section.keys, key), f"is empty; write {accepted}, or remove it for every port")
    in_order = sorted(found, key=lambda each: each[1])
    for (_, earlier), (place, later) in pairwise(in_order):
        if later[0] <= earlier[1]:
            raise KeyProblem(
                place, f"{_shown(later)} shares a port with {_shown(earlier)}; write each port once"
            )
    return tuple(each for _, each in in_order)


def status(section: Section, key: str) -> tuple[tuple[int, int], ...] | None:
    """Read status codes of HTTP and ranges of them."""
    accepted = 'a status such as 204, or a range such as "200-299"'
    found = _ranges(section, key, STATUS, accepted)
    if found == []:
        raise KeyProblem((*section.keys, key), f"is empty; write {accepted}")
    return None if found is None else tuple(sorted(each for _, each in found))


def _ranges(
    section: Section, key: str, bounds: tuple[int, int], accepted: str
) -> list[tuple[Keys, tuple[int, int]]] | None:
    items = section.items(key)
    if items is None:
        return None
    _refuse_many((*section.keys, key), items)
    return [(place, _range(place, item, bounds, accepted)) for place, item in items]


def _range(place: Keys, item: object, bounds: tuple[int, int], accepted: str) -> tuple[int, int]:
    low, high = bounds
    if isinstance(item, int) and not isinstance(item, bool):
        if low <= item <= high:
            return item, item
        raise KeyProblem(place, f"is {describe(item)}; write numbers from {low} to {high}")
    if not isinstance(item, str):
        raise KeyProblem(place, f"is {describe(item)}; write {accepted}")
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", item)
    if match is None:
        raise KeyProblem(place, f"is {describe(item)}; write {accepted}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not low <= first <= last <= high:
        raise KeyProblem(
            place, f"is {describe(item)}; write numbers from {low} to {high}, the smaller one first"
        )
    return first, last


def _shown(ports: Ports) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def protocols(accepted: tuple[str, ...]) -> Read:
    listed = f"{', '.join(accepted[:-1])} or {accepted[-1]}"

    def known(text: str) -> str:
        if text in accepted:
            return text
        raise ValueError(f"is not one; write {listed}")

    def read(section: Section, key: str) -> tuple[str, ...] | None:
        found = section.each(key, known, listed)
        if found == ():
            raise KeyProblem((*section.keys, key), f"is empty; write {listed}")
        if found is not None:
            refuse_repeated((*section.keys, key), found)
        return found

    return read


def persistence_prefix(version: int, most: int) -> Read:
    return lambda section, key: section.integer(key, 1, most, f"bits of an IPv{version} address")


def command(section: Section, key: str) -> tuple[str, ...] | None:
    """Read a program with its arguments: a list of words, or one string that is split as a shell does.
    No shell runs it.
    """
    keys, accepted = (*section.keys, key), "the full path of a program and its arguments"
    value: Any = section.values.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError:
            raise KeyProblem(keys, f"is {describe(value)}, where a quote is not closed; close it") from None
    if not isinstance(value, list):
        raise KeyProblem(keys, f"is {describe(value)}; write {accepted}")
    for index, word in enumerate(value):
        if not isinstance(word, str) or "\0" in word or len(word) > LONGEST:
            raise KeyProblem((*keys, index), f"is {describe(word)}; write words in quotes")
    if not value or not value[0].startswith("/") or len(value) > MOST_WORDS:
        raise KeyProblem(
            keys, f"is {describe(section.values.get(key))}; write {accepted}, {MOST_WORDS} words at most"
        )
    return tuple(value)


def path_of_url(section: Section, key: str) -> str | None:
    found = section.string(key, 'a path such as "/health"')
    if found is None:
        return None
    is_path = found.startswith("/") and found.isascii() and found.isprintable() and " " not in found
    if not is_path or len(found) > LONGEST:
        raise KeyProblem(
            (*section.keys, key),
            f'is {describe(found)}; write a path such as "/health", with %20 for a blank',
        )
    return found


def regex(section: Section, key: str) -> str | None:
    """Read a regular expression as Python has them."""
    found = section.string(key, "a regular expression")
    if found is None:
        return None
    try:
        if len(found) > LONGEST:
            raise ValueError(f"it has more than {LONGEST} characters")
        re.compile(found.encode())
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise KeyProblem((*section.keys, key), f"is not a regular expression: {error}; correct it") from None
    return found


def digest(section: Section, key: str) -> str | None:
    """Read a digest in hexadecimal digits."""
    found = section.string(key, "a digest")
    if found is None:
        return None
    if len(found) not in DIGESTS or not re.fullmatch(r"[0-9a-fA-F]+", found):
        raise KeyProblem(
            (*section.keys, key),
            f"is {describe(found)}; write the body's MD5 or SHA-256 in hexadecimal digits",
        )
    return found.lower()


def hexadecimal(section: Section, key: str) -> bytes | None:
    """Read bytes in hexadecimal digits, with blanks between them or not."""
    found = section.string(key, "bytes in hexadecimal digits")
    if found is None:
        return None
    try:
        data = bytes.fromhex(found)
    except ValueError:
        data = b""
    if not data or len(data) > 1400:
        raise KeyProblem(
            (*section.keys, key), f'is {describe(found)}; write 1 to 1400 bytes such as "00 01 ff"'
        )
    return data


def interface_name(text: str) -> str:
    """Return *text* if it is a valid name of an interface.  Raises ValueError; its message continues after it."""
    if not INTERFACE.fullmatch(text) or text in {".", ".."}:
        raise ValueError("is not the name of an interface; write one such as eth0")
    return text


def service_name(text: str) -> str:
    """Return *text* if a service can be called so.  Raises ValueError; its message continues after it."""
    if not PEER_NAME.fullmatch(text):
        raise ValueError("is not the name of a service; write one of those in [services]")
    return text


def _items(section: Section, key: str, parse: Callable[[str], T], accepted: str) -> tuple[T, ...] | None:
    """Return the items of a list or the single one, not too many and none of them twice; None if *key* is left out."""
    found = section.each(key, parse, accepted)
    if found is not None:
        _refuse_many((*section.keys, key), found)
        refuse_repeated((*section.keys, key), found)
    return found


def _refuse_many(keys: Keys, items: tuple[Any, ...] | list[Any]) -> None:
    if len(items) > MOST_ITEMS:
        raise KeyProblem(keys, f"has {len(items)} items; write at most {MOST_ITEMS}")
