from __future__ import annotations

import pytest

from overlay.diagnosis.mtu import check_mtu
from overlay.host.plan import HostPlan
from tests.overlay.diagnosis.examples import facts


def test_mtu_in_the_file_that_is_too_large_is_found_with_what_fits():
    (finding,) = check_mtu(facts(plan=HostPlan(1500), room=1420, network={"mtu": 1500}))

    assert finding.name == "mtu_over_path"
    assert (
        "MTU of overlay0 is 1500, but the way to the peers carries packets of at most 1420 bytes"
        in finding.problem
    )
    assert "write at most 1420" in finding.remedy


def test_underlay_that_is_too_narrow_for_ipv6_is_found():
    (finding,) = check_mtu(facts(plan=HostPlan(1280), room=1220))

    assert "raise the MTU of the interface that leads there: IPv6 needs 1280 bytes" in finding.remedy


@pytest.mark.parametrize("room", [1420, 8920, None])
def test_what_fits_or_is_not_known_is_not_found(room):
    assert not list(check_mtu(facts(plan=HostPlan(1420), room=room)))
