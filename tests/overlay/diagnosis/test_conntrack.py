from __future__ import annotations

import pytest

from overlay.diagnosis.conntrack import check_conntrack
from tests.overlay.diagnosis.examples import facts


def settings(count, most):
    return {"netfilter/nf_conntrack_count": count, "netfilter/nf_conntrack_max": most}


def test_a_full_table_is_found_with_the_command():
    (finding,) = check_conntrack(facts(read=settings(65_530, 65_536)))

    assert finding.name == "conntrack_full"
    assert "has 65530 of 65536 entries" in finding.problem
    assert "`sysctl -w net.netfilter.nf_conntrack_max=262144`" in finding.remedy


@pytest.mark.parametrize(("count", "most"), [(0, 65_536), (60_000, 65_536), (None, None), (7, 0), (7, None)])
def test_a_table_with_room_or_none_is_not_found(count, most):
    assert not list(check_conntrack(facts(read=settings(count, most))))
