"""The limits for new connections to virtual services that the kernel of a director enforces.

A flood of SYNs fills the queue of the tun before the forwarder sees any of it, and packets of established connections
are lost with it.  So the kernel counts before the tun.  While more connections begin than a service allows, only a few
are let in, because each competes with the packets of all others, at the director and at the server; established
connections continue.

The chains belong to a table of the family inet, as nft reads them.  What this host itself sends is not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.services.translating import FAMILIES, nft_ports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peers.service import Service

# Ours
SHARE = 20  # one in this many of the connections that a service allows can begin during a flood
MOMENT = 10  # the part of a second whose allowance may be used at once: one in this many
FLOOD_TIME = 2  # seconds for which a flood is assumed to continue


def limiting_chains(services: Iterable[Service], interface: str) -> str:
    """Return the chains for *services*, which this host balances with the tun *interface*; empty if none uses TCP."""
    limited = [each for each in services if "tcp" in each.protocols]
    if not limited:
        return ""
    lines: list[str] = []
    for number, service in enumerate(limited):
        lines += _limits(service, number)
    begins = f'oifname "{interface}" tcp flags & (fin | syn | rst | ack) == syn'
    # Of two services with one address, a packet belongs to the narrower.
    narrowest = sorted(enumerate(limited), key=lambda each: _width(each[1]))
    return "".join(
        f"\t{line}\n"
        for line in (
            *lines,
            "chain beginning {",
            *(f"\t{rule}" for number, service in narrowest for rule in _matches(service, number)),
            "}",
            "chain towards_tun {",
            "\ttype filter hook forward priority 0; policy accept;",
            f"\t{begins} jump beginning",
            "}",
        )
    )


def _limits(service: Service, number: int) -> Iterator[str]:
    allowed = service.new_flows_per_second
    few = max(1, allowed // SHARE)
    yield f"limit allowed{number} {{ rate over {allowed}/second burst {max(5, allowed // MOMENT)} packets; }}"
    yield f"limit few{number} {{ rate over {few}/second burst {max(5, few // MOMENT)} packets; }}"
    yield f"set flooded{number} {{ type ifname; size 4; flags dynamic,timeout; timeout {FLOOD_TIME}s; }}"
    yield f"chain service{number} {{"
    yield f'\tlimit name "allowed{number}" update @flooded{number} {{ oifname }}'
    yield f'\toifname @flooded{number} limit name "few{number}" drop'
    yield "}"


def _matches(service: Service, number: int) -> Iterator[str]:
    ports = f" tcp dport {nft_ports(service.ports)}" if service.ports else ""
    for address in service.addresses:
        yield f"{FAMILIES[address.version]} daddr {address}{ports} goto service{number}"


def _width(service: Service) -> int:
    return min((last - first for first, last in service.ports), default=1 << 16)
