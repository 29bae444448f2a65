from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.containers.addresses import AddressError, Addresses, FullError, Holder, is_reserved

SUBNET = ip_network("10.244.1.0/24")
SUBNET6 = ip_network("fd00:244:1::/64")


def holder(name="web"):
    return Holder("overlay", name, "eth0")


def addresses_of(text):
    return tuple(map(ip_address, text.split()))


def test_container_gets_an_address_of_each_version_ipv4_first():
    assert Addresses().allocate(holder(), [SUBNET6, SUBNET]) == addresses_of("10.244.1.2 fd00:244:1::2")


def test_addresses_of_the_network_a_gateway_and_broadcast_are_not_given_out():
    subnet = ip_network("10.244.1.0/29")
    addresses = Addresses()

    given_out = [addresses.allocate(holder(str(n)), [subnet])[0] for n in range(5)]

    assert given_out == list(addresses_of("10.244.1.2 10.244.1.3 10.244.1.4 10.244.1.5 10.244.1.6"))
    with pytest.raises(FullError, match=r"no address of 10\.244\.1\.0/29 is free"):
        addresses.allocate(holder("late"), [subnet])


@pytest.mark.parametrize(
    ("subnet", "count"),
    [("10.0.0.8/32", 1), ("10.0.0.8/31", 2), ("10.0.0.8/30", 1), ("fd00::/128", 1), ("fd00::/127", 2), ("fd00::/126", 2)],
)  # fmt: skip
def test_small_subnets_have_as_many_addresses_as_their_kind_leaves(subnet, count):
    addresses = Addresses()

    for number in range(count):
        addresses.allocate(holder(str(number)), [ip_network(subnet)])

    with pytest.raises(FullError):
        addresses.allocate(holder("late"), [ip_network(subnet)])


def test_address_that_was_given_back_comes_last():
    subnet, addresses = ip_network("10.244.1.0/29"), Addresses()
    (first,) = addresses.allocate(holder("first"), [subnet])
    addresses.release(holder("first"))

    later = [addresses.allocate(holder(str(n)), [subnet])[0] for n in range(5)]

    assert later[-1] == first


def test_second_subnet_is_used_when_the_first_is_full():
    small, large = ip_network("10.0.0.0/32"), ip_network("10.0.1.0/24")
    addresses = Addresses()

    assert addresses.allocate(holder("a"), [small, large]) == addresses_of("10.0.0.0")
    assert addresses.allocate(holder("b"), [small, large]) == addresses_of("10.0.1.2")


def test_where_one_version_is_full_nothing_is_given_out():
    full = ip_network("fd00::/128")
    addresses = Addresses({ip_address("fd00::"): holder("other")})

    with pytest.raises(FullError, match="fd00::/128"):
        addresses.allocate(holder(), [SUBNET, full])

    assert addresses.held_by(holder()) == ()
    assert addresses.allocate(holder(), [SUBNET]) == addresses_of("10.244.1.2")


def test_address_that_is_asked_for_is_given_to_one_alone():
    addresses = Addresses()
    addresses.claim(holder("a"), addresses_of("10.244.1.9"), [SUBNET])
    addresses.claim(holder("a"), addresses_of("10.244.1.9"), [SUBNET])

    with pytest.raises(AddressError, match=r"10\.244\.1\.9 belongs to eth0 of a in overlay"):
        addresses.claim(holder("b"), addresses_of("10.244.1.8 10.244.1.9"), [SUBNET])

    assert addresses.held_by(holder("b")) == ()


@pytest.mark.parametrize("wrong", ["10.244.1.0", "10.244.1.1", "10.244.1.255", "10.244.1.77"])
def test_address_that_is_not_for_containers_cannot_be_asked_for(wrong):
    with pytest.raises(AddressError, match="not for containers"):
        Addresses().claim(holder(), addresses_of(wrong), [SUBNET], kept=addresses_of("10.244.1.77"))


def test_address_outside_of_the_subnets_is_refused_with_their_names():
    with pytest.raises(AddressError, match=r"10\.9\.9\.9 is not in 10\.244\.1\.0/24 or fd00:244:1::/64"):
        Addresses().claim(holder(), addresses_of("10.9.9.9"), [SUBNET, SUBNET6])


@pytest.mark.parametrize(
    "names",
    [
        ("", "c", "eth0"), ("n", "", "eth0"), ("n", "../../etc", "eth0"), ("n", "-c", "eth0"), ("n\n", "c", "eth0"),
        (None, "c", "eth0"), ("n", 7, "eth0"), ("n", "c" * 257, "eth0"), ("n", "c", ""), ("n", "c", "."), ("n", "c", ".."),
        ("n", "c", "a/b"), ("n", "c", "a:b"), ("n", "c", "a b"), ("n", "c", "a" * 16), ("n", "c", "\x00"), ("n", "c", "é" * 8),
        ("n", "c", "a\x1b"), ("n", "c", "eth%d"), ("n", "c", None),
    ],
)  # fmt: skip
def test_names_that_could_be_paths_or_no_interface_are_refused(names):
    with pytest.raises(ValueError, match=r"is not a name of an? (network|container|interface)"):
        Holder.parse(*names)


@given(st.tuples(*[st.one_of(st.text(), st.none(), st.integers(), st.binary())] * 3))
def test_whatever_a_runtime_says_is_a_holder_or_a_value_error(names):
    try:
        found = Holder.parse(*names)
    except ValueError:
        return
    assert (found.network, found.container, found.interface) == names


class Model(RuleBasedStateMachine):
    """Addresses compared with the obvious: a dictionary, and a list of all addresses that may be assigned."""

    SUBNETS = (ip_network("10.0.0.0/29"), ip_network("fd00::/126"))
    KEPT = frozenset({ip_address("10.0.0.3")})
    HOLDERS = st.sampled_from([holder(name) for name in "abcdef"])

    def __init__(self):
        super().__init__()
        self.addresses = Addresses()
        self.model = {}

    def free(self, subnet):
        return [
            each
            for each in subnet
            if each not in self.model and each not in self.KEPT and not is_reserved(each, subnet)
        ]

    @rule(who=HOLDERS)
    def allocate(self, who):
        free = [self.free(subnet) for subnet in self.SUBNETS]
        try:
            found = self.addresses.allocate(who, self.SUBNETS, self.KEPT)
        except FullError:
            assert not all(free)
        else:
            assert all(each in among for each, among in zip(found, free, strict=True))
            self.model.update(dict.fromkeys(found, who))

    @rule(who=HOLDERS, number=st.integers(0, 7))
    def claim(self, who, number):
        address = self.SUBNETS[0][number]
        is_possible = address in self.free(self.SUBNETS[0]) or self.model.get(address) == who
        try:
            self.addresses.claim(who, [address], self.SUBNETS, self.KEPT)
        except AddressError:
            assert not is_possible
        else:
            assert is_possible
            self.model[address] = who

    @rule(who=HOLDERS)
    def release(self, who):
        former = self.addresses.release(who)
        assert set(former) == {each for each, other in self.model.items() if other == who}
        self.model = {each: other for each, other in self.model.items() if other != who}

    @invariant()
    def is_as_the_model(self):
        assert self.addresses.taken == self.model


TestModel = Model.TestCase
