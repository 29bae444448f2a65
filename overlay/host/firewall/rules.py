"""Chains of rules as values, and what they do to a packet, as far as that can be determined.

iptables and nftables have hundreds of matches.  Those that are common in firewalls of containers and hosts are
understood.  Any other is unknown, and then both outcomes are followed.  The result is a verdict only if it is certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overlay.host.plan import IPAddress

# Specification: nf_conntrack_core.c; a packet is invalid if it does not fit what was seen of its connection before
NEW, INVALID = "new", "invalid"
INGRESS, EGRESS = "ingress", "egress"  # nft(8): hooks of a device

# Ours
DEPTH = 32  # jumps within jumps; iptables usually allows no more than 16
STEPS = 50_000  # rules examined for one packet; beyond that nothing is certain
OTHER_PORT = 1  # that hardly any rule is about


class Field(Enum):
    """The field of a packet that a match examines."""

    ENTERS = "the interface by which a packet comes"
    LEAVES = "the interface by which it goes"
    SOURCE = "its source"
    DESTINATION = "its destination"
    FAMILY = "ipv4 or ipv6"
    PROTOCOL = "its protocol"
    PORT = "the port that it is for"
    STATE = "its state in connection tracking"
    OTHER = "anything else"


class Verdict(Enum):
    """What a rule does to a packet; RETURN is the end of a chain, CONTINUE the next rule.

    KEEP translates a packet to itself, which prevents any later translation: only the first chain that translates a
    packet does.
    """

    ACCEPT = "accept"
    DROP = "drop"
    MASQUERADE = "masquerade"
    REDIRECT = "redirect"
    KEEP = "keep"
    RETURN = "return"
    CONTINUE = "continue"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses or ports from *first* to *last*; *version* is 0 for ports."""

    first: int
    last: int
    version: int = 0

    @classmethod
    def of_addresses(cls, text: str) -> Span:
        """Read an address or a prefix.  Raises ValueError."""
        network = ip_network(text, strict=False)
        return cls(int(network.network_address), int(network.broadcast_address), network.version)

    @classmethod
    def of_ports(cls, first: str, last: str | None = None) -> Span:
        """Read a port, or those from *first* to *last*.  Raises ValueError."""
        return cls(int(first), int(first if last is None else last))

    @classmethod
    def between(cls, first: str, last: str) -> Span:
        """Read the addresses from *first* to *last*.  Raises ValueError."""
        return cls(int(ip_address(first)), int(ip_address(last)), ip_address(first).version)

    def holds(self, number: int, version: int = 0) -> bool:
        """Return whether *number* is one of them."""
        return self.version == version and self.first <= number <= self.last


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection.  None means unknown; at least one address is known.

    A port of 0 stands for one that no rule names.  *state* is its state in connection tracking.
    """

    source: IPAddress | None
    destination: IPAddress | None = None
    enters: str | None = None
    leaves: str | None = None
    protocol: str | None = "tcp"
    port: int | None = 0
    state: str = NEW

    @property
    def version(self) -> int:
        """The IP version."""
        known = self.source if self.source is not None else self.destination
        assert known is not None
        return known.version


@dataclass(frozen=True, slots=True)
class Match:
    """A condition: a field of the packet is among *values*, or among none of them."""

    field: Field
    values: tuple[str | Span, ...] = ()
    is_negated: bool = False

    def holds(self, packet: Packet) -> bool | None:
        """Return whether *packet* matches; None if that cannot be determined."""
        found = self._is_among(packet)
        return None if found is None else found != self.is_negated

    def _is_among(self, packet: Packet) -> bool | None:
        match self.field:
            case Field.ENTERS:
                return _is_named(packet.enters, self.values)
            case Field.LEAVES:
                return _is_named(packet.leaves, self.values)
            case Field.SOURCE:
                return _is_in(packet.source, self.values)
            case Field.DESTINATION:
                return _is_in(packet.destination, self.values)
            case Field.FAMILY:
                return f"ipv{packet.version}" in self.values
            case Field.PROTOCOL:
                return None if packet.protocol is None else packet.protocol in self.values
            case Field.PORT:
                if packet.port is None:
                    return None
                return any(isinstance(each, Span) and each.holds(packet.port) for each in self.values)
            case Field.STATE:
                return packet.state in self.values
            case Field.OTHER:
                return None


UNKNOWN = Match(Field.OTHER)


@dataclass(frozen=True, slots=True)
class Rule:
    """An action for packets that satisfy all *matches*.  With a *target*, it is a jump to that chain.

    After a jump with *is_goto*, the end of the target ends the chain, too.  *handle* is nft's number of the rule, 0 if
    it has none.
    """

    matches: tuple[Match, ...]
    verdict: Verdict = Verdict.CONTINUE
    target: str | None = None
    is_goto: bool = False
    handle: int = field(default=0, compare=False)


@dataclass(slots=True)
class Chain:
    """Rules in order.  A chain with a *hook* receives packets; *policy* is the action at its end.

    *devices* are those of a chain of ingress or egress; only their packets pass it.
    """

    name: str
    rules: list[Rule] = field(default_factory=list)
    hook: str | None = None
    kind: str = "filter"  # or "nat"
    priority: int = 0
    policy: Verdict = Verdict.ACCEPT
    devices: tuple[str, ...] = ()

    def is_passed(self, packet: Packet, hook: str) -> bool:
        """Return whether *packet* passes the chain at *hook*."""
        if hook in {INGRESS, EGRESS}:
            return self.hook == hook and (packet.enters or packet.leaves) in self.devices
        return self.hook == hook


@dataclass(frozen=True, slots=True)
class Table:
    """Chains that can jump to each other.  *family* is ip, ip6, inet or netdev; *program* is what changes them."""

    family: str
    name: str
    program: str
    chains: Mapping[str, Chain]

    def sees(self, packet: Packet) -> bool:
        """Return whether packets of that IP version pass here."""
        return self.family in {"inet", "netdev", "ip" if packet.version == 4 else "ip6"}

    def outcomes(self, packet: Packet, base: Chain) -> Outcomes:
        """Return the possible outcomes for *packet* in *base*; RETURN is its end, where the policy decides."""
        return _Walk(self, packet).through(base, 0)


@dataclass(frozen=True, slots=True)
class Decision:
    """What decided: a chain with a hook in a table; *chain* is that chain, or one that it led to.

    *is_policy* says that the policy decided, not a rule.
    """

    table: Table
    base: str
    chain: str
    is_policy: bool = False


Outcomes: TypeAlias = dict[Verdict, str]
"""The verdicts that are possible, each with the name of the chain that gives it."""


@dataclass(frozen=True, slots=True)
class Firewall:
    """All tables of a host that could be read; *unread* says why others could not."""

    tables: Sequence[Table] = ()
    unread: tuple[str, ...] = ()

    def may(self, packet: Packet, hook: str, verdict: Verdict) -> bool:
        """Return whether a filter at *hook* may give *packet* that *verdict*."""
        chains = (
            (table, chain) for table in self.tables if table.sees(packet) for chain in table.chains.values()
        )
        return any(
            verdict in outcomes or (Verdict.RETURN in outcomes and chain.policy is verdict)
            for table, chain in chains
            if chain.is_passed(packet, hook) and chain.kind == "filter"
            for outcomes in (table.outcomes(packet, chain),)
        )

    def redirects(self, packet: Packet) -> Decision | None:
        """Return what gives *packet* another destination as it arrives; None if nothing does.

        A rule that only may apply, such as one for an address, counts if it is about the packet's port.
        """
        for table in self.tables:
            for chain in table.chains.values() if table.sees(packet) else ():
                if chain.kind != "nat" or not chain.is_passed(packet, "prerouting"):
                    continue
                outcomes = table.outcomes(packet, chain)
                where = outcomes.get(Verdict.REDIRECT)
                others = table.outcomes(replace(packet, port=OTHER_PORT), chain)
                if where is not None and (len(outcomes) == 1 or Verdict.REDIRECT not in others):
                    return Decision(table, chain.name, where, False)
        return None

    def decides(self, packet: Packet, hook: str, verdict: Verdict, kind: str = "filter") -> Decision | None:
        """Return what gives *packet* that *verdict* at *hook* for certain; None if nothing does."""
        bases = [
            (chain.priority, position, table, chain)
            for position, table in enumerate(self.tables)
            if table.sees(packet)
            for chain in table.chains.values()
            if chain.is_passed(packet, hook) and chain.kind == kind
        ]
        for _, _, table, chain in sorted(bases, key=lambda base: base[:2]):
            outcomes = table.outcomes(packet, chain)
            is_policy = outcomes.keys() == {Verdict.RETURN}
            end = outcomes.pop(Verdict.RETURN, None)
            if end is not None:
                outcomes.setdefault(chain.policy, end)
            if Verdict.KEEP in outcomes:  # no later verdict is certain
                return None
            if outcomes.keys() == {verdict}:
                return Decision(table, chain.name, outcomes[verdict], is_policy)
        return None


class _Walk:
    """The path of one packet through the chains of a table."""

    def __init__(self, table: Table, packet: Packet) -> None:
        self._table, self._packet = table, packet
        self._left = STEPS

    def through(self, chain: Chain, depth: int) -> Outcomes:
        """Return the possible outcomes for the packet in *chain*; RETURN is its end."""
        found: Outcomes = {}
        for rule in chain.rules:
            self._left -= 1
            if self._left < 0 or depth > DEPTH:
                found[Verdict.UNKNOWN] = chain.name
                return found
            if rule.target is None and rule.verdict == Verdict.CONTINUE:
                continue
            holds = self._hold(rule.matches)
            if holds is False:
                continue
            outcomes = self._act(rule, chain, depth)
            goes_on = outcomes.pop(Verdict.CONTINUE, None) is not None
            for verdict, name in outcomes.items():
                found.setdefault(verdict, name)
            if holds and not goes_on:
                return found
        found.setdefault(Verdict.RETURN, chain.name)
        return found

    def _hold(self, matches: tuple[Match, ...]) -> bool | None:
        answer: bool | None = True
        for each in matches:
            holds = each.holds(self._packet)
            if holds is False:
                return False
            if holds is None:
                answer = None
        return answer

    def _act(self, rule: Rule, chain: Chain, depth: int) -> Outcomes:
        if rule.target is None:
            return {rule.verdict: chain.name}
        target = self._table.chains.get(rule.target)
        if target is None:
            return {Verdict.UNKNOWN: chain.name}
        outcomes = self.through(target, depth + 1)
        if not rule.is_goto and Verdict.RETURN in outcomes:
            outcomes[Verdict.CONTINUE] = outcomes.pop(Verdict.RETURN)
        return outcomes


def _is_named(name: str | None, patterns: tuple[str | Span, ...]) -> bool | None:
    if name is None:
        return None
    return any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each
        for each in patterns
        if isinstance(each, str)
    )


def _is_in(address: IPAddress | None, spans: tuple[str | Span, ...]) -> bool | None:
    if address is None:
        return None
    return any(isinstance(each, Span) and each.holds(int(address), address.version) for each in spans)
