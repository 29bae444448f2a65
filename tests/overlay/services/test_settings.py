from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from overlay.services.health import ByHand
from overlay.services.settings import MOST_STAMP, Settings, entry_of
from overlay.wire.service_control import SettingRow
from peers.service import Check, Server, Service

GROUP = ("lb1", "lb2")
WEB = Service("web", (), directors=GROUP, servers=(Server("web1", "web1"), Server("web2", "web2")))
DRAINED, ENABLED = ByHand(is_drained=True), ByHand()
ENTRY = entry_of(WEB, WEB.servers[0])


def settings(service=WEB):
    made = Settings()
    made.adopt([service])
    return made


def held(made):
    return {key: by_hand for _, key, by_hand in made.by_hand()}


def test_what_is_set_last_holds_whatever_the_clock_says():
    made = settings()
    made.set(ENTRY, DRAINED, 5000)
    made.set(ENTRY, ByHand(7), 100)

    assert held(made) == {"web1:0": ByHand(7)}
    assert [row.stamp for row in made.rows(GROUP)] == [5001]


def test_setting_that_is_taken_back_stays_so_when_an_older_one_arrives():
    one, two = settings(), settings()
    two.hear(GROUP, [one.set(ENTRY, DRAINED, 1)])
    one.hear(GROUP, [two.set(ENTRY, ENABLED, 1)])
    one.hear(GROUP, [SettingRow(ENTRY, 1, None, True, False)])

    assert held(one) == held(two) == {"web1:0": ENABLED}
    assert one.digest(GROUP) == two.digest(GROUP) != 0


rows = st.builds(
    SettingRow,
    st.sampled_from([ENTRY, entry_of(WEB, WEB.servers[1])]),
    st.integers(0, 3),
    st.none() | st.integers(0, 3),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(rows, max_size=6), st.randoms(use_true_random=False))
def test_directors_agree_in_whatever_order_they_hear(told, random):
    one, two = settings(), settings()
    one.hear(GROUP, told)
    random.shuffle(told)
    two.hear(GROUP, itertools.chain(told, told))

    assert held(one) == held(two)
    assert one.digest(GROUP) == two.digest(GROUP)


def test_setting_is_forgotten_if_the_file_changes_that_server_and_cannot_come_back():
    one = settings()
    row = one.set(ENTRY, DRAINED, 1)
    one.adopt([replace(WEB, servers=(replace(WEB.servers[0], weight=3), WEB.servers[1]))])

    assert not one.hear(GROUP, [row])
    assert held(one) == {}
    assert one.digest(GROUP) == 0


def test_setting_stays_where_the_file_changes_other_things():
    one = settings()
    one.set(ENTRY, DRAINED, 1)
    one.adopt([replace(WEB, quorum=2, servers=(*WEB.servers, Server("web3", "web3")))])

    assert held(one) == {"web1:0": DRAINED}


def test_setting_is_one_of_a_service_with_these_directors():
    one = settings()

    assert not one.hear(("lb1", "lb3"), [SettingRow(ENTRY, 1, None, True, False)])
    assert not one.hear(GROUP, [SettingRow(ENTRY, MOST_STAMP + 1, None, True, False)])
    assert not one.hear(GROUP, [SettingRow(99, 1, None, True, False)])
    assert held(one) == {}


def test_a_stamp_that_cannot_be_beaten_is_equalled():
    one = settings()
    one.hear(GROUP, [SettingRow(ENTRY, MOST_STAMP, None, True, False)])

    assert one.set(ENTRY, ENABLED, 5).stamp == MOST_STAMP


def test_server_is_the_same_at_hosts_that_have_the_file_in_other_places():
    def web(directory):
        check = Check("https", ca_file=Path(directory, "ca.pem"))
        return replace(WEB, servers=(replace(WEB.servers[0], checks=(check,)),))

    one, two = web("/etc/overlay"), web("/root")

    assert entry_of(one, one.servers[0]) == entry_of(two, two.servers[0])
    assert entry_of(one, one.servers[0]) != entry_of(WEB, WEB.servers[0])
