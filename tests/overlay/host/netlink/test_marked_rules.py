from __future__ import annotations

import contextlib

import pytest

from overlay.host.netlink.routing import Routing

pytestmark = pytest.mark.netns


def test_rules_of_others_that_name_a_mark_are_told(host):
    host.run("ip", "rule", "add", "fwmark", "77", "table", "99", "priority", "500")
    host.run("ip", "rule", "add", "not", "fwmark", "51820", "table", "51820", "priority", "501")
    host.run("ip", "-6", "rule", "add", "fwmark", "0x10/0xf0", "table", "1000", "priority", "502")
    host.run("ip", "rule", "add", "from", "192.0.2.1", "table", "98", "priority", "503")
    host.run(
        "ip", "rule", "add", "fwmark", "78", "table", "97", "priority", "504", "protocol", "151"
    )  # an agent's
    with host.entered(), contextlib.closing(Routing("overlay0", None)) as routes:
        found = [
            (each.version, each.priority, each.mark, each.mask, each.table, each.is_inverted)
            for each in routes.marked_rules()
        ]

    assert found == [
        (4, 500, 77, 0xFFFFFFFF, 99, False),
        (4, 501, 51820, 0xFFFFFFFF, 51820, True),
        (6, 502, 0x10, 0xF0, 1000, False),
    ]
