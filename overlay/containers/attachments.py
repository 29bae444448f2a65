"""The attachments of this host's containers, and the record of them on disk.

The record is written before anything is set up in the kernel, and again when everything is: so attachments that a
killed agent left unfinished are known.  It applies to one network namespace and one boot, so a reboot forgets it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from overlay.containers.addresses import Addresses, Holder, IPAddress, IPNetwork
from peers import mac as ethernet

# Ours
MOST = 16_384  # attachments; a host rarely has more than a few hundred containers
MOST_ADDRESSES = 2 * MOST
RECORD_SIZE = 16 * 1024 * 1024  # bytes; MOST attachments with names of ordinary length take half
DIGITS = 12  # hexadecimal, of a hash: 2**24 attachments share one with a chance of one half
OUTER, INNER = "oc", "oi"
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"  # of every host's end: each is alone on its link with one container


@dataclass(frozen=True, slots=True)
class Attachment:
    """One container on this host.  *outer* is the host's end of its veth pair.

    *mac* is the Ethernet address of the container's end, and *limit* an upper bound of its MTU that somebody asked for.
    *device_mtu* is the MTU that the container's device was given.  An attachment that is not *whole* is being made.
    """

    holder: Holder
    addresses: tuple[IPAddress, ...]
    outer: str
    mac: str
    limit: int | None = None
    device_mtu: int = 0xFFFF
    is_whole: bool = False

    def mtu(self, of_tunnel: int) -> int:
        """Return the MTU for the container's device if that of the tunnel is *of_tunnel*."""
        return of_tunnel if self.limit is None else min(of_tunnel, self.limit)

    def route_mtu(self, of_tunnel: int) -> int:
        """Return the MTU for the routes to the container: larger packets than its device takes would vanish there."""
        return min(self.mtu(of_tunnel), self.device_mtu)


def outer_name(holder: Holder) -> str:
    """Return the name of the host's end for *holder*: always the same, so that a leftover is found."""
    return OUTER + _digest(holder)[:DIGITS]


def inner_name(holder: Holder) -> str:
    """Return the name of the container's end as long as it is in the namespace of the host."""
    return INNER + _digest(holder)[:DIGITS]


def derived_mac(holder: Holder) -> str:
    """Return the Ethernet address of the container's end where none is asked for: locally administered, unicast."""
    return ethernet.format_mac(ethernet.derived_mac("\0".join(_row_of(holder))))


class Attachments:
    """All attachments, by holder, and the addresses of containers."""

    def __init__(self, addresses: Addresses | None = None) -> None:
        self.addresses = addresses or Addresses()
        self.by_holder: dict[Holder, Attachment] = {}

    def put(self, attachment: Attachment) -> None:
        """Put *attachment* in place of any previous one of its holder."""
        self.by_holder[attachment.holder] = attachment

    def drop(self, holder: Holder) -> Attachment | None:
        """Forget the attachment of *holder* and return it; its own addresses are free again."""
        self.addresses.release(holder)
        return self.by_holder.pop(holder, None)

    def stale(self, network: str, valid: set[tuple[str, str]]) -> list[Holder]:
        """Return the holders with attachments or addresses in *network* that are not *valid* (container, interface)."""
        holders = {*self.by_holder, *self.addresses.taken.values()}
        return sorted(
            each
            for each in holders
            if each.network == network and (each.container, each.interface) not in valid
        )

    def encode(self, namespace: str) -> bytes:
        """Return the record, for the network namespace of this boot that *namespace* names."""
        rows = [
            [
                *_row_of(each.holder),
                [str(address) for address in each.addresses],
                each.outer,
                each.mac,
                each.limit,
                each.device_mtu,
                each.is_whole,
            ]
            for each in self.by_holder.values()
        ]
        record = {
            "namespace": namespace,
            "attachments": rows,
            "addresses": [[str(each), *_row_of(holder)] for each, holder in self.addresses.taken.items()],
            "last": [[str(subnet), str(each)] for subnet, each in self.addresses.last.items()],
        }
        return json.dumps(record, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes, namespace: str) -> Attachments:
        """Read a record that encode() made; a record of another namespace or boot counts as empty.

        Raises ValueError, and nothing else, for any other bytes.
        """
        if len(data) > RECORD_SIZE:
            raise ValueError("too long")
        try:
            record = json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        match record:
            case {
                "namespace": str(named),
                "attachments": [*rows],
                "addresses": [*taken],
                "last": [*last],
            } if len(rows) <= MOST and len(taken) <= MOST_ADDRESSES and len(last) <= MOST:
                if named != namespace:
                    return cls()
                found = cls(Addresses(dict(map(_read_taken, taken)), dict(map(_read_last, last))))
                for row in rows:
                    found.put(_read_row(row))
                return found
        raise ValueError("not what encode() makes")


def _digest(holder: Holder) -> str:
    return hashlib.sha256("\0".join(_row_of(holder)).encode()).hexdigest()


def _row_of(holder: Holder) -> list[str]:
    return [holder.network, holder.container, holder.interface]


def _read_row(row: Any) -> Attachment:
    match row:
        case [
            network,
            container,
            interface,
            [*texts],
            str(outer),
            str(mac),
            limit,
            device_mtu,
            bool(is_whole),
        ]:
            holder = Holder.parse(network, container, interface)
            if outer != outer_name(holder) or ethernet.format_mac(ethernet.parse_mac(mac)) != mac:
                raise ValueError("not an attachment")
            if not (limit is None or _is_mtu(limit)) or not _is_mtu(device_mtu):
                raise ValueError("not an MTU")
            addresses = tuple(map(_read_address, texts))
            return Attachment(holder, addresses, outer, mac, limit, device_mtu, is_whole)
    raise ValueError("not an attachment")


def _is_mtu(number: Any) -> bool:
    return type(number) is int and 0 < number <= 0xFFFF


def _read_taken(row: Any) -> tuple[IPAddress, Holder]:
    match row:
        case [text, network, container, interface]:
            return _read_address(text), Holder.parse(network, container, interface)
    raise ValueError("not an address with its holder")


def _read_last(row: Any) -> tuple[IPNetwork, IPAddress]:
    match row:
        case [str(subnet), text]:
            return ip_network(subnet), _read_address(text)
    raise ValueError("not a subnet with an address")


def _read_address(text: Any) -> IPAddress:
    if not isinstance(text, str):
        raise ValueError("not an address")  # noqa: TRY004  one error class for any wrong content
    return ip_address(text)
