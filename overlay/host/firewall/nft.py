"""The output of ``nft --json list ruleset`` (libnftables-json(5)).

nft 1.0.6 leaves out the devices of chains at ingress and egress there; ``nft list chains`` has them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from overlay.host.firewall.iptables import PROTOCOLS
from overlay.host.firewall.rules import (
    EGRESS,
    INGRESS,
    UNKNOWN,
    Chain,
    Field,
    Match,
    Rule,
    Span,
    Table,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Specification: libnftables-json(5)
FAMILIES = {"ip", "ip6", "inet", "netdev"}
VERDICTS = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.DROP,
    "return": Verdict.RETURN,
    "continue": Verdict.CONTINUE,
    "masquerade": Verdict.MASQUERADE,
    "snat": Verdict.MASQUERADE,
    "dnat": Verdict.REDIRECT,
    "redirect": Verdict.REDIRECT,
}
# Statements that match everything and pass the packet to the next statement
PASSING = {
    "comment", "counter", "ct count", "ct helper", "ct timeout", "ct expectation", "flow", "log", "mangle", "meter",
    "notrack", "secmark", "set",
}  # fmt: skip
METAS = {
    "iifname": Field.ENTERS,
    "iif": Field.ENTERS,
    "oifname": Field.LEAVES,
    "oif": Field.LEAVES,
    "l4proto": Field.PROTOCOL,
    "nfproto": Field.FAMILY,
    "protocol": Field.FAMILY,
}
ADDRESSES = {"saddr": Field.SOURCE, "daddr": Field.DESTINATION}
# What a packet must be to have a field of that header; nft prints no match for it
IMPLIED = {
    "ip": (Field.FAMILY, "ipv4"),
    "ip6": (Field.FAMILY, "ipv6"),
    "icmpv6": (Field.PROTOCOL, "ipv6-icmp"),
    **{each: (Field.PROTOCOL, each) for each in ("tcp", "udp", "udplite", "sctp", "dccp", "icmp")},
}
ETHERTYPES = {"ip": "ipv4", "ip6": "ipv6"}
TABLE, CHAIN = re.compile(r"table (\S+) (\S+) {"), re.compile(r"\tchain (\S+) {")
DEVICES = re.compile(
    rf"\t\ttype filter hook (?:{INGRESS}|{EGRESS}) devices? =? ?(?:\"([^\"]+)\"|{{ ([^}}]*) }})"
)

# Ours
ELEMENTS = 1024  # of a set; a longer set is not examined

_Sets = dict[tuple[str, str, str], list[Any]]
Devices = dict[tuple[str, str, str], tuple[str, ...]]
"""Those of a chain, by family, table and name."""


def parse_devices(lines: Iterable[str]) -> Devices:
    """Return the devices of chains in the output of ``nft list chains``."""
    found: Devices = {}
    table = chain = None
    for line in lines:
        table, chain = TABLE.match(line) or table, CHAIN.match(line) or chain
        devices = DEVICES.match(line)
        if devices is not None and table is not None and chain is not None:
            names = [devices[1]] if devices[1] else re.split(r",\s*", devices[2])
            found[table[1], table[2], chain[1]] = tuple(each.strip(' "') for each in names)
    return found


def lacks_devices(tables: Iterable[Table]) -> bool:
    """Return whether *tables* have a chain of devices that are not known."""
    chains = (chain for table in tables for chain in table.chains.values())
    return any(each.hook in {INGRESS, EGRESS} and not each.devices for each in chains)


def parse(
    ruleset: Any, devices: Mapping[tuple[str, str, str], tuple[str, ...]] = MappingProxyType({})
) -> list[Table]:
    """Return the tables of *ruleset*, the decoded JSON.  A match that is not understood is uncertain for every packet.

    *devices* are those of chains for which the JSON has none.  Raises ValueError if it is not a ruleset.
    """
    chains: dict[tuple[str, str], dict[str, Chain]] = {}
    sets: _Sets = {}
    try:
        objects = [_only(each) for each in ruleset["nftables"]]
        for kind, each in objects:
            if kind == "chain" and each["family"] in FAMILIES:
                known = devices.get((each["family"], each["table"], each["name"]), ())
                chains.setdefault((each["family"], each["table"]), {})[each["name"]] = _chain(each, known)
            elif kind in {"set", "map"}:
                sets[each["family"], each["table"], each["name"]] = each.get("elem", [])
        for kind, each in objects:
            if kind == "rule" and each["family"] in FAMILIES:
                chain = chains[each["family"], each["table"]][each["chain"]]
                names = _Names(sets, each["family"], each["table"])
                handle = each.get("handle", 0)
                chain.rules += (replace(rule, handle=handle) for rule in _rules(each["expr"], names))
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"nft printed no ruleset: {error!r}") from error
    return [Table(family, name, "nft", found) for (family, name), found in chains.items()]


def _only(each: dict[str, Any]) -> tuple[str, Any]:
    """Return the first key of *each*, which says what it is, and its value.  Raises KeyError if there is none."""
    for item in each.items():
        return item
    raise KeyError("nothing")


def _chain(each: dict[str, Any], known: tuple[str, ...]) -> Chain:
    policy = VERDICTS.get(each.get("policy", "accept"), Verdict.UNKNOWN)
    priority = each.get("prio", 0)
    hook, kind = each.get("hook"), "nat" if each.get("type") == "nat" else "filter"
    devices = each.get("dev", known)
    devices = (devices,) if isinstance(devices, str) else tuple(devices)
    return Chain(each["name"], [], hook, kind, priority if isinstance(priority, int) else 0, policy, devices)


class _Names:
    """The named sets and maps of a table."""

    def __init__(self, sets: _Sets, family: str, table: str) -> None:
        self._sets, self._family, self._table = sets, family, table

    def elements(self, right: Any) -> list[Any]:
        """Return the elements of *right*: an element, a list, or a set by its name.  Raises ValueError if there are too
        many.
        """
        if isinstance(right, str) and right.startswith("@"):
            right = {"set": self._sets[self._family, self._table, right[1:]]}
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
        found = right if isinstance(right, list) else [right]
        if len(found) > ELEMENTS:
            raise ValueError("too many elements")
        return [each["elem"]["val"] if isinstance(each, dict) and "elem" in each else each for each in found]


def _rules(expressions: list[dict[str, Any]], names: _Names) -> Iterator[Rule]:
    """Yield a rule of nftables as rules with one action each: a verdict map becomes one rule for each of its keys."""
    matches: list[Match] = []
    for expression in expressions:
        kind, body = _only(expression)
        if kind == "match":
            matches += (*_implied(body["left"]), _match(body, names))
        elif kind == "vmap":
            yield from _by_map(body, names, matches)
        elif kind == "snat" and (kept := _kept(body, names)) is not None:
            yield Rule((*matches, kept), Verdict.KEEP)
        elif kind in VERDICTS or kind in {"jump", "goto"}:
            yield replace(_action(kind, body), matches=tuple(matches))
        elif kind not in PASSING:
            # An extension of iptables, a limit, a queue: the rest may apply or not.
            matches.append(UNKNOWN)
            if kind not in {"limit", "quota", "connlimit", "xt"} or _is_target(body):
                yield Rule(tuple(matches), Verdict.UNKNOWN)


def _is_target(body: Any) -> bool:
    return isinstance(body, dict) and body.get("type") == "target"


def _action(kind: str, body: Any) -> Rule:
    if kind in {"jump", "goto"}:
        return Rule((), target=body["target"], is_goto=kind == "goto")
    return Rule((), VERDICTS[kind])


def _kept(body: Any, names: _Names) -> Match | None:
    """Return the match of a source translation that maps each address to itself; None for any other translation."""
    mapped = body.get("addr") if isinstance(body, dict) else None
    if not isinstance(mapped, dict) or "map" not in mapped:
        return None
    try:
        pairs = names.elements(mapped["map"]["data"])
    except ValueError:
        return None
    if any(key != value for key, value in pairs):
        return None
    return _match(
        {"op": "==", "left": mapped["map"]["key"], "right": {"set": [key for key, _ in pairs]}}, names
    )


def _by_map(body: dict[str, Any], names: _Names, before: list[Match]) -> Iterator[Rule]:
    before = [*before, *_implied(body["key"])]
    try:
        pairs = names.elements(body["data"])
    except ValueError:
        yield Rule((*before, UNKNOWN), Verdict.UNKNOWN)
        return
    for key, action in pairs:
        match = _match({"op": "==", "left": body["key"], "right": key}, names)
        yield replace(_action(*_only(action)), matches=(*before, match))


def _match(body: dict[str, Any], names: _Names) -> Match:
    left, operator = body["left"], body["op"]
    field = _field(left)
    if field == Field.OTHER or operator not in {"==", "!=", "in"}:
        return UNKNOWN
    try:
        values = tuple(_value(each, field) for each in names.elements(body["right"]))
    except (ValueError, TypeError):
        return UNKNOWN
    return Match(field, values, operator == "!=")


def _implied(left: Any) -> tuple[Match, ...]:
    """Return what a packet must be to have the field *left*."""
    payload = left.get("payload") if isinstance(left, dict) else None
    found = IMPLIED.get(str(payload.get("protocol"))) if isinstance(payload, dict) else None
    return () if found is None else (Match(found[0], (found[1],)),)


def _field(left: Any) -> Field:
    match left:
        case {"meta": {"key": str(key)}}:
            return METAS.get(key, Field.OTHER)
        case {"payload": {"protocol": "ip" | "ip6", "field": str(key)}}:
            return ADDRESSES.get(key, Field.OTHER)
        case {"payload": {"protocol": "ether", "field": "type"}}:
            return Field.FAMILY
        case {"payload": {"protocol": "tcp" | "udp" | "th", "field": "dport"}}:
            return Field.PORT
        case {"ct": {"key": "state" | "status"}}:
            return Field.STATE
        case _:
            return Field.OTHER


def _value(each: Any, field: Field) -> str | Span:
    """Return one element of a match.  Raises ValueError or TypeError if it is not understood."""
    match field, each:
        case ((Field.SOURCE | Field.DESTINATION), {"prefix": {"addr": str(address), "len": int(length)}}):
            return Span.of_addresses(f"{address}/{length}")
        case ((Field.SOURCE | Field.DESTINATION), {"range": [str(first), str(last)]}):
            return Span.between(first, last)
        case ((Field.SOURCE | Field.DESTINATION), str()):
            return Span.of_addresses(each)
        case Field.PORT, {"range": [int(first), int(last)]}:
            return Span(first, last)
        case Field.PORT, int():
            return Span(each, each)
        case Field.PROTOCOL, int() | str():
            return PROTOCOLS.get(str(each), str(each))
        case Field.FAMILY, str():
            return ETHERTYPES.get(each, each)
        case ((Field.ENTERS | Field.LEAVES | Field.STATE), str()):
            return str(each)
        case _:
            raise ValueError("not understood")
