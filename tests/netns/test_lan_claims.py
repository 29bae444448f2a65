"""Other hosts of the LAN that claim an address of this host."""

from __future__ import annotations

import pytest

from tests.netns.lan import CLAIMING, NETWORKS, PATIENCE, VIPS, claims, processor_time
from tests.netns.topology import wait_until


def claim_until_noticed(lan, director, family):
    with claims(lan.client, VIPS[family]) as claim:

        def is_noticed():
            claim()
            return director.contested

        wait_until(is_noticed, PATIENCE, "a conflict")


@pytest.mark.parametrize("family", [4, 6])
def test_host_that_announces_an_address_which_is_here_is_named_once(lan, family):
    ours = lan.director()
    ours.tell(links={NETWORKS[family]: "eth0"}, hold=[VIPS[family]])
    wait_until(lambda: lan.ask(family) == lan.mac(lan.ours), PATIENCE, "an answer")

    claim_until_noticed(lan, ours, family)
    with claims(lan.client, VIPS[family]) as claim:
        for _ in range(3):
            claim()

    assert ours.status("conflicts") == ours.contested
    (said,) = ours.contested
    assert said.startswith(
        f"{VIPS[family]} is here, but the host with the Ethernet address {lan.mac(lan.client)} on eth0 claims it too"
    )
    ours.tell(hold=[])
    assert ours.status("conflicts") == []


@pytest.mark.parametrize("family", [4, 6])
def test_host_that_has_an_address_which_is_here_is_named_though_it_announces_nothing(lan, family):
    lan.other.run("ip", "address", "add", VIPS[family], "dev", "eth0")
    ours = lan.director()
    ours.tell(links={NETWORKS[family]: "eth0"}, hold=[VIPS[family]])

    wait_until(lambda: ours.contested, PATIENCE, "a conflict")

    assert lan.mac(lan.other) in ours.contested[0]


@pytest.mark.parametrize("family", [4, 6])
def test_director_that_takes_the_address_over_and_the_one_before_do_not_blame_each_other(lan, family):
    first, second = lan.director(lan.ours), lan.director(lan.other)
    first.tell(groups=[lan.group(family=family, priority=100)])
    first.becomes("active", family)
    second.tell(groups=[lan.group(family=family, priority=150)])
    second.becomes("active", family)
    first.becomes("backup", family)

    claim_until_noticed(lan, second, family)

    assert [lan.mac(lan.client) in each for each in second.contested] == [True]
    assert (first.contested, first.status("conflicts")) == ([], [])


def test_active_keepalived_and_ours_do_not_blame_each_other(lan):
    other = lan.keepalived(priority=100)
    other.becomes("MASTER")
    ours = lan.director(priority=150)
    ours.becomes("active")
    other.becomes("BACKUP")

    claim_until_noticed(lan, ours, 4)

    assert [lan.mac(lan.client) in each for each in ours.contested] == [True]


@pytest.mark.parametrize("family", [4, 6])
def test_flood_of_claims_costs_little_and_is_named_once(lan, family):
    ours = lan.director()
    ours.tell(links={NETWORKS[family]: "eth0"}, hold=[VIPS[family]])
    wait_until(lambda: lan.ask(family) == lan.mac(lan.ours), PATIENCE, "an answer")
    claim_until_noticed(lan, ours, family)
    before = processor_time(ours.process)

    lan.other.python(CLAIMING, VIPS[family], "50000")

    spent = processor_time(ours.process) - before
    assert spent < 1.5, f"{spent} s of processor time"
    assert len(ours.contested) == 1
    lan.finds(lan.ours, family)
