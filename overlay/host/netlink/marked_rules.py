"""Routing rules of others that depend on firewall marks."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import versions
from overlay.host.netlink.rtnetlink import (
    NLM_F_DUMP,
    RTM_GETRULE,
    build_message,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.netlink.rules import FIB_RULE_INVERT
from overlay.host.ownership import PROTOCOL
from overlay.linux import NETLINK_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.netlink.kernel import Kernel
    from overlay.host.netlink.rtnetlink import Version

# Specification: linux/fib_rules.h
RULE = struct.Struct("=8BI")  # family, lengths, type of service, table, two reserved, action; flags
TABLE_AT, FLAGS_AT = 4, 8
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 6, 10, 15, 16, 21


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
        question = build_message(RTM_GETRULE, NLM_F_DUMP, RULE.pack(family_of(version), *bytes(7), 0))
        for raw in kernel.ask(question):
            fields = RULE.unpack_from(raw, NETLINK_HEADER.size)
            found = dict(read_attributes(raw, NETLINK_HEADER.size + RULE.size))
            mark = read_number(found.get(FRA_FWMARK))
            if not mark or read_number(found.get(FRA_PROTOCOL)) == PROTOCOL:
                continue
            table = read_number(found.get(FRA_TABLE)) or fields[TABLE_AT]
            mask = read_number(found.get(FRA_FWMASK)) or 0xFFFFFFFF
            is_inverted = bool(fields[FLAGS_AT] & FIB_RULE_INVERT)
            yield MarkedRule(version, read_number(found.get(FRA_PRIORITY)), mark, mask, table, is_inverted)
