import itertools
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.prefixes import PrefixMap
from tests.models import SlowPrefixMap


def prefixes(version):
    """Prefixes that nest often: few address bits vary, lengths are all or the awkward ones."""
    width, kind = (32, IPv4Network) if version == 4 else (128, IPv6Network)
    lengths = st.sampled_from([0, 8, 10, 12, 16, 32] if version == 4 else [0, 4, 37, 75, 111, 128])
    numbers = st.builds(
        lambda high, low: (high << width - 4) | low, st.integers(0, 3), st.integers(0, 3)
    ) | st.integers(0, 2**width - 1)
    return st.builds(
        lambda number, length: kind((number >> width - length << width - length, length)),
        numbers,
        lengths | st.integers(0, width),
    )


PREFIXES = prefixes(4) | prefixes(6)
CHANGES = st.lists(st.tuples(st.sampled_from(["insert", "remove"]), PREFIXES, st.integers(0, 5)))


@given(CHANGES, PREFIXES)
def test_a_prefix_map_answers_as_its_slow_twin(changes, asked):
    fast, slow = PrefixMap(), SlowPrefixMap()
    for operation, prefix, value in changes:
        if operation == "insert":
            assert fast.insert(prefix, value) == slow.insert(prefix, value)
        elif prefix in slow.values:
            assert fast.remove(prefix) == slow.remove(prefix)
        else:
            with pytest.raises(KeyError):
                fast.remove(prefix)

    for prefix in (asked, *(change[1] for change in changes)):
        for address in (prefix.network_address, prefix.broadcast_address):
            assert fast.lookup(address) == slow.lookup(address)
            assert fast.match(address) == slow.match(address)
        assert list(fast.covering(prefix)) == slow.covering(prefix)
    assert len(fast) == len(slow)


@pytest.mark.parametrize(
    "nested",
    [
        ["0.0.0.0/0", "10.0.0.0/8", "10.64.0.0/10", "10.64.0.0/12", "10.64.0.0/16"],
        ["::/0", "f000::/4", "fd00:244:8::/37", "fd00:244:8:7:6:5::/75", "fd00:244:8:7:6:5:4:0/111"],
    ],
)
def test_the_longest_prefix_wins_in_every_order_of_insertion_and_removal(nested):
    nested = [ip_network(text, strict=False) for text in nested]
    inside = nested[-1].network_address
    for order in itertools.permutations(nested):
        prefixes = PrefixMap((prefix, str(prefix)) for prefix in order)

        for prefix in reversed(nested):
            assert prefixes.lookup(inside) == str(prefix)
            assert prefixes.remove(prefix) == str(prefix)
        assert prefixes.lookup(inside) is None


def test_families_do_not_mix():
    prefixes = PrefixMap([(ip_network("0.0.0.0/0"), "four")])

    assert prefixes.lookup(ip_address("::1")) is None
    assert prefixes.lookup(ip_address("0.0.0.1")) == "four"


def test_inserting_again_replaces_and_tells_what_it_replaced():
    prefixes = PrefixMap([(ip_network("10.0.0.0/8"), "paris")])

    assert prefixes.insert(ip_network("10.0.0.0/8"), "rome") == "paris"
    assert len(prefixes) == 1


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        ("10.1.0.0/16", True),
        ("10.1.2.0/24", True),
        ("10.0.0.0/8", False),
        ("10.2.0.0/24", False),
        ("fd00::/8", False),
    ],
)
def test_a_prefix_inside_another_is_found(inside, found):
    assert PrefixMap([(ip_network(inside), 1)]).has_inside(ip_network("10.1.0.0/16")) is found
