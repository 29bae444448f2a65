"""Which call is next: the rules of tenancies, without an etcd."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from peers.addresses import parse_prefix
from peers.stores.etcd.document import read_document
from peers.stores.etcd.layout import Keys, NodeValue, Reservation
from peers.stores.etcd.leases import Claimant, Tenancy
from peers.stores.etcd.members import read_members
from peers.stores.etcd.messages import KeyValue
from peers.stores.etcd.tenant import Grant, KeepAlive, Standing, Write
from peers.stores.membership import OwnKeys
from tests.peers.examples import key

KEYS = Keys("office")
DOCUMENT = read_document('[network]\nprefix = "10.244.0.0/20"\n', Path("config"))  # 15 subnets
ME = Claimant("paris", OwnKeys(key("paris")), "a" * 32, ("192.0.2.1",))


def node(name, subnet, instance="0" * 32, created=1, lease=0):
    value = NodeValue(name, key(name), (parse_prefix(subnet),), instance, ("192.0.2.1",))
    return KeyValue(KEYS.node(value.subnets[0]), value.build(), created, created, 1, lease)


class Etcd:
    """Apply the effects of a tenancy's calls to keys immediately."""

    def __init__(self, *kvs, reserved=()):
        self.kvs = {kv.key: kv for kv in kvs}
        self.reserved = [KeyValue(KEYS.reserved(each.subnet), each.build()) for each in reserved]
        self.revision, self.leases = 100, set()

    @property
    def members(self):
        return read_members(KEYS, [*self.kvs.values(), *self.reserved], DOCUMENT)

    def run(self, tenancy, now, most=10):
        """Make calls until there are no more; return them."""
        calls = []
        while (call := tenancy.next_call(self.members, DOCUMENT, now)) is not None:
            calls.append(call)
            assert len(calls) <= most, calls
            self.revision += 1
            match call:
                case Grant():
                    self.leases.add(self.revision)
                    tenancy.granted(self.revision, call.seconds, now)
                case KeepAlive():
                    tenancy.kept(60 if call.lease in self.leases else 0, now)
                case Write() if call.lease not in self.leases:
                    tenancy.kept(0, now)  # etcd refuses the write
                case Write():
                    there = self.kvs.get(call.key)
                    expected = all(self.kvs[name].modified == at for name, at in call.removed)
                    is_right = (there.modified if there else 0) == call.modified and expected
                    if is_right:
                        created = there.created if there else self.revision
                        self.kvs[call.key] = KeyValue(
                            call.key, call.value.build(), created, self.revision, 1, call.lease
                        )
                        for name, _ in call.removed:
                            del self.kvs[name]
                    tenancy.wrote(call.key, now, succeeded=is_right)
        return calls


def subnets(tenancy):
    return [str(subnet) for subnet in tenancy.subnets]


def test_new_host_has_a_lease_and_then_a_subnet():
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)

    grant, write = etcd.run(tenancy, 0.0)

    assert grant == Grant(60)
    assert (write.modified, write.lease) == (0, 101)
    assert subnets(tenancy) == ["10.244.1.0/24"]
    assert tenancy.standing is Standing.HELD


def test_subnet_that_a_host_had_comes_first_then_what_is_reserved_for_it():
    reserved = Reservation(parse_prefix("10.244.5.0/24"), "paris")
    had = (parse_prefix("10.244.9.0/24"),)
    etcd, tenancy = Etcd(reserved=[reserved]), Tenancy(KEYS, ME, had)
    etcd.run(tenancy, 0.0)
    assert subnets(tenancy) == ["10.244.9.0/24"]

    etcd, tenancy = Etcd(node("tokyo", "10.244.9.0/24"), reserved=[reserved]), Tenancy(KEYS, ME, had)
    etcd.run(tenancy, 0.0)
    assert subnets(tenancy) == ["10.244.5.0/24"]


def test_what_others_have_and_what_is_kept_for_others_is_not_taken():
    etcd = Etcd(
        node("tokyo", "10.244.1.0/24"), node("oslo", "10.244.2.128/25"), node("rome", "10.244.4.0/22"),
        reserved=[Reservation(parse_prefix("10.244.3.0/24"), None, key("x"))],
    )  # fmt: skip
    tenancy = Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)

    assert subnets(tenancy) == ["10.244.8.0/24"]


def test_keepalives_come_three_times_in_the_time_of_a_lease():
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    assert etcd.run(tenancy, 10.0) == []
    due = tenancy.next_deadline()
    assert 18.0 <= due <= 22.0
    assert etcd.run(tenancy, due) == [KeepAlive(101)]


def test_key_of_an_earlier_start_is_taken_over_as_it_was_seen():
    etcd, tenancy = Etcd(node("paris", "10.244.6.0/24", created=7)), Tenancy(KEYS, ME)
    _, write = etcd.run(tenancy, 0.0)

    assert (write.key, write.modified) == (KEYS / "nodes/10.244.6.0-24", 7)
    assert subnets(tenancy) == ["10.244.6.0/24"]


def test_of_several_earlier_keys_the_remembered_one_stays_and_the_others_go():
    etcd = Etcd(node("paris", "10.244.6.0/24"), node("paris", "10.244.7.0/24", created=2))
    tenancy = Tenancy(KEYS, ME, (parse_prefix("10.244.7.0/24"),))
    etcd.run(tenancy, 0.0)

    assert list(etcd.kvs) == [KEYS / "nodes/10.244.7.0-24"]
    assert subnets(tenancy) == ["10.244.7.0/24"]


def test_lease_that_is_gone_is_had_anew_for_the_same_key():
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    etcd.leases.clear()
    etcd.kvs.clear()

    calls = etcd.run(tenancy, 30.0)
    assert [type(call) for call in calls] == [Write, Grant, Write]
    assert subnets(tenancy) == ["10.244.1.0/24"]


def test_keepalive_without_a_lease_has_it_anew():
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    etcd.leases.clear()

    calls = etcd.run(tenancy, 30.0)

    assert [type(call) for call in calls] == [KeepAlive, Grant, Write]
    assert tenancy.standing is Standing.HELD


def test_subnet_of_another_is_lost_and_a_second_one_had():
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    etcd.kvs = {kv.key: kv for kv in [node("tokyo", "10.244.1.0/24")]}
    etcd.run(tenancy, 5.0)

    assert subnets(tenancy) == ["10.244.2.0/24"]
    assert [str(each) for each in tenancy.lost] == ["10.244.1.0/24"]
    assert tenancy.standing is Standing.HELD


def test_of_two_owners_the_later_moves():
    """As after a restored backup: an overlapping key that was created earlier."""
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    other = node("tokyo", "10.244.1.0/25", created=1)
    etcd.kvs[other.key] = other
    etcd.run(tenancy, 5.0)

    assert subnets(tenancy) == ["10.244.2.0/24"]
    assert [str(each) for each in tenancy.lost] == ["10.244.1.0/24"]
    assert set(etcd.kvs) == {other.key, KEYS / "nodes/10.244.2.0-24"}


def test_earlier_owner_stays():
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    other = node("tokyo", "10.244.1.0/25", created=999)
    etcd.kvs[other.key] = other

    assert etcd.run(tenancy, 5.0) == []
    assert subnets(tenancy) == ["10.244.1.0/24"]


def test_full_prefix_is_waited_for():
    kvs = [node(f"n{number}", f"10.244.{number}.0/24") for number in range(16)]
    etcd, tenancy = Etcd(*kvs), Tenancy(KEYS, ME)

    assert etcd.run(tenancy, 0.0) == []
    assert tenancy.standing is Standing.FULL
    assert tenancy.next_deadline() == math.inf
    del etcd.kvs[kvs[3].key]
    etcd.run(tenancy, 2.0)
    assert subnets(tenancy) == ["10.244.3.0/24"]


def test_write_in_vain_is_thought_over_after_a_moment():
    tenancy = Tenancy(KEYS, ME)
    tenancy.granted(7, 60, 0.0)
    empty = Etcd().members
    write = tenancy.next_call(empty, DOCUMENT, 0.0)
    tenancy.wrote(write.key, 0.0, succeeded=False)

    assert tenancy.next_call(empty, DOCUMENT, 0.5) is None
    assert isinstance(tenancy.next_call(empty, DOCUMENT, 1.0), Write)


def test_key_taken_back_soon_after_is_left_to_the_other():
    etcd, tenancy = Etcd(node("paris", "10.244.6.0/24")), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    back = node("paris", "10.244.6.0/24", "b" * 32, created=999)
    etcd.kvs[back.key] = back

    assert etcd.run(tenancy, 5.0) == []
    assert tenancy.standing is Standing.COPY
    assert tenancy.next_deadline() == math.inf
    etcd.kvs.clear()
    etcd.run(tenancy, 100.0)
    assert tenancy.standing is Standing.HELD


def test_key_that_was_held_for_long_is_taken_back():
    etcd, tenancy = Etcd(), Tenancy(KEYS, ME)
    etcd.run(tenancy, 0.0)
    taken = node("paris", "10.244.1.0/24", "b" * 32, created=999)
    etcd.kvs[taken.key] = taken
    etcd.run(tenancy, 100.0)

    assert NodeValue.parse("10.244.1.0-24", etcd.kvs[taken.key].value).instance == ME.instance
    assert tenancy.standing is Standing.HELD


EVENTS = st.lists(
    st.tuples(st.sampled_from(["run", "expire", "claim", "delete", "wait", "leave"]), st.integers(0, 2)),
    max_size=30,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_whatever_happens_hosts_end_with_a_subnet_each(events, chance):
    etcd, now = Etcd(), 0.0
    names = ("paris", "tokyo", "oslo")
    hosts = [
        Tenancy(KEYS, Claimant(name, OwnKeys(key(name)), f"{index}" * 32), chance=chance.randbytes)
        for index, name in enumerate(names)
    ]
    for what, which in events:
        now += 1.0
        if what == "run":
            etcd.run(hosts[which], now, most=20)
        elif what == "expire":
            lease = hosts[which].lease
            etcd.leases.discard(lease)
            etcd.kvs = {name: kv for name, kv in etcd.kvs.items() if kv.lease != lease}
        elif what == "claim" and hosts[which].subnets:
            stranger = node("stranger", str(hosts[which].subnets[0]), created=etcd.revision)
            etcd.kvs[stranger.key] = stranger
        elif what == "delete" and etcd.kvs:
            del etcd.kvs[chance.choice(sorted(etcd.kvs))]
        elif what == "leave":
            hosts[which].kept(0, now)
        else:
            now += 50.0
    for _ in range(3):
        now += 30.0
        for host in hosts:
            etcd.run(host, now, most=20)

    held = [subnet for host in hosts for subnet in host.subnets]
    assert len(set(held)) == 3
    assert {host.standing for host in hosts} == {Standing.HELD}
    accepted = {each.value.name: each.value.subnets for each in etcd.members.accepted}
    assert [accepted[name] for name in names] == [host.subnets for host in hosts]


def test_a_lease_of_a_day_is_kept_alive_every_minute():
    tenancy = Tenancy(KEYS, ME)
    tenancy.granted(7, 24 * 3600, 0.0)

    assert tenancy.renewal(53.0) is None
    assert tenancy.renewal(67.0) == KeepAlive(7)
