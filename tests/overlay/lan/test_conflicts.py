from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.lan.conflicts import PATIENCE, REMEMBERED, SETTLED, Conflict, Conflicts

VIP = ip_address("10.50.2.200")
PLACE = ("eth0", VIP)
MAC, OTHER = bytes.fromhex("020000000002"), bytes.fromhex("020000000003")
FOUND = [Conflict(VIP, "eth0", MAC)]


@pytest.fixture
def conflicts():
    """Have had an address here for a long time."""
    made = Conflicts()
    made.hold([PLACE], -100.0)
    return made


def test_claim_is_a_conflict_once_the_address_has_stayed(conflicts):
    conflicts.hear(PLACE, MAC, 0.0)

    assert (conflicts.settle(PATIENCE - 0.1), conflicts.current()) == ([], [])
    assert (conflicts.settle(PATIENCE), conflicts.current()) == (FOUND, FOUND)


def test_one_that_has_taken_the_address_over_is_no_conflict(conflicts):
    conflicts.hear(PLACE, MAC, 0.0)
    conflicts.hold([], 1.0)
    conflicts.hold([PLACE], 2.0)

    assert conflicts.settle(2 * PATIENCE) == []


def test_one_that_has_just_had_the_address_is_no_conflict():
    conflicts = Conflicts()
    conflicts.hold([PLACE], 0.0)
    conflicts.hear(PLACE, MAC, SETTLED - 0.1)

    assert conflicts.settle(2 * PATIENCE) == []


def test_claim_of_an_address_that_is_not_here_is_not_remembered():
    conflicts = Conflicts()
    conflicts.hear(PLACE, MAC, 0.0)
    conflicts.hold([PLACE], 1.0)

    assert conflicts.settle(2 * PATIENCE) == []


def test_conflict_is_told_once_and_is_over_when_no_more_is_heard(conflicts):
    told = []
    for second in range(600):
        conflicts.hear(PLACE, MAC, float(second))
        told += conflicts.settle(float(second))

    assert told == conflicts.current() == FOUND
    assert conflicts.settle(599 + REMEMBERED) == []
    assert conflicts.current() == []


def test_address_that_stays_here_has_its_conflict_go_on_whatever_else_comes(conflicts):
    conflicts.hear(PLACE, MAC, 0.0)
    conflicts.settle(PATIENCE)

    conflicts.hold([PLACE, ("eth1", VIP)], PATIENCE)

    assert conflicts.current() == FOUND


def test_flood_from_ever_other_hosts_is_one_conflict(conflicts):
    told = []
    for number in range(10_000):
        conflicts.hear(PLACE, (MAC if number == 0 else number.to_bytes(6, "big")), number / 100)
        told += conflicts.settle(number / 100)

    assert told == FOUND


@pytest.mark.parametrize(("address", "has_sysctls"), [("10.50.2.200", True), ("fd50:2::200", False)])
def test_sentence_names_the_host_and_what_to_do_there(address, has_sysctls):
    told = str(Conflict(ip_address(address), "eth0", MAC))

    assert told.startswith(
        f"{address} is here, but the host with the Ethernet address 02:00:00:00:00:02 on eth0 claims it too"
    )
    assert "remove the address from that host" in told
    assert ("arp_ignore" in told) is has_sysctls
