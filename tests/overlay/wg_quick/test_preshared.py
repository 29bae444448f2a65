"""Preshared keys of pairs become key files of peers."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from overlay.wg_quick.preshared import assign, misfits

NAMES = "abcdef"


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([b"1", b"2", b"3"])))
def test_what_one_peer_or_no_peer_of_each_pair_names_is_found_again(named):
    """If the hub and each spoke share a key, or all pairs of some do, an equivalent file is found."""
    hub, spokes = NAMES[0], NAMES[1:]
    wanted = {(hub, spoke): named.get(spoke) for spoke in spokes}

    assert not list(misfits(wanted, assign(wanted)))


def test_one_key_for_all_pairs_is_found():
    wanted = dict.fromkeys(combinations(NAMES, 2), b"1")

    assert not list(misfits(wanted, assign(wanted)))


def test_key_of_the_first_with_everyone_is_found():
    wanted = {(a, b): b"1" if a == "a" else None for a, b in combinations(NAMES, 2)}

    assert not list(misfits(wanted, assign(wanted)))


@given(st.dictionaries(st.sampled_from(list(combinations(NAMES, 2))), st.sampled_from([None, b"1", b"2"])))
def test_pairs_that_get_another_key_are_told(wanted):
    keys = assign(wanted)

    told = set(misfits(wanted, keys))

    for pair, key in wanted.items():
        effective = keys.get(pair[0]) or keys.get(pair[1])
        assert (effective != key) == (pair in told)
