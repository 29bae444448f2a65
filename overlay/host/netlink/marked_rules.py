"""Routing rules of others that depend on firewall marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import versions
from overlay.host.netlink.rtnetlink import (
    FIB_RULE_INVERT,
    FRA_FWMARK,
    FRA_FWMASK,
    FRA_PRIORITY,
    FRA_PROTOCOL,
    FRA_TABLE,
    NLM_F_DUMP,
    RTM_GETRULE,
    RULE,
    RULE_ATTRIBUTES_OFFSET,
    build_message,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.ownership import PROTOCOL
from overlay.linux import NETLINK_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.netlink.kernel import Kernel
    from overlay.host.netlink.rtnetlink import Version


@dataclass(frozen=True, slots=True)
class MarkedRule:
    """A rule for packets with *mark* under *mask*, or, if *is_inverted*, for all others: they look up *table*."""

    version: Version
    priority: int
    mark: int
    mask: int
    table: int
    is_inverted: bool

    def regards(self, mark: int) -> bool:
        """Return whether the rule applies to packets with *mark*."""
        return mark & self.mask == self.mark & self.mask


def read_marked(kernel: Kernel) -> Iterator[MarkedRule]:
    """Yield the rules that are not an agent's and that name a mark.  Raises OSError."""
    for version in versions():
        question = build_message(RTM_GETRULE, NLM_F_DUMP, RULE.pack(family_of(version), *bytes(6)))
        for raw in kernel.ask(question):
            _, _, _, _, short_table, _, flags = RULE.unpack_from(raw, NETLINK_HEADER.size)
            found = dict(read_attributes(raw, RULE_ATTRIBUTES_OFFSET))
            mark = read_number(found.get(FRA_FWMARK))
            if not mark or read_number(found.get(FRA_PROTOCOL)) == PROTOCOL:
                continue
            table = read_number(found.get(FRA_TABLE)) or short_table
            mask = read_number(found.get(FRA_FWMASK)) or 0xFFFFFFFF
            is_inverted = bool(flags & FIB_RULE_INVERT)
            yield MarkedRule(version, read_number(found.get(FRA_PRIORITY)), mark, mask, table, is_inverted)
