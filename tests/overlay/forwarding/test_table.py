from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding import table as table_module
from overlay.forwarding.table import Prefixes, RouteTable
from tests.hypothesis_profiles import examples
from tests.models import SlowPrefixMap


def change(prefix, value):
    network = ip_network(prefix, strict=False)
    return network.network_address.packed, network.prefixlen, value


def packed(address):
    return ip_address(address).packed


# Few addresses, so that prefixes overlap.
addresses = st.integers(0, 63).map(lambda n: ip_address(0x0A000000 + n)) | st.integers(0, 63).map(
    lambda n: ip_address((0xFD << 120) + n)
)


@st.composite
def changes(draw):
    address = draw(addresses)
    longest = address.max_prefixlen
    length = draw(st.integers(0, longest) | st.integers(longest - 6, longest))
    return ip_network(f"{address}/{length}", strict=False), draw(st.none() | st.integers(1, 5))


@examples(200)
@given(
    st.lists(st.lists(st.lists(changes(), max_size=8), min_size=1, max_size=3), max_size=4),
    st.lists(addresses, min_size=5, max_size=20),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_a_table_does_what_its_twin_does(rounds, asked, catches_up):
    table, twin, pauses = RouteTable(), SlowPrefixMap(), iter(catches_up * 10)
    for pieces in rounds:
        for piece in pieces:
            table.stage(change(*each) for each in piece)
            assert [table.find(each.packed) for each in asked] == [twin.lookup(each) for each in asked]
        for prefix, value in (each for piece in pieces for each in piece):
            if value is None:
                twin.values.pop(prefix, None)
            else:
                twin.insert(prefix, value)
        table.commit()
        if next(pauses):
            table.catch_up()
        assert [table.find(each.packed) for each in asked] == [twin.lookup(each) for each in asked]


def test_a_change_is_not_seen_before_it_is_committed():
    table = RouteTable()
    table.stage([change("10.0.0.0/8", "old")])
    table.commit()
    table.stage([change("10.1.0.0/16", "new")])
    table.stage([change("10.0.0.0/8", None)])
    before = [table.find(packed(each)) for each in ("10.1.2.3", "10.2.3.4")]

    table.commit()

    assert before == ["old", "old"]
    assert [table.find(packed(each)) for each in ("10.1.2.3", "10.2.3.4")] == ["new", None]


def test_what_was_remembered_is_forgotten_at_a_commit():
    table = RouteTable()
    assert table.find(packed("10.1.2.3")) is None
    table.stage([change("10.0.0.0/8", "peer")])
    assert table.remembered == {packed("10.1.2.3"): None}

    table.commit()

    assert table.remembered == {}


def test_catching_up_takes_one_piece_at_a_time():
    table = RouteTable()
    for number in range(3):
        table.stage([change(f"10.{number}.0.0/16", number)])
    table.commit()

    assert [table.catch_up() for _ in range(4)] == [True, True, False, False]


def test_the_longest_prefix_wins_and_families_are_apart():
    table = RouteTable()
    table.stage([change("0.0.0.0/0", "all"), change("10.0.0.0/8", "ten"), change("10.1.2.3/32", "one")])
    table.stage([change("::/0", "all six"), change("fd00::/8", "fd"), change("fd00::1/128", "one six")])
    table.commit()

    asked = ("10.1.2.3", "10.1.2.4", "192.0.2.1", "fd00::1", "fd00::2", "2001:db8::1")

    assert [table.find(packed(each)) for each in asked] == ["one", "ten", "all", "one six", "fd", "all six"]


def test_removing_what_is_not_there_is_no_matter():
    table = RouteTable()
    table.stage([change("10.0.0.0/8", None), change("10.0.0.0/9", "peer"), change("10.128.0.0/9", None)])
    table.commit()

    assert table.find(packed("10.0.0.1")) == "peer"


def test_a_scan_of_addresses_only_empties_the_memory(monkeypatch):
    monkeypatch.setattr(table_module, "REMEMBERED", 100)
    table = RouteTable()
    table.stage([change("10.0.0.0/8", "peer")])
    table.commit()

    assert all(table.find(packed(f"10.0.{n // 256}.{n % 256}")) == "peer" for n in range(1000))
    assert len(table.remembered) <= 100


@examples(200)
@given(st.lists(changes(), max_size=10), addresses)
def test_length_is_that_of_the_longest_prefix_that_holds_an_address(pieces, asked):
    table, prefixes = RouteTable(), {prefix for prefix, value in pieces if value is not None}
    table.stage(change(prefix, 1) for prefix in prefixes)
    table.commit()

    assert table.length(asked.packed) == max(
        (each.prefixlen for each in prefixes if each.version == asked.version and asked in each), default=-1
    )


def test_bounds_are_those_of_the_time_when_they_are_asked_for():
    table = Prefixes()
    table.insert(bytes([10, 0, 0, 0]), 8, "ten")
    table.insert(bytes([255, 0, 0, 0]), 8, "last")

    bounds = table.bounds(4)
    table.insert(bytes([11, 0, 0, 0]), 8, "eleven")

    assert sorted(bounds) == [10 << 24, 11 << 24, 255 << 24]
