"""Who has an address after one of our directors or a keepalived died, resigned or started, with every version of VRRP
and IP.
"""

from __future__ import annotations

import pytest

from tests.netns.lan import PATIENCE, VIPS
from tests.netns.topology import wait_until

KINDS = [(2, 4), (3, 4), (3, 6)]  # versions of VRRP and of IP
by_kind = pytest.mark.parametrize(("version", "family"), KINDS, ids=["v2", "v3", "v3 IPv6"])


@by_kind
def test_ours_takes_over_from_a_keepalived_that_is_killed(lan, version, family):
    other = lan.keepalived(family=family, version=version, priority=150)
    other.becomes("MASTER")
    wait_until(lambda: lan.ask(family) == lan.mac(lan.other), PATIENCE, "the client to know keepalived")
    ours = lan.director(family=family, version=version, priority=100)
    ours.becomes("backup", family)

    other.kill()
    ours.becomes("active", family)

    wait_until(lambda: lan.known(family) == lan.mac(lan.ours), PATIENCE, "the client to follow")
    assert lan.client.run("ip", "neigh", "show", "to", VIPS[family])


@by_kind
def test_keepalived_takes_over_from_ours_that_is_killed(lan, version, family):
    ours = lan.director(family=family, version=version, priority=150)
    ours.becomes("active", family)
    other = lan.keepalived(family=family, version=version, priority=100)
    other.becomes("BACKUP")
    lan.finds(lan.ours, family)

    ours.kill()
    other.becomes("MASTER")

    wait_until(lambda: lan.known(family) == lan.mac(lan.other), PATIENCE, "the client to follow")
    lan.finds(lan.other, family)


@by_kind
def test_higher_priority_preempts_and_is_followed_by_whoever_is_left_when_it_resigns(lan, version, family):
    other = lan.keepalived(family=family, version=version, priority=100)
    other.becomes("MASTER")

    ours = lan.director(family=family, version=version, priority=150)
    ours.becomes("active", family)
    other.becomes("BACKUP")
    ours.stop()
    other.becomes("MASTER")

    again = lan.director(family=family, version=version, priority=150)
    again.becomes("active", family)
    other.becomes("BACKUP")
    lan.finds(lan.ours, family)


@by_kind
def test_keepalived_preempts_ours(lan, version, family):
    ours = lan.director(family=family, version=version, priority=100)
    ours.becomes("active", family)

    other = lan.keepalived(family=family, version=version, priority=150)
    other.becomes("MASTER")
    ours.becomes("backup", family)
    other.stop()
    ours.becomes("active", family)

    lan.finds(lan.ours, family)
