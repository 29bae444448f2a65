"""Directors that synchronize flows, over a network in memory: whoever takes over continues them."""

from __future__ import annotations

import zlib
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services import sync as module
from overlay.forwarding.services.server import Takes
from overlay.forwarding.services.settings import ServiceSettings
from overlay.forwarding.services.sync import CLIENT, MESSAGES, REFRESH, TICK
from overlay.services.states import State
from overlay.wire import control
from overlay.wire.service_control import FlowsTold, SyncedFlow, most_flows
from tests.overlay.forwarding.services.conftest import CLIENTS, VIPS, WEB, tcp, udp
from tests.overlay.forwarding.services.directors import PORTS, PROTOCOLS, Directors
from tests.packets import ACK, FIN, RST, SYN

NAME, NOBODY = zlib.crc32(b"web"), zlib.crc32(b"nobody")


@pytest.mark.parametrize("scheduler", ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"])
@pytest.mark.parametrize("version", [4, 6])
def test_next_director_goes_on_with_connections_and_datagrams(scheduler, version):
    directors = Directors(scheduler)
    one, two = directors.all
    two.send(tcp(9, 9, SYN), directors.now)
    flows = directors.connect(0, *range(1000, 1100), version=version)
    datagrams = {port: one.send(udp(port=port, version=version), directors.now) for port in range(1000, 1010)}
    assert datagrams == {port: one.send(udp(port=port, version=version), directors.now) for port in datagrams}

    directors.run(TICK)

    now = directors.now
    assert {port: two.send(tcp(port=port, version=version), now) for port in flows} == flows
    assert {port: two.send(udp(port=port, version=version), now) for port in datagrams} == datagrams


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "settings"),
    [(udp, {"udp": 20.0}), (tcp, {"tcp": 20.0}), (udp, {"udp": 300.0}), (tcp, {"tcp": 900.0})],
)
def test_flow_that_goes_on_is_told_again_before_others_forget_it(build, settings):
    directors = Directors("rr", **settings)
    one, two = directors.all
    if build is tcp:
        one.send(tcp(flags=SYN), directors.now)
    chosen = {one.send(build(), directors.now) for _ in range(2)}
    for _ in range(100):
        directors.run(9.0)
        chosen.add(one.send(build(), directors.now))
        directors.sweep()

    for port in range(2000, 2002):  # another would be next
        two.send(build(port=port) if build is udp else tcp(port=port, flags=SYN), directors.now)

    assert {two.send(build(), directors.now)} == chosen


def test_client_that_keeps_its_server_is_told_again_before_others_forget_it():
    directors = Directors("rr", persistence=20.0)
    two = directors.all[1]
    chosen = {directors.connect(0, port)[port] for port in (1000, 1001)}
    for port in range(1002, 1030):
        directors.run(9.0)
        chosen |= set(directors.connect(0, port).values())
        directors.sweep()

    two.send(tcp(client=9, flags=SYN), directors.now)
    assert {two.send(tcp(port=3000, flags=SYN), directors.now)} == chosen


@pytest.mark.parametrize("scheduler", ["maglev", "sh", "dh"])
def test_what_a_scheduler_finds_itself_is_told_to_nobody(scheduler):
    directors = Directors(scheduler)
    directors.connect(0, 1000)
    directors.run(2 * REFRESH)

    assert directors.told == []


def test_flows_that_nothing_has_proven_are_told_to_nobody():
    directors = Directors()
    for port in range(1000, 1500):
        directors.all[0].send(tcp(port=port, flags=SYN), directors.now)
        directors.all[0].send(udp(port=port), directors.now)
    directors.run(2 * REFRESH)

    assert directors.rows() == []


def test_end_of_a_connection_is_told_and_one_that_began_and_ended_at_once_is_not():
    directors = Directors()
    one, two = directors.all
    directors.connect(0, 1000)
    directors.run(TICK)
    assert two.count(one.send(tcp(port=1000), directors.now)).active == 1
    directors.connect(0, 2000)
    for port in (1000, 2000):
        one.send(tcp(port=port, flags=RST), directors.now)
    directors.run(TICK)

    assert [row.client_port for row in directors.rows()] == [1000, 1000]
    assert sum(row.active for row in two.balancer.counters(WEB)) == 0
    assert sum(row.inactive for row in two.balancer.counters(WEB)) == 1


def test_half_closed_connection_is_told():
    directors = Directors()
    one, two = directors.all
    flows = directors.connect(0, 1000)
    one.send(tcp(port=1000, flags=FIN | ACK), directors.now)
    directors.run(TICK)

    assert two.send(tcp(port=1000), directors.now) == flows[1000]


def test_long_flows_with_packets_are_told_again_and_idle_ones_are_not():
    directors = Directors(udp=900.0)
    one, two = directors.all
    flows = directors.connect(0, 1000, 2000)
    directors.run(10)
    for _ in range(16):
        one.send(tcp(port=1000), directors.now)
        directors.run(100)
    directors.sweep()

    told = [row.client_port for row in directors.rows()]
    assert told.count(2000) == 1
    assert 5 <= told.count(1000) <= 7
    assert two.send(tcp(port=1000), directors.now) == flows[1000]
    assert two.send(tcp(port=2000), directors.now) is None


def test_who_was_told_does_not_tell_it_back():
    directors = Directors()
    directors.connect(0, *range(1000, 1020))
    directors.run(3 * REFRESH)

    assert directors.rows(sender=1) == []
    assert len(directors.rows(sender=0)) == 20


def test_idle_flow_is_not_kept_alive_by_being_told():
    directors = Directors(count=3)
    directors.connect(0, 1000)
    directors.run(890)
    assert [len(each.service().flows) for each in directors.all] == [1, 1, 1]
    directors.run(20)
    directors.sweep()

    assert [len(each.service().flows) for each in directors.all] == [0, 0, 0]


def test_after_a_takeover_the_next_one_tells_of_the_flows_that_go_on():
    directors = Directors(count=3)
    flows = directors.connect(0, 1000)
    directors.run(10)
    directors.all[1].send(tcp(port=1000), directors.now)
    directors.run(REFRESH + 1)

    assert [row.client_port for row in directors.rows(sender=1)] == [1000, 1000]  # to each of the others
    assert directors.all[2].send(tcp(port=1000), directors.now) == flows[1000]


def test_port_that_is_used_again_goes_where_its_new_connection_is():
    directors = Directors("rr")
    one, two = directors.all
    flows = directors.connect(0, 1000)
    directors.run(TICK)
    one.send(tcp(port=1000, flags=RST), directors.now)
    directors.run(20)
    again = directors.connect(0, 1000)
    assert again != flows
    directors.run(TICK)

    assert two.send(tcp(port=1000), directors.now) == again[1000]


def test_flow_that_two_directors_have_stays_where_it_is():
    directors = Directors("rr")
    one, two = directors.all
    two.send(tcp(9, 9, SYN), directors.now)
    assert directors.connect(0, 1000) == {1000: 0}
    assert directors.connect(1, 1000) == {1000: 1}
    directors.run(REFRESH + 1)

    assert (one.send(tcp(port=1000), directors.now), two.send(tcp(port=1000), directors.now)) == (0, 1)


def test_flow_of_which_one_packet_came_goes_where_another_director_has_it():
    """The first SYN went to one director, and its repetition, after a change of routes, to the other."""
    directors = Directors("rr")
    two = directors.all[1]
    two.send(tcp(9, 9, SYN), directors.now)
    two.send(tcp(port=1000, flags=SYN), directors.now)
    flows = directors.connect(0, 1000)
    directors.run(TICK)

    assert two.send(tcp(port=1000), directors.now) == flows[1000]


def test_flows_at_the_sorry_server_are_told_too():
    directors = Directors("rr")
    one, two = directors.all
    one.servers(0, sorry=one.row(9), is_sorry=True)
    directors.connect(0, 1000)
    directors.run(TICK)

    assert two.send(tcp(port=1000), directors.now) == 9


# Persistence


def test_client_keeps_its_server_at_the_next_director():
    directors = Directors("rr", persistence=300.0)
    one, two = directors.all
    two.send(tcp(9, 9, SYN), directors.now)
    known = {}
    for client in range(1, 20):
        known[client] = one.send(tcp(client, flags=SYN), directors.now)
        one.send(tcp(client), directors.now)
        one.send(tcp(client, flags=RST), directors.now)
    directors.run(200)

    assert {client: two.send(tcp(client, 7000, SYN), directors.now) for client in known} == known


def test_director_that_begins_anew_is_told_of_clients_without_a_connection():
    directors = Directors("rr", persistence=600.0)
    one = directors.all[0]
    directors.connect(1, 999)
    directors.connect(1, 1000, client=2)
    one.send(udp(client=3), directors.now)
    known = {client: one.send(tcp(client, 7000, SYN), directors.now) for client in (2, 3)}
    for client in known:
        one.send(tcp(client, 7000, RST), directors.now)
    directors.run(120)
    directors.restart(1)
    directors.run(2)

    assert {client: directors.all[1].send(tcp(client, 7001, SYN), directors.now) for client in known} == known


# Directors that restart, or are away


def test_director_that_begins_anew_is_told_everything_and_takes_nothing_away():
    directors = Directors(count=3)
    flows = directors.connect(0, *range(1000, 1200))
    directors.run(1)
    for place in (2, 0):
        begun = directors.restart(place)
        assert begun.send(tcp(port=1000), directors.now) is None
        assert begun.written == []  # no reset: another director may know the connection
        directors.run(2)

    for each in directors.all:
        assert {port: each.send(tcp(port=port), directors.now) for port in flows} == flows


def test_unknown_connections_are_refused_once_all_directors_have_told_theirs():
    directors = Directors()
    one = directors.all[0]
    one.send(tcp(port=5), directors.now)

    assert one.service().drops == {"service_unknown": 1}
    assert len(one.written) == 1


def test_unknown_connections_are_refused_after_a_while_if_the_others_say_nothing():
    directors = Directors()
    directors.away = {1}
    one = directors.restart(0)
    one.send(tcp(port=5), directors.now)
    assert one.service().drops == {"service_preparing": 1}
    directors.run(module.PATIENCE + TICK)
    one.send(tcp(port=5), directors.now)

    assert one.service().drops == {"service_preparing": 1, "service_unknown": 1}


def test_director_that_was_away_while_another_began_is_asked_when_it_is_back():
    directors = Directors()
    flows = directors.connect(1, 1000)
    directors.run(1)
    directors.away = {1}
    directors.restart(0)
    directors.run(60)
    directors.away = set()
    directors.run(module.ASKING_LATER + 1)

    assert directors.all[0].send(tcp(port=1000), directors.now) == flows[1000]


def test_director_that_was_away_is_told_what_went_on_at_the_next_refresh():
    directors = Directors()
    directors.away = {1}
    flows = directors.connect(0, 1000)
    directors.run(10)
    directors.away = set()
    directors.run(REFRESH)

    assert directors.all[1].send(tcp(port=1000), directors.now) == flows[1000]


def test_reload_that_changes_the_directors_asks_the_new_ones_alone():
    directors = Directors(count=3)
    directors.all[0].begin(directors.now, others=[1])
    directors.run(3)
    assert directors.told == []
    directors.all[0].begin(directors.now, others=[1, 2])
    directors.run(3)

    assert [told[1] for told in directors.told if told[2].wants_all] == [2]


def test_scheduler_that_begins_to_need_flows_asks_for_them():
    directors = Directors("maglev")
    for each in directors.all:
        each.settings["scheduler"] = "rr"
        each.begin(directors.now)
    directors.connect(0, 1000)
    directors.run(1)

    assert [told.wants_all for _, _, told in directors.told].count(True) == 2
    assert len(directors.rows()) >= 1


# Bounds


def test_many_flows_are_told_a_piece_at_a_time():
    directors = Directors()
    directors.connect(0, *range(1000, 6000))
    most = 0
    while len(directors.rows()) < 5000:
        before = len(directors.told)
        directors.run(TICK)
        most = max(most, len(directors.told) - before)
    assert MESSAGES <= most <= MESSAGES + 2
    assert len({row.client_port for row in directors.rows()}) == 5000


def test_both_ip_versions_are_told_whatever_the_room(monkeypatch):
    monkeypatch.setattr(module, "MESSAGES", 1)
    directors = Directors()
    for version in (4, 6):
        directors.connect(0, *range(1000, 1100), version=version)
    directors.run(10)
    begun = directors.restart(1)
    directors.run(20)

    for version in (4, 6):
        assert None not in [
            begun.send(tcp(port=port, version=version), directors.now) for port in range(1000, 1100)
        ]


def test_questions_for_all_flows_are_answered_one_at_a_time():
    directors = Directors()
    directors.connect(0, *range(1000, 1100))
    directors.run(1)
    directors.told.clear()
    for _ in range(50):
        directors.all[0].hear(1, FlowsTold(NAME, wants_all=True), directors.now)
        directors.run(TICK)

    assert [told.is_complete for _, _, told in directors.told].count(True) <= 8  # in 7.5 s


def test_flood_of_rows_is_learnt_from_as_far_as_there_is_room(monkeypatch):
    monkeypatch.setattr(module, "WAITING", 3)
    two = Directors().all[1]
    for port in range(5):
        two.sync.take(two.others[0], FlowsTold(NAME, (flow(client_port=port),)), 101.0)
    two.queue.run(101.0)

    assert len(two.service().flows) == 3
    assert two.others[0].drops == {"control_rate": 2}


# Who may report what


def flow(**changes):
    row = {
        "protocol": 6, "state": int(State.ESTABLISHED), "idle": 0, "server": zlib.crc32(b"web1:0"),
        "client": ip_address(CLIENTS[4].format(1)).packed, "client_port": 1000,
        "address": ip_address(VIPS[4]).packed, "port": 80,
    }  # fmt: skip
    return SyncedFlow(**(row | changes))


def test_flow_that_fits_is_learnt():
    two = Directors().all[1]
    two.hear(0, FlowsTold(NAME, (flow(),)), 101.0)

    assert two.send(tcp(port=1000), 101.0) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"state": 0}, {"state": 1}, {"state": 6}, {"state": 8}, {"state": 99}, {"protocol": 17}, {"protocol": 132},
        {"protocol": 1}, {"address": bytes(4)}, {"port": 81}, {"server": 5}, {"server": zlib.crc32(b"web2:0")},
    ],
    ids=str,
)  # fmt: skip
def test_flow_that_cannot_be_one_of_the_service_is_not_learnt(changes):
    two = Directors().all[1]
    two.servers(0, 1, two.row(2, takes=Takes.NOTHING))
    two.hear(0, FlowsTold(NAME, (flow(**changes),)), 101.0)

    assert len(two.service().flows) == 0


@pytest.mark.parametrize(("sender", "service"), [(2, NAME), (0, NOBODY)])
def test_who_is_no_director_of_the_service_is_not_heeded_and_counted(sender, service):
    directors = Directors(count=3)
    two = directors.all[1]
    two.begin(directors.now, others=[0])
    two.hear(sender, FlowsTold(service, (flow(),), wants_all=True), directors.now)
    directors.run(1)

    assert len(two.service().flows) == 0
    assert two.others[sender].drops == {"control_foreign": 1}
    assert [told for place, _, told in directors.told if place == 1 and told.rows] == []


def test_rows_of_clients_are_nothing_to_a_service_without_persistence():
    two = Directors().all[1]
    two.hear(0, FlowsTold(NAME, (flow(protocol=CLIENT),)), 101.0)

    assert len(two.service().flows) == 0


rows = st.builds(
    flow,
    protocol=st.sampled_from([0, 6, 17, 132, 1]),
    state=st.integers(0, 12),
    idle=st.integers(0, 0xFFFF),
    server=st.sampled_from([zlib.crc32(f"web{number}:0".encode()) for number in range(4)]),
    client_port=st.integers(0, 3),
    port=st.sampled_from([80, 81]),
)
steps = st.one_of(
    st.tuples(st.just("hear"), rows),
    st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from([SYN, ACK, FIN | ACK, RST])),
    st.tuples(st.just("servers"), st.sets(st.integers(0, 2))),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 20.0, 400.0])),
)


@given(st.sampled_from(["wlc", "rr", "maglev"]), st.sampled_from([0.0, 300.0]), st.lists(steps, max_size=25))
def test_counts_of_flows_are_right_whatever_is_told_and_sent(scheduler, persistence, story):
    directors = Directors(scheduler, persistence=persistence)
    two = directors.all[1]
    for step in story:
        match step:
            case "hear", row:
                two.hear(0, FlowsTold(NAME, (row,)), directors.now)
            case "send", port, flags:
                two.send(tcp(port=port, flags=flags), directors.now)
            case "servers", numbers:
                two.servers(*sorted(numbers))
            case "wait", seconds:
                directors.run(seconds)
    flows = two.service().flows
    rows = [(shard.state[row], shard.server[row]) for shard in flows.shards for row in shard.index.values()]
    closing = {State.FIN_WAIT, State.TIME_WAIT, State.CLOSE}
    for server in range(len(two.service().servers)):
        mine = [state for state, index in rows if index == server]
        assert flows.loads.active[server] == sum(state not in closing for state in mine)
        assert flows.loads.inactive[server] == sum(state in closing for state in mine)


# What is reported


@pytest.mark.parametrize(
    ("idle", "told"), [(0.0, 0), (1.9, 1), (65_534.5, 65_534), (65_536.0, 65_535), (1e6, 65_535)]
)
def test_flow_is_told_with_the_whole_seconds_that_it_was_idle_as_far_as_they_fit(idle, told):
    directors = Directors(tcp=1e7)
    directors.connect(0, 1000)
    shared = directors.all[0].sync._shared[WEB]
    shared.now = directors.now + idle
    (key,) = directors.all[0].service().flows.open_keys(is_all=True)

    row = shared.row(directors.all[0].service().flows, key)

    assert row == flow(server=row.server, idle=told)


def test_what_is_walked_is_told_in_as_many_messages_as_there_is_room_for_in_a_tick(monkeypatch):
    """All of one IP version, so that every message is full."""
    monkeypatch.setattr(module, "MESSAGES", 2)
    directors = Directors()
    directors.connect(0, *range(1000, 1000 + 10 * most_flows(4)))
    directors.run(20)
    directors.restart(1)
    sent = []
    for _ in range(30):
        before = len(directors.told)
        directors.run(TICK)
        sent.append(sum(bool(told.rows) for _, _, told in directors.told[before:]))

    assert max(sent) == 2
    assert sum(sent) >= 10


@pytest.mark.parametrize(
    ("begun", "heard"),
    [((1,), [1, 2, 1, 2, 1, 1]), ((1, 2), [1, 1, 1, 2])],
    ids=["two news to both and a walk", "two walks"],
)
def test_all_that_is_told_in_a_tick_shares_its_room(monkeypatch, begun, heard):
    monkeypatch.setattr(module, "MESSAGES", 4)
    directors = Directors(count=3)
    directors.connect(0, *range(1000, 1000 + 3 * most_flows(4)))
    directors.run(20)
    for place in begun:
        directors.restart(place)
    directors.run(TICK)  # they ask, and all three messages are due to each
    if len(begun) == 1:
        directors.connect(0, *range(5000, 5000 + 2 * most_flows(4)))

    told = next_tick(directors)

    assert [to for to, each in told if each.rows] == heard


def test_what_is_told_in_a_tick_is_one_job_however_long_it_takes():
    directors = Directors()
    one = directors.all[0]
    directors.connect(0, *range(1000, 1000 + 5 * most_flows(4)))
    for _ in range(3):
        directors.now += TICK
        one.sync.turn(directors.now)
        one.queue.run(directors.now, lambda: False)  # there is time for one step

    sent = len(directors.sent)
    one.queue.run(directors.now)

    assert sent == 3
    assert len(directors.sent) == 5
    told = [row.client_port for _, _, payload in directors.sent for row in control.parse(payload).rows]
    assert sorted(told) == list(range(1000, 1000 + 5 * most_flows(4)))
    assert not one.queue.has("flows told")


def test_all_is_learnt_before_unknown_flows_are_refused_again():
    directors = Directors()
    two = directors.restart(1)
    for port in range(5):
        two.sync.take(two.others[0], FlowsTold(NAME, (flow(client_port=port),)), directors.now)
    two.sync.take(two.others[0], FlowsTold(NAME, is_complete=True), directors.now)

    seen = []
    while two.queue.is_ready():
        two.queue.run(directors.now, lambda: False)
        seen.append((len(two.service().flows), two.service().learns_until > directors.now))

    assert (5, True) in seen
    assert seen[-1] == (5, False)
    assert all(is_waiting for count, is_waiting in seen if count < 5)


def test_what_goes_on_is_told_again_at_the_moment_when_it_is_due():
    directors = Directors()
    one = directors.all[0]
    shared = one.sync._shared[WEB]
    due = directors.now = shared.refresh

    one.sync.turn(due)

    assert shared.refresh == due + shared.interval


@pytest.mark.parametrize("is_away", [False, True])
def test_who_hears_and_does_not_answer_is_asked_less_after_a_while_and_who_is_away_is_not(is_away):
    directors = Directors()
    one = directors.restart(0)
    directors.away = {1} if is_away else set()
    asked = []
    for _ in range(400):
        directors.now += TICK
        ask = one.sync._shared[WEB].asks[1]
        due = ask.due
        one.sync.turn(directors.now)
        one.queue.run(directors.now)
        if ask.due != due:
            asked.append(directors.now)

    pauses = [later - earlier for earlier, later in pairwise(asked)]
    eager = len(pauses) if is_away else module.EAGER - 1
    assert len(pauses) > module.EAGER
    assert all(pause < module.ASKING + 2 * TICK for pause in pauses[:eager])
    assert all(pause >= module.ASKING_LATER for pause in pauses[eager:])


@pytest.mark.parametrize("has_news", [False, True])
def test_flows_of_a_service_are_told_whatever_there_is_of_the_one_before_it(has_news):
    """The first of two has nothing to report, or something when all receivers are away."""
    directors, number, ports = Directors(count=3), WEB + 1, ((81, 81),)
    directors.away = {1}
    one = directors.all[0]
    one.sync.share(WEB, one.service(), {1: one.others[1]}, one.vips.values(), PROTOCOLS, PORTS, directors.now)
    settings = ServiceSettings(scheduler="rr")
    one.balancer.set_service(number, "dns", settings, one.vips.values(), PROTOCOLS, ports, is_shared=True)
    one.servers(0, 1, 2, service=number)
    others = {2: one.others[2]}
    one.sync.share(number, one.service(number), others, one.vips.values(), PROTOCOLS, ports, directors.now)
    directors.run(1)
    for port in (80, 81) if has_news else (81,):
        for flags in (SYN, ACK):
            one.send(tcp(to=port, flags=flags), directors.now)

    assert [(to, told.service) for to, told in next_tick(directors) if told.rows] == [(2, zlib.crc32(b"dns"))]


def next_tick(directors):
    """Return what the first director sends in its next tick, and to whom; nobody receives it."""
    one, sent = directors.all[0], []
    one.sync._send = lambda peer, _, payload: sent.append((peer.number, control.parse(payload)))
    directors.now += TICK
    one.sync.turn(directors.now)
    one.queue.run(directors.now)
    return sent


def test_nothing_is_told_before_the_next_tick():
    directors = Directors()
    directors.connect(0, 1000)
    assert next_tick(directors)
    directors.connect(0, 1001)

    directors.now -= TICK  # which the next one appends again

    assert next_tick(directors) == []
    assert [row.client_port for _, told in next_tick(directors) for row in told.rows] == [1001]


def test_flow_that_changed_twice_is_told_once_and_those_after_it_as_well():
    directors = Directors()
    one = directors.all[0]
    directors.connect(0, 1000)
    one.send(tcp(port=1000, flags=FIN | ACK), directors.now)
    directors.connect(0, 1001)

    told = [row.client_port for _, told in next_tick(directors) for row in told.rows]

    assert sorted(told) == [1000, 1001]


@pytest.mark.parametrize("server", [5, zlib.crc32(b"web2:0")], ids=["not of the service", "takes nothing"])
def test_flows_are_learnt_whatever_was_told_before_them(server):
    two = Directors().all[1]
    two.servers(0, 1, two.row(2, takes=Takes.NOTHING))
    two.hear(0, FlowsTold(NAME, (flow(server=server, client_port=1001), flow())), 101.0)

    assert len(two.service().flows) == 1
    assert two.send(tcp(port=1000), 101.0) == 1
