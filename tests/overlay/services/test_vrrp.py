"""The state machine of VRRP: alone, between two and three routers, and against garbage of the group."""

from __future__ import annotations

import dataclasses
import math
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.services.vrrp import Changed, RouterSettings, RouterState, Send, VirtualRouter
from overlay.wire.vrrp import Advertisement
from tests.refusals import refused

VIP = ip_address("10.50.2.200").packed
LOW, HIGH = ip_address("10.50.2.1").packed, ip_address("10.50.2.2").packed
SETTINGS = RouterSettings(3, 51, 100, 1.0, (VIP,))


def router(own=LOW, **changes):
    return VirtualRouter(dataclasses.replace(SETTINGS, **changes), own)


def advertisement(priority, interval=1.0, version=3, password=b""):
    return Advertisement(version, 51, priority, interval, (VIP,), password)


def sent(outputs):
    return [each.advertisement.priority for each in outputs if isinstance(each, Send)]


def changes(outputs):
    return [each.state for each in outputs if isinstance(each, Changed)]


class Link:
    """Routers that hear each other immediately, and a clock."""

    def __init__(self, *routers):
        self.now, self.cut, self.history = 0.0, set(), []
        self.routers = {one._own: one for one in routers}

    def run(self, seconds):
        end = self.now + seconds
        while (due := min(one.next_deadline() for one in self.routers.values())) <= end:
            self.now = max(self.now, due)
            for one in list(self.routers.values()):
                self.carry(one, one.handle_deadline(self.now))
        self.now = end

    def carry(self, sender, outputs):
        for output in outputs:
            if isinstance(output, Changed):
                self.history.append((round(self.now, 6), sender._own, output.state))
            elif sender._own not in self.cut:
                for other in list(self.routers.values()):
                    if other is not sender and other._own not in self.cut:
                        self.carry(other, other.receive(output.advertisement, sender._own, self.now))

    def start(self, *routers):
        for one in routers:
            self.carry(one, one.start(self.now))

    @property
    def active(self):
        return [own for own, one in self.routers.items() if one.state is RouterState.ACTIVE]


def test_alone_it_takes_the_addresses_after_three_intervals_and_the_skew():
    one = router(priority=150)
    assert changes(one.start(10.0)) == [RouterState.BACKUP]
    assert one.next_deadline() == pytest.approx(10 + 3 + 106 / 256)

    outputs = one.handle_deadline(one.next_deadline())
    assert isinstance(outputs[0], Send)  # before neighbours are informed, routers are
    assert (sent(outputs), changes(outputs)) == ([150], [RouterState.ACTIVE])


def test_active_router_advertises_each_interval():
    one = router(interval=0.5)
    one.start(0.0)
    now = one.next_deadline()
    one.handle_deadline(now)

    assert one.next_deadline() == now + 0.5
    assert one.handle_deadline(now + 0.4) == []
    assert sent(one.handle_deadline(now + 0.5)) == [100]


def test_owner_of_the_addresses_does_not_wait():
    outputs = router(priority=255).start(0.0)
    assert (sent(outputs), changes(outputs)) == ([255], [RouterState.ACTIVE])


@pytest.mark.parametrize(("low", "high", "expected"), [(100, 150, HIGH), (150, 100, LOW)])
def test_of_two_the_higher_priority_is_active(low, high, expected):
    a, b = router(LOW, priority=low), router(HIGH, priority=high)
    link = Link(a, b)
    link.start(a, b)
    link.run(10)
    assert link.active == [expected]


def test_of_equals_the_higher_address_stays_active_where_both_are():
    a, b = router(LOW), router(HIGH)
    link = Link(a, b)
    link.cut = {LOW, HIGH}
    link.start(a, b)
    link.run(10)
    assert link.active == [LOW, HIGH]

    link.cut.clear()
    link.run(2)
    assert link.active == [HIGH]


def test_backup_takes_over_in_its_time_when_the_active_router_dies():
    a, b = router(LOW, priority=150), router(HIGH, priority=100)
    link = Link(a, b)
    link.start(a, b)
    link.run(20)
    link.cut.add(LOW)
    died = link.now
    link.run(5)

    at, who, state = link.history[-1]
    assert (who, state) == (HIGH, RouterState.ACTIVE)
    assert 2 < at - died <= 3 + 156 / 256


def test_backup_takes_over_after_the_skew_when_the_active_router_resigns():
    a, b = router(LOW, priority=150), router(HIGH, priority=100)
    link = Link(a, b)
    link.start(a, b)
    link.run(20)
    link.carry(a, a.stop())
    stopped = link.now
    link.run(1)

    assert link.history[-1] == (pytest.approx(stopped + 156 / 256), HIGH, RouterState.ACTIVE)
    assert a.next_deadline() == math.inf


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 3 + 56 / 256), ({"preempts": False}, None), ({"preempt_delay": 30.0}, 30 + 3 + 56 / 256)],
)
def test_router_that_comes_back_takes_the_addresses_as_its_preemption_says(settings, expected):
    a, b = router(LOW, priority=100), router(HIGH, priority=200, **settings)
    link = Link(a, b)
    link.start(a)
    link.run(20)
    link.start(b)
    began = link.now
    link.run(60)

    if expected is None:
        assert link.active == [LOW]
        return
    assert link.active == [HIGH]
    taken = next(at for at, who, state in link.history if (who, state) == (HIGH, RouterState.ACTIVE))
    assert began + expected - 1 <= taken <= began + expected + 1.0


def test_resignations_without_end_do_not_put_off_the_takeover():
    one = router()
    one.start(0.0)
    one.receive(advertisement(150), HIGH, 0.5)
    one.receive(advertisement(0), HIGH, 1.0)
    due = one.next_deadline()

    for number in range(10):
        one.receive(advertisement(0), HIGH, 1.0 + number / 100)

    assert one.next_deadline() == due == pytest.approx(1 + 156 / 256)


def test_router_goes_on_in_its_state_with_another_address_and_other_settings():
    one = router(LOW)
    one.start(0.0)
    one.handle_deadline(one.next_deadline())
    due = one.next_deadline()

    one.change(dataclasses.replace(SETTINGS, addresses=(VIP, HIGH)), HIGH)

    assert (one.state, one.active, one.next_deadline()) == (RouterState.ACTIVE, HIGH, due)
    assert one.handle_deadline(due)[0].advertisement.addresses == (VIP, HIGH)


def test_fault_resigns_and_its_end_begins_anew():
    a, b = router(LOW, priority=150), router(HIGH, priority=100)
    link = Link(a, b)
    link.start(a, b)
    link.run(20)
    outputs = a.set_priority(0, "eth0 is down", link.now)
    assert (sent(outputs), changes(outputs)) == ([0], [RouterState.INITIALIZE])
    assert outputs[-1].reason == "eth0 is down"
    link.carry(a, outputs)
    link.run(5)
    assert link.active == [HIGH]

    link.carry(a, a.set_priority(150, "eth0 is up", link.now))
    link.run(10)
    assert link.active == [LOW]


def test_fault_before_the_start_keeps_it_out():
    one = router()
    assert one.set_priority(0, "eth0 is down", 0.0) == []
    assert one.start(0.0) == []
    assert one.next_deadline() == math.inf
    assert changes(one.set_priority(100, "eth0 is up", 5.0)) == [RouterState.BACKUP]


def test_lowered_priority_gives_the_addresses_to_another():
    a, b = router(LOW, priority=150), router(HIGH, priority=100)
    link = Link(a, b)
    link.start(a, b)
    link.run(20)
    assert a.set_priority(90, "the quorum is lost", link.now) == []
    link.run(10)
    assert link.active == [HIGH]


def test_active_router_asserts_itself_against_a_lower_one_at_once():
    a = router(LOW, priority=150)
    a.start(0.0)
    a.handle_deadline(a.next_deadline())
    outputs = a.receive(advertisement(100), HIGH, 10.0)
    assert (sent(outputs), changes(outputs)) == ([150], [])
    assert a.next_deadline() == 11.0


def test_what_is_resigning_is_answered_by_the_active_router():
    a = router(LOW, priority=150)
    a.start(0.0)
    a.handle_deadline(a.next_deadline())
    assert sent(a.receive(advertisement(0), HIGH, 10.0)) == [150]


def test_version_3_goes_by_the_interval_of_the_active_router():
    one = router()
    one.start(0.0)
    one.receive(advertisement(200, interval=5.0), HIGH, 1.0)
    assert one.next_deadline() == pytest.approx(1 + 15 + 156 * 5 / 256)
    assert one.active == HIGH


def test_version_2_has_a_skew_in_seconds():
    one = router(version=2, interval=3.0)
    one.start(0.0)
    assert one.next_deadline() == pytest.approx(9 + 156 / 256)


@pytest.mark.parametrize(
    ("settings", "heard", "ttl", "reason"),
    [
        ({}, advertisement(200), 254, "vrrp_ttl"),
        ({}, advertisement(200, version=2), 255, "vrrp_version"),
        ({"version": 2}, advertisement(200, version=2, interval=2.0), 255, "vrrp_interval"),
        ({"version": 2, "password": b"x"}, advertisement(200, version=2), 255, "vrrp_password"),
        ({"version": 2}, advertisement(200, version=2, password=b"x"), 255, "vrrp_password"),
    ],
)
def test_advertisements_that_do_not_fit_the_group_change_nothing(settings, heard, ttl, reason):
    one = router(**settings)
    one.start(0.0)
    due = one.next_deadline()
    with refused(reason):
        one.receive(heard, HIGH, 1.0, ttl)
    assert (one.next_deadline(), one.active) == (due, None)


@pytest.mark.parametrize(
    ("settings", "heard", "ttl"),
    [
        ({}, advertisement(200, interval=7.0), 255),
        ({"version": 2}, advertisement(200, version=2), 255),
        ({}, advertisement(200), None),
    ],
)
def test_advertisements_that_fit_the_group_are_heeded(settings, heard, ttl):
    one = router(**settings)
    one.start(0.0)
    one.receive(heard, HIGH, 1.0, ttl)
    assert one.active == HIGH


def test_stopped_router_heeds_nothing():
    one = router()
    one.start(0.0)
    one.stop()
    assert one.receive(advertisement(0), HIGH, 1.0) == []
    assert one.next_deadline() == math.inf


@given(
    priorities=st.lists(st.integers(1, 254), min_size=2, max_size=4),
    events=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(("cut", "heal", "stop", "start", "fault", "mend"))),
        max_size=12,
    ),
)
def test_after_quiet_exactly_one_that_is_able_is_active(priorities, events):
    owns = [bytes((10, 0, 0, 1 + place)) for place in range(len(priorities))]
    routers = [router(own, priority=each) for own, each in zip(owns, priorities, strict=True)]
    link, stopped, faulty = Link(*routers), set(), set()
    link.start(*routers)
    for place, event in events:
        one = routers[place % len(routers)]
        if event == "cut":
            link.cut.add(one._own)
        elif event == "heal":
            link.cut.discard(one._own)
        elif event == "stop":
            stopped.add(one)
            link.carry(one, one.stop())
        elif event == "start" and one in stopped:
            stopped.discard(one)
            link.start(one)
        elif event == "fault":
            faulty.add(one)
            link.carry(one, one.set_priority(0, "a fault", link.now))
        elif event == "mend" and one in faulty:
            faulty.discard(one)
            link.carry(one, one.set_priority(one._settings.priority, "no fault", link.now))
        link.run(1.7)
    link.cut.clear()
    link.run(30)

    able = [one for one in routers if one not in stopped and one not in faulty]
    best = {one._own for one in able if one.priority == max(each.priority for each in able)}
    assert len(link.active) == bool(able)
    assert best.issuperset(link.active)
