from __future__ import annotations

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.services.selection import Selection, version_of
from overlay.forwarding.services.server import Server, ServerSettings, Takes
from overlay.forwarding.services.settings import ServiceSettings
from overlay.services.schedulers import SCHEDULERS, Hashed, Loads

VIP = bytes([192, 0, 2, 100])
CLIENT = bytes([198, 51, 100, 7])
CLIENT6 = bytes(15) + b"\7"


def server(index, **more):
    return Server(index, ServerSettings(index, f"web{index}:0", LivePeer(index + 1), **more))


def made(*servers, sorry=None, is_sorry=False, elsewhere=(), **settings):
    places = [*servers, *([] if sorry is None else [sorry])]
    selection = Selection(places, ServiceSettings(**settings))
    selection.set_servers(servers, sorry, is_sorry=is_sorry, elsewhere=elsewhere)
    selection.update()
    for scheduler in selection.schedulers():
        while scheduler.prepare():
            pass
    return selection


@pytest.mark.parametrize("name", SCHEDULERS)
def test_flow_gets_the_only_server_that_takes_new_ones(name):
    drained, open_ = server(0, takes=Takes.KEPT), server(1)
    selection = made(drained, open_, scheduler=name)

    assert selection.choose(CLIENT, b"\0\1", VIP, Loads([0, 0], [0, 0])) is open_


def test_server_that_takes_no_flows_of_one_ip_version_takes_those_of_the_other():
    only_v4 = server(0, apart=((6, Takes.NOTHING),))
    selection = made(only_v4)

    assert selection.choose(CLIENT, b"\0\1", VIP, Loads()) is only_v4
    assert selection.choose(CLIENT6, b"\0\1", VIP, Loads()) is None


def test_sorry_server_gets_all_new_flows_once_they_are_its():
    sorry = server(1)
    selection = made(server(0), sorry=sorry, is_sorry=True)

    assert selection.leads_to_sorry
    assert selection.choose(CLIENT, b"\0\1", VIP, Loads()) is sorry


def test_flow_is_astray_where_another_director_would_lead_it_elsewhere():
    first, second = server(0), server(1)
    alone = made(first, second)
    beside = made(first, second, elsewhere=[(0, [0, 1])])  # the first to see it down
    chosen = alone.choose(CLIENT, b"\0\1", VIP, Loads())

    assert not alone.is_astray(CLIENT, b"\0\1", VIP, chosen)
    assert beside.is_astray(CLIENT, b"\0\1", VIP, first)
    assert beside.is_astray(CLIENT, b"\0\1", VIP, second) == (chosen is first)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_flow_is_news_where_the_choice_is_no_function_of_it(name):
    assert made(server(0), scheduler=name).needs_every_flow == (SCHEDULERS[name].hashed is Hashed.NOTHING)
    assert made(server(0, upper=1), scheduler=name).needs_every_flow


def test_addresses_tell_their_ip_version():
    assert (version_of(CLIENT), version_of(CLIENT6)) == (4, 6)
