"""Where accepts must be so that packets pass: in each table that would drop them, before the rule that does.

Docker provides a chain for rules of others, DOCKER-USER, which it evaluates first and never flushes; elsewhere the
accepts go into the chain with the hook.  Rules of others may come first there as long as they drop nothing of ours: two
agents that both insisted on being first would never stop moving their rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from overlay.host.firewall.rules import Packet, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.firewall.rules import Chain, Firewall, Table
    from overlay.host.own_rules.wanted import Accept, Wanted
    from overlay.host.plan import IPAddress, IPNetwork

# Specification: docs.docker.com/engine/network/packet-filtering-firewalls
DOCKER_USER = "DOCKER-USER"

# Ours
KNOWN_STATES = ("established", "dnat")
NFT = "nft"
_SOMEWHERE = (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))  # if the network has no prefix


@dataclass(frozen=True, slots=True)
class RulePlace:
    """One of our chains in *table*, and the chain *jumps_from* that should jump to it; None if none should.

    *is_there* tells whether our chain exists, *stale* the chains that jump to it needlessly, each with the handles of
    those rules.
    """

    table: Table
    chain: str
    jumps_from: str | None
    is_there: bool
    stale: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that the table sees."""
        return {"ip": (4,), "ip6": (6,), "inet": (4, 6)}[self.table.family]


def chain_name(interface: str, program: str) -> str:
    """Return the name of our chain in a table that *program* changes, for the agent of *interface*."""
    if program != NFT:
        return f"OVERLAY-{interface}"  # at most 23 bytes; iptables takes 28
    return "overlay_" + "".join(
        each if each.isascii() and (each.isalnum() or each == "_") else f"x{ord(each):02x}"
        for each in interface
    )


def find_places(firewall: Firewall, wanted: Wanted, *, is_new: bool) -> list[RulePlace]:
    """Return where rules must be changed so that everything that *wanted* accepts passes; nothing if it does already.

    With *is_new* the existing rules differ from what is wanted: they are replaced, or removed where they are not
    needed.
    """
    found = []
    for table in firewall.tables:
        name = chain_name(wanted.interface, table.program)
        jumps = tuple(_jumps_to(table, name))
        considered = _without(table, name) if is_new else table
        closed = next((each for each in considered.chains.values() if _drops(considered, each, wanted)), None)
        if closed is not None:
            found.append(RulePlace(table, name, _front_of(table, closed), name in table.chains, jumps))
        elif is_new and (jumps or name in table.chains):
            found.append(RulePlace(table, name, None, name in table.chains, jumps))
    return found


def _without(table: Table, name: str) -> Table:
    """Return *table* as it would be without the jumps to the chain *name*."""
    chains = {
        each.name: replace(each, rules=[rule for rule in each.rules if rule.target != name])
        for each in table.chains.values()
    }
    return replace(table, chains=chains)


def _front_of(table: Table, base: Chain) -> str:
    """Return the first of the chains that we may write to."""
    for rule in base.rules:
        if rule.target == DOCKER_USER and DOCKER_USER in table.chains:
            return DOCKER_USER
    return base.name


def _drops(table: Table, base: Chain, wanted: Wanted) -> bool:
    """Return whether *base* may drop anything that should pass."""
    if base.hook != "forward" or base.kind != "filter":
        return False
    for version in (4, 6):
        for accept in wanted.accepts(version):
            for packet in _examples(accept, version, wanted):
                if not table.sees(packet):
                    continue
                outcomes = table.outcomes(packet, base)
                end = outcomes.pop(Verdict.RETURN, None)
                if Verdict.DROP in outcomes or (end is not None and base.policy == Verdict.DROP):
                    return True
    return False


def _examples(accept: Accept, version: int, wanted: Wanted) -> Iterator[Packet]:
    """Yield packets that *accept* is for: with the addresses and interfaces that it names, and otherwise with ones that
    nobody has.
    """
    some = _address(next(each for each in (*wanted.prefixes, *_SOMEWHERE) if each.version == version))
    source = some if accept.source is None else _address(accept.source)
    destination = None if accept.destination is None else _address(accept.destination)
    packet = Packet(source, destination, accept.enters, accept.leaves)
    if not accept.is_known:
        yield packet
        return
    for state in KNOWN_STATES:
        yield replace(packet, state=state)


def _jumps_to(table: Table, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for chain in table.chains.values():
        handles = tuple(rule.handle for rule in chain.rules if rule.target == name)
        if handles:
            yield chain.name, handles


def _address(prefix: IPNetwork) -> IPAddress:
    return prefix.network_address + (prefix.num_addresses > 1)
