"""How to recognize routes, rules and tables of an agent of this project, and the interface that they belong to."""

from __future__ import annotations

import zlib

# Ours
# Free in iproute2's rt_protos, and different from those of FRR (186 to 199), Calico (80) and OVN (84).
PROTOCOL = 151
# The number of an interface is this plus six digits from its name, then 000, which tables replace by the prefix length.
NUMBER = 1_000_000_000
ANSWERS = 129  # after the prefix lengths: the table of answers that go back through the tunnel


def number_of(interface: str) -> int:
    """Return the number that marks tables, rules and unreachable routes as belonging to the agent of *interface*.

    It ends in 000, which table numbers replace by the prefix length or ANSWERS.  One pair of names in a million shares
    it.
    """
    return NUMBER + zlib.crc32(interface.encode()) % 1_000_000 * 1_000


def is_table_of(number: int, table: int) -> bool:
    """Return whether *table* belongs to the agent with *number*."""
    return number <= table <= number + ANSWERS
