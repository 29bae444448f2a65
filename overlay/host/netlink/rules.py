"""Our routing rules, which direct packets to our tables, and our own datagrams past them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias, assert_never

from overlay.host.netlink.kernel import GONE, refusal, versions
from overlay.host.netlink.rtnetlink import (
    FIB_RULE_INVERT,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_TO_TBL,
    FRA_DST,
    FRA_FWMARK,
    FRA_FWMASK,
    FRA_GOTO,
    FRA_PRIORITY,
    FRA_PROTOCOL,
    FRA_SRC,
    FRA_SUPPRESS_PREFIXLEN,
    FRA_TABLE,
    FRA_UID_RANGE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NUMBER,
    RT_TABLE_MAIN,
    RTM_DELRULE,
    RTM_GETRULE,
    RTM_NEWRULE,
    RULE,
    RULE_ATTRIBUTES_OFFSET,
    build_attribute,
    build_message,
    build_number,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.ownership import ANSWERS, PROTOCOL, is_table_of
from overlay.linux import NETLINK_HEADER, NLM_F_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.netlink.kernel import Kernel
    from overlay.host.netlink.rtnetlink import Version
    from overlay.host.plan import HostPlan, IPAddress, IPNetwork

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
        action, inverted, destination_length, source_length, short_table = FR_ACT_TO_TBL, 0, 0, 0, 0
        label = build_number(FRA_FWMARK, self._number) + build_number(FRA_FWMASK, 0)
        version: Version
        match rule:
            case LookUpMain(network, suppressed):
                version, destination_length, short_table = network.version, network.prefixlen, RT_TABLE_MAIN
                own = build_number(FRA_TABLE, RT_TABLE_MAIN) + label
                own += build_number(FRA_SUPPRESS_PREFIXLEN, suppressed)
                if network.prefixlen:
                    own += build_attribute(FRA_DST, network.network_address.packed)
            case LookUpOurs(version, length, fwmark):
                inverted = FIB_RULE_INVERT
                own = build_number(FRA_TABLE, self._number + length) + build_number(FRA_FWMARK, fwmark)
            case GotoByUser(version, uid):
                action = FR_ACT_GOTO
                users = build_attribute(FRA_UID_RANGE, NUMBER.pack(uid) + NUMBER.pack(uid))
                own = build_number(FRA_GOTO, BEHIND) + users + label
            case GotoTarget(version):
                action, own = FR_ACT_NOP, label
            case LookUpAnswers(version, source):
                own = build_number(FRA_TABLE, self._number + ANSWERS)
                if source is None:
                    own += build_number(FRA_FWMARK, self._number)
                else:
                    source_length = source.max_prefixlen
                    own += build_attribute(FRA_SRC, source.packed)
            case _:
                assert_never(rule)
        fields = family_of(version), destination_length, source_length, 0, short_table, action, inverted
        ours = build_number(FRA_PRIORITY, priority(rule)) + build_attribute(FRA_PROTOCOL, bytes([PROTOCOL]))
        return build_message(kind, flags, RULE.pack(*fields), ours, own)

    def _read(self) -> Iterator[Rule]:
        for version in versions():
            question = build_message(RTM_GETRULE, NLM_F_DUMP, RULE.pack(family_of(version), *bytes(6)))
            for raw in self._kernel.ask(question):
                rule = self._recognize(version, raw)
                if rule is not None:
                    yield rule

    def _recognize(self, version: Version, raw: bytes) -> Rule | None:
        """Return the rule of ours in the message *raw*; None if it is another's."""
        _, length, _, _, short_table, action, _ = RULE.unpack_from(raw, NETLINK_HEADER.size)
        found = dict(read_attributes(raw, RULE_ATTRIBUTES_OFFSET))
        table, mark = read_number(found.get(FRA_TABLE)) or short_table, read_number(found.get(FRA_FWMARK))
        if FRA_PROTOCOL in found and read_number(found[FRA_PROTOCOL]) != PROTOCOL:
            return None
        if mark == self._number and action == FR_ACT_NOP:
            return GotoTarget(version)
        if mark == self._number and action == FR_ACT_GOTO:
            return GotoByUser(version, NUMBER.unpack_from(found[FRA_UID_RANGE])[0])
        if table == self._number + ANSWERS:
            source = found.get(FRA_SRC)
            return LookUpAnswers(version, None if source is None else ip_address(source))
        if is_table_of(self._number, table) and mark:
            return LookUpOurs(version, table - self._number, mark)
        if table == RT_TABLE_MAIN and mark == self._number:
            network = ip_network((found.get(FRA_DST, bytes(4 if version == 4 else 16)), length))
            suppressed = found.get(FRA_SUPPRESS_PREFIXLEN)
            return LookUpMain(
                network, network.max_prefixlen if suppressed is None else read_number(suppressed)
            )
        return None
