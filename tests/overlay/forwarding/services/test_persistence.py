from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services.persistence import Templates, network_of

CLIENT = ip_address("198.51.100.7").packed


def made():
    templates = Templates(1000, 300.0)
    templates.make_room(4)
    return templates


def sweep(templates, now):
    while templates.sweep(now):
        pass


@pytest.mark.parametrize("bits", [32, 128])
@given(st.data())
def test_a_network_is_the_first_bits_of_an_address(bits, data):
    number, length = data.draw(st.integers(0, 2**bits - 1)), data.draw(st.integers(0, bits))
    packed = number.to_bytes(bits // 8, "big")

    expected = ip_network((packed, length), strict=False).network_address.packed

    assert network_of(packed, length) == expected


def test_a_client_keeps_its_server_for_the_time_of_persistence_after_its_last_new_flow():
    templates = made()
    templates.began(CLIENT, 2, 0.0, is_counted=False)
    templates.began(CLIENT, 2, 100.0, is_counted=False)

    assert templates.server(CLIENT, 400.0) == 2
    assert templates.server(CLIENT, 400.1) is None
    sweep(templates, 400.1)
    assert len(templates) == 0
    assert templates.loads.active == [0] * 4


def test_a_template_stays_while_flows_of_its_client_are_there():
    templates = made()
    templates.began(CLIENT, 2, 0.0)
    templates.began(CLIENT, 2, 0.0)
    templates.ended(CLIENT)

    for now in range(0, 2000, 10):
        sweep(templates, float(now))
        assert templates.server(CLIENT, float(now)) == 2
    templates.ended(CLIENT)
    sweep(templates, 2000.0)

    assert templates.server(CLIENT, 2000.0) == 2
    sweep(templates, 2060.1)
    assert len(templates) == 0


def test_a_client_has_one_server_at_a_time():
    templates = made()
    templates.began(CLIENT, 2, 0.0)
    templates.began(CLIENT, 1, 1.0)

    assert templates.server(CLIENT, 1.0) == 1
    assert templates.loads.active == [0, 1, 0, 0]


def test_an_end_too_many_changes_nothing():
    templates = made()
    templates.ended(CLIENT)
    templates.began(CLIENT, 2, 0.0)

    assert templates.server(CLIENT, 1000.0) == 2


def test_clients_that_came_last_long_ago_make_room_for_others():
    templates = Templates(64, 300.0)
    templates.make_room(1)

    for number in range(100):
        templates.began(number.to_bytes(4, "big"), 0, float(number))

    assert len(templates) == 64
    known = [templates.server(number.to_bytes(4, "big"), 100.0) for number in range(100)]
    assert known == [None] * 36 + [0] * 64


def test_an_end_too_many_is_the_end_of_no_other_flow():
    templates = made()
    templates.began(CLIENT, 2, 0.0)
    templates.ended(CLIENT)
    templates.ended(CLIENT)

    assert templates.server(CLIENT, 300.1) is None


@pytest.mark.parametrize("was_learnt", [False, True])
@pytest.mark.parametrize(("seen", "server"), [(9.0, 1), (10.0, 1), (11.0, 1), (9.0, 2), (10.0, 2), (11.0, 2)])
def test_of_what_two_directors_say_of_a_client_the_newer_holds(was_learnt, seen, server):
    templates = made()
    if was_learnt:
        templates.learn(CLIENT, 2, 10.0, is_counted=False)
    else:
        templates.began(CLIENT, 2, 10.0, is_counted=False)

    templates.learn(CLIENT, server, seen, is_counted=False)

    expected = server if was_learnt or seen >= 10.0 else 2
    assert templates.server(CLIENT, 310.0) == expected
    assert [count for count in templates.loads.active if count] == [1]
    assert templates.loads.active[expected] == 1
    shard, row = templates.find(CLIENT)
    assert shard.seen[row] == max(seen, 10.0)
    assert shard.is_learnt(row)


def test_a_client_of_another_director_that_is_not_known_begins_with_what_that_saw():
    templates = made()
    templates.learn(CLIENT, 2, 10.0, is_counted=False)

    assert templates.server(CLIENT, 310.0) == 2
    assert templates.server(CLIENT, 310.1) is None


@pytest.mark.parametrize("count", [1, 2])
def test_flows_of_another_director_keep_their_client_as_own_ones_do(count):
    templates = made()
    for _ in range(count):
        templates.learn(CLIENT, 2, 10.0, is_counted=True)
    for _ in range(count):
        assert templates.server(CLIENT, 1000.0) == 2
        templates.ended(CLIENT)

    assert templates.server(CLIENT, 1000.0) is None


def test_a_full_table_of_clients_with_flows_is_no_error_for_one_more():
    templates = Templates(1, 300.0)
    templates.make_room(1)
    for number in range(3):
        templates.learn(bytes([number]), 0, 10.0 - number, is_counted=True)

    assert len(templates) == 1


def test_a_template_whose_time_is_over_is_kept_for_a_minute_while_its_client_has_flows():
    templates = made()
    templates.began(CLIENT, 2, 0.0)
    sweep(templates, 300.1)
    templates.ended(CLIENT)

    assert templates.server(CLIENT, 360.1) == 2
    assert templates.server(CLIENT, 360.2) is None
