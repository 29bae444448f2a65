"""Packet filters of this host: what they certainly drop, and which protocols or ports they drop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from overlay.explaining.explanation import FILTER
from overlay.host.firewall.rules import Field, Span, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.explaining.explanation import Explanation
    from overlay.explaining.facts import Facts
    from overlay.host.firewall.rules import Decision, Firewall, Packet

# Specification: protocols as filters name them; the first ones are those of `--protocol`
WITH_PORTS = ("tcp", "udp", "sctp")
WITHOUT_PORTS = {4: "icmp", 6: "ipv6-icmp"}

# Ours
RULES = 500  # of all filters, at most, for trying protocols and ports one by one, which takes about 50 ms
PORTS = 16  # named by rules, at most, that are tried
SHOWN = 3  # chains, at most, that drop some of the protocols and ports


def refused_by_filter(facts: Facts, packet: Packet, hooks: tuple[str, ...], found: Explanation) -> bool:
    """Refuse *packet* if one of *hooks* certainly drops it; return whether it does.

    If its protocol or port is not given, and some of them are dropped, that becomes a doubt.
    """
    if facts.firewall is None:
        return False
    decision = _drop(facts.firewall, packet, hooks)
    if decision is not None:
        found.refuse(FILTER, f"the packet filter of this host drops it ({place(decision)})")
        return True
    is_partly_known = packet.port is None or packet.protocol is None
    if is_partly_known and any(facts.firewall.may(packet, each, Verdict.DROP) for each in hooks):
        _doubt_parts(facts.firewall, packet, hooks, found)
    return False


def place(decision: Decision) -> str:
    """Return in words which rule or policy made *decision*."""
    by = "the policy" if decision.is_policy else "a rule"
    return f"{by} of the chain {decision.chain} in the table {decision.table.family} {decision.table.name}"


def _drop(firewall: Firewall, packet: Packet, hooks: tuple[str, ...]) -> Decision | None:
    decisions = (firewall.decides(packet, hook, Verdict.DROP) for hook in hooks)
    return next((each for each in decisions if each is not None), None)


def _doubt_parts(firewall: Firewall, packet: Packet, hooks: tuple[str, ...], found: Explanation) -> None:
    """Add doubts on the protocols and ports that *hooks* certainly drop."""
    unknown = {"--protocol": packet.protocol, "--port": packet.port}
    options = " and ".join(option for option, known in unknown.items() if known is None)
    if sum(len(chain.rules) for table in firewall.tables for chain in table.chains.values()) > RULES:
        found.doubt(
            f"the packet filter of this host may drop some protocols or ports: ask again with {options}"
        )
        return
    parts: dict[str, list[str]] = {}
    named = _named_ports(firewall)
    protocols = WITH_PORTS if packet.port is not None else (*WITH_PORTS, WITHOUT_PORTS[packet.version])
    for protocol in (packet.protocol,) if packet.protocol is not None else protocols:
        ports = named if protocol in WITH_PORTS else []
        for where, what in _dropped(firewall, replace(packet, protocol=protocol), ports, hooks):
            parts.setdefault(where, []).append(f"{protocol}{what}")
    for where, dropped in list(parts.items())[:SHOWN]:
        ask = "" if dropped == [WITHOUT_PORTS[packet.version]] else f": ask again with {options}"
        found.doubt(f"the packet filter of this host drops {' and '.join(dropped)} ({where}){ask}")


def _dropped(
    firewall: Firewall, packet: Packet, ports: list[Span], hooks: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Yield the places where ports of the packet's protocol are dropped, and which ports; an empty text means all."""
    if packet.port is not None:
        decision = _drop(firewall, packet, hooks)
        if decision is not None:
            yield place(decision), f" port {packet.port}"
        return
    others = _drop(firewall, replace(packet, port=0), hooks)
    fates = {
        span: [_drop(firewall, replace(packet, port=each), hooks) for each in (span.first, span.last)]
        for span in ports
    }
    if others is not None:
        passing = [_port(span) for span, ends in fates.items() if ends == [None, None]]
        yield place(others), f" except {_listed(passing)}" if passing else ""
        return
    parts: dict[str, list[str]] = {}
    for span, (first, last) in fates.items():
        if first is not None and last is not None:
            parts.setdefault(place(first), []).append(_port(span))
    for where, names in parts.items():
        yield where, f" {_listed(names)}"


def _named_ports(firewall: Firewall) -> list[Span]:
    """Return ports that rules name, the lowest first."""
    found: set[tuple[int, int]] = set()
    for table in firewall.tables:
        for chain in table.chains.values():
            for rule in chain.rules:
                for match in rule.matches:
                    if match.field is Field.PORT:
                        found |= {(each.first, each.last) for each in match.values if isinstance(each, Span)}
    return [Span(first, last) for first, last in sorted(found)[:PORTS]]


def _port(span: Span) -> str:
    return str(span.first) if span.first == span.last else f"{span.first} to {span.last}"


def _listed(ports: list[str]) -> str:
    return f"port{'' if len(ports) == 1 and ' ' not in ports[0] else 's'} {', '.join(ports)}"
