"""Our routing rules, which direct packets to our tables, and our own datagrams past them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias, assert_never

from overlay.host.netlink import codec
from overlay.host.netlink.kernel import GONE, refusal, versions
from overlay.host.netlink.rtnetlink import (
    NLM_F_DUMP,
    NLM_F_EXCL,
    RT_TABLE_MAIN,
    RTM_DELRULE,
    RTM_GETRULE,
    RTM_NEWRULE,
    family_of,
)
from overlay.host.ownership import ANSWERS, PROTOCOL, is_table_of
from overlay.linux import NLM_F_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.netlink.codec import Attribute
    from overlay.host.netlink.kernel import Kernel
    from overlay.host.netlink.rtnetlink import Version
    from overlay.host.plan import HostPlan, IPAddress, IPNetwork

# Specification: linux/fib_rules.h
FR_ACT_TO_TBL, FR_ACT_GOTO, FR_ACT_NOP = 1, 2, 3
FIB_RULE_INVERT = 0x2

# Ours
# The first priority: high, so that rules with a priority chosen on purpose come first, but below main's 32766.
PRIORITIES = 31_000
BEHIND = PRIORITIES + 300  # the last of a prefix length is PRIORITIES + 257


@dataclass(frozen=True, slots=True)
class LookUpMain:
    """The rule: to *network* lookup main, except for routes of main with a prefix of *suppressed* bits or less."""

    network: IPNetwork
    suppressed: int


@dataclass(frozen=True, slots=True)
class LookUpOurs:
    """The rule: packets without *fwmark* look up our table for prefixes of *length*."""

    version: Version
    length: int
    fwmark: int


@dataclass(frozen=True, slots=True)
class GotoByUser:
    """The rule: packets of the user *uid* skip our rules."""

    version: Version
    uid: int


@dataclass(frozen=True, slots=True)
class GotoTarget:
    """The rule after our others, which does nothing."""

    version: Version


@dataclass(frozen=True, slots=True)
class LookUpAnswers:
    """The rule: packets from *source*, or for None those that nft has marked as answers, look up our table of
    answers.
    """

    version: Version
    source: IPAddress | None


Rule: TypeAlias = LookUpMain | LookUpOurs | GotoByUser | GotoTarget | LookUpAnswers


def planned_rules(plan: HostPlan) -> set[Rule]:
    """Return the rules that *plan* requires."""
    rules: set[Rule] = {LookUpAnswers(address.version, None) for address in plan.returned}
    held = {each.ip for each in plan.held}
    rules |= {LookUpAnswers(address.version, address) for address in plan.returned if address in held}
    if not plan.policy_routes:
        return rules
    assert plan.fwmark, "policy routes need a mark for our own datagrams"
    on_link = set(plan.on_link)
    for network in plan.policy_routes:
        rules.add(LookUpMain(network, network.prefixlen - (network in on_link)))
        rules.add(LookUpOurs(network.version, network.prefixlen, plan.fwmark))
        if plan.passing_uid is not None:
            rules.update({GotoByUser(network.version, plan.passing_uid), GotoTarget(network.version)})
    return rules


def priority(rule: Rule) -> int:
    """Return the priority of *rule*; the kernel evaluates lower ones first."""
    match rule:
        case LookUpMain(network):
            return PRIORITIES + 2 * (network.max_prefixlen - network.prefixlen)
        case LookUpOurs(version, length, _):
            return PRIORITIES + 2 * ((32 if version == 4 else 128) - length) + 1
        case GotoByUser():
            return PRIORITIES - 1
        case GotoTarget():
            return BEHIND
        case LookUpAnswers():
            return PRIORITIES - 2
        case _:
            assert_never(rule)


class Rules:
    """The rules that we have set up, in `ours`, and the operations that change them."""

    def __init__(self, kernel: Kernel, number: int) -> None:
        self._kernel = kernel
        self._number = number
        self.ours: set[Rule] = set()

    def read_back(self) -> None:
        """Take over the rules in the kernel that carry our labels.  Raises OSError."""
        self.ours = set(self._read())

    def add(self, rule: Rule) -> None:
        """Add *rule*, which may be there already.  Raises HostError."""
        try:
            self._kernel.do(self._message(rule, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise refusal(
                    f"the routing rule with priority {priority(rule)} could not be added", error
                ) from error
        self.ours.add(rule)

    def remove(self, rule: Rule) -> None:
        """Remove *rule*, which may be gone already.  Raises HostError."""
        try:
            self._kernel.do(self._message(rule, RTM_DELRULE, 0))
        except OSError as error:
            if error.errno not in GONE:
                raise refusal(
                    f"the routing rule with priority {priority(rule)} could not be removed", error
                ) from error
        self.ours.discard(rule)

    def _message(self, rule: Rule, kind: int, flags: int) -> bytes:
        fields: dict[str, object] = {"action": FR_ACT_TO_TBL}
        attributes: list[Attribute] = [("FRA_PRIORITY", priority(rule)), ("FRA_PROTOCOL", PROTOCOL)]
        label: list[Attribute] = [("FRA_FWMARK", self._number), ("FRA_FWMASK", 0)]
        match rule:
            case LookUpMain(network, suppressed):
                fields["family"] = family_of(network.version)
                fields["dst_len"] = network.prefixlen
                fields["table"] = RT_TABLE_MAIN
                attributes += [("FRA_TABLE", RT_TABLE_MAIN), ("FRA_SUPPRESS_PREFIXLEN", suppressed), *label]
                if network.prefixlen:
                    attributes.append(("FRA_DST", str(network.network_address)))
            case LookUpOurs(version, length, fwmark):
                fields["family"] = family_of(version)
                fields["flags"] = FIB_RULE_INVERT
                attributes += [("FRA_TABLE", self._number + length), ("FRA_FWMARK", fwmark)]
            case GotoByUser(version, uid):
                fields["family"] = family_of(version)
                fields["action"] = FR_ACT_GOTO
                attributes += [("FRA_GOTO", BEHIND), ("FRA_UID_RANGE", f"{uid}:{uid}"), *label]
            case GotoTarget(version):
                fields["family"] = family_of(version)
                fields["action"] = FR_ACT_NOP
                attributes += label
            case LookUpAnswers(version, source):
                fields["family"] = family_of(version)
                attributes.append(("FRA_TABLE", self._number + ANSWERS))
                if source is None:
                    attributes.append(("FRA_FWMARK", self._number))
                else:
                    fields["src_len"] = source.max_prefixlen
                    attributes.append(("FRA_SRC", str(source)))
            case _:
                assert_never(rule)
        return codec.encode(codec.RULE, kind, flags, fields, attributes)

    def _read(self) -> Iterator[Rule]:
        for version in versions():
            question = codec.encode(codec.RULE, RTM_GETRULE, NLM_F_DUMP, {"family": family_of(version)})
            for raw in self._kernel.ask(question):
                rule = codec.decode(codec.RULE, raw)
                table, mark = rule.get_attr("FRA_TABLE", rule["table"]), rule.get_attr("FRA_FWMARK")
                if rule.get_attr("FRA_PROTOCOL", PROTOCOL) != PROTOCOL:
                    continue
                if mark == self._number and rule["action"] == FR_ACT_NOP:
                    yield GotoTarget(version)
                elif mark == self._number and rule["action"] == FR_ACT_GOTO:
                    yield GotoByUser(version, int(rule.get_attr("FRA_UID_RANGE").partition(":")[0]))
                elif table == self._number + ANSWERS:
                    source = rule.get_attr("FRA_SRC")
                    yield LookUpAnswers(version, None if source is None else ip_address(source))
                elif is_table_of(self._number, table) and mark:
                    yield LookUpOurs(version, table - self._number, mark)
                elif table == RT_TABLE_MAIN and mark == self._number:
                    destination = rule.get_attr("FRA_DST", "0.0.0.0" if version == 4 else "::")
                    network = ip_network(f"{destination}/{rule['dst_len']}")
                    yield LookUpMain(network, rule.get_attr("FRA_SUPPRESS_PREFIXLEN", network.max_prefixlen))
