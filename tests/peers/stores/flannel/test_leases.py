from __future__ import annotations

import json
import math
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from peers.stores.etcd.tenant import Grant, KeepAlive, Standing, Write
from peers.stores.flannel.config import SECONDS, read_config
from peers.stores.flannel.lease import AgentData, Keys, Lease
from peers.stores.flannel.leases import FRESH, Claimant, Tenancy
from peers.stores.flannel.members import Members, Placed

KEYS = Keys("coreos.com/network")
CONFIG = read_config(json.dumps({"Network": "10.244.0.0/16"}).encode(), Path("config"))
PARIS = AgentData("paris", bytes([1] * 32), "1" * 32, 51820)
TOKYO = AgentData("tokyo", bytes([2] * 32), "2" * 32, 51820)
HERE, THERE = IPv4Address("192.0.2.10"), IPv4Address("192.0.2.11")


def placed(subnet, address=HERE, agent=None, modified=5, lease=7):
    network = IPv4Network(subnet)
    return Placed(KEYS.lease(network), network, Lease(address, "udp", agent=agent), modified, modified, lease)


def members(*leases):
    return Members(leases, leases)


def tenancy(had=(), agent=PARIS, chance=bytes):
    return Tenancy(KEYS, Claimant(agent, HERE), tuple(map(IPv4Network, had)), chance)


def held(subnet="10.244.7.0/24", now=0.0):
    """Return a tenancy that has a subnet, and how etcd has it."""
    one = tenancy([subnet])
    one.granted(7, SECONDS, now)
    one.wrote(KEYS.lease(IPv4Network(subnet)), now, succeeded=True)
    there = placed(subnet, agent=PARIS)
    assert one.next_call(members(there), CONFIG, now) is None
    return one, there


def test_the_first_call_is_for_a_lease_of_a_day_and_the_next_makes_the_key():
    one = tenancy()

    assert one.next_call(members(), CONFIG, 0.0) == Grant(24 * 3600)
    one.granted(7, SECONDS, 0.0)
    call = one.next_call(members(), CONFIG, 0.0)

    assert isinstance(call, Write)
    assert (call.key, call.lease, call.modified) == (KEYS.lease(IPv4Network("10.244.1.0/24")), 7, 0)
    assert one.standing is Standing.NOT_YET


def test_one_of_the_first_hundred_free_subnets_is_taken_by_chance():
    one = tenancy(chance=lambda size: bytes([0] * (size - 1) + [99]))
    one.granted(7, SECONDS, 0.0)

    call = one.next_call(members(placed("10.244.1.0/24", THERE), placed("10.244.2.0/25", THERE)), CONFIG, 0.0)

    assert call.key == KEYS.lease(IPv4Network("10.244.102.0/24"))


@pytest.mark.parametrize("had", ["10.244.0.0/24", "10.245.7.0/24", "10.244.7.0/25"])
def test_a_subnet_that_does_not_fit_any_more_is_not_taken_again(had):
    one = tenancy([had])
    one.granted(7, SECONDS, 0.0)

    assert one.next_call(members(), CONFIG, 0.0).key == KEYS.lease(IPv4Network("10.244.1.0/24"))


def test_a_lease_of_this_address_is_taken_over_as_it_was_seen():
    one = tenancy()
    one.granted(9, SECONDS, 0.0)

    call = one.next_call(members(placed("10.244.7.0/24", modified=42)), CONFIG, 0.0)

    assert (call.key, call.lease, call.modified) == (KEYS.lease(IPv4Network("10.244.7.0/24")), 9, 42)
    assert call.value == Lease(HERE, "udp", agent=PARIS)


def test_a_reservation_of_this_address_stays_one():
    one = tenancy()

    call = one.next_call(members(placed("10.244.7.0/24", lease=0)), CONFIG, 0.0)
    assert (call.lease, call.modified) == (0, 5)
    one.wrote(call.key, 0.0, succeeded=True)

    assert one.next_call(members(placed("10.244.7.0/24", agent=PARIS, lease=0)), CONFIG, 0.0) is None
    assert one.standing is Standing.HELD


def test_a_lease_is_kept_alive_every_minute_and_not_written():
    one, there = held()

    assert one.next_call(members(there), CONFIG, 53.0) is None
    assert one.next_call(members(there), CONFIG, 67.0) == KeepAlive(7)
    assert one.next_deadline() <= 67.0


def test_a_lease_of_ours_that_does_not_count_is_given_up_for_another():
    one, there = held()
    other = placed("10.244.7.0/25", THERE, modified=2)

    call = one.next_call(Members((other, there), (other,)), CONFIG, 1.0)

    assert call.key != there.key
    assert call.removed == ((there.key, there.modified),)
    assert one.lost == (there.subnet,)


def test_a_lease_that_ended_is_granted_anew_and_the_key_hangs_on_it():
    one, there = held()
    one.kept(0, 100.0)
    assert one.next_call(members(there), CONFIG, 100.0) == Grant(SECONDS)
    one.granted(8, SECONDS, 100.0)

    call = one.next_call(members(there), CONFIG, 100.0)

    assert (call.lease, call.modified) == (8, there.modified)


def test_what_flanneld_writes_over_a_lease_that_is_held_long_is_taken_back():
    one, there = held()
    over = replace(there, value=Lease(HERE, "udp"), modified=9)

    call = one.next_call(members(over), CONFIG, FRESH + 1)

    assert (call.key, call.modified) == (there.key, 9)


def test_who_finds_its_fresh_key_taken_back_lets_it_be_until_the_other_leaves():
    one, there = held()
    taken = replace(there, value=Lease(HERE, "udp", agent=TOKYO), modified=9)

    assert one.next_call(members(taken), CONFIG, FRESH - 1) is None
    assert one.standing is Standing.COPY
    assert one.next_call(members(taken), CONFIG, FRESH + 1000) is None
    assert one.next_call(members(), CONFIG, FRESH + 1001).key == there.key


def test_a_subnet_that_another_address_has_is_lost():
    one, there = held()
    call = one.next_call(members(placed("10.244.7.0/24", THERE, modified=9)), CONFIG, 1.0)

    assert one.lost == (IPv4Network("10.244.7.0/24"),)
    assert one.subnets == ()
    assert call.key != there.key


def test_nothing_is_claimed_before_the_address_is_known():
    one = Tenancy(KEYS, Claimant(PARIS))

    assert one.next_call(members(), CONFIG, 0.0) is None


def test_a_call_in_vain_is_made_again_after_a_pause():
    one = tenancy()
    one.failed(10.0)

    assert one.next_call(members(), CONFIG, 10.5) is None
    assert one.next_call(members(), CONFIG, 11.0) == Grant(SECONDS)


def test_a_host_for_which_nothing_is_free_waits_for_a_change():
    one = tenancy()
    everything = [placed(str(subnet), THERE) for subnet in CONFIG.subnets()]

    assert one.next_call(members(*everything), CONFIG, 0.0) is None
    assert one.standing is Standing.FULL
    assert one.next_deadline() == math.inf
    assert one.next_call(members(*everything[1:]), CONFIG, 0.0) == Grant(SECONDS)
