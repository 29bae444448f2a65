"""Messages of directors about servers, between two agents that share one list as their forwarders."""

from __future__ import annotations

from types import SimpleNamespace

import trio
import trio.testing

from overlay.balancing.shared import Shared
from overlay.host import clock
from overlay.link.messages import SendControl
from overlay.services.health import ByHand, Condition
from overlay.services.watching import Watching
from overlay.wire import control
from overlay.wire.service_control import SettingsHeard
from tests.overlay.balancing.test_balancing import WEB, node

TWO = WEB.replace('["lb"]', '["lb", "client"]').replace("slow_start = 60\n", "")
DRAINED = ByHand(is_drained=True)


class Director:
    def __init__(self, name, deaf=()):
        self.name, self.told, self.applied, self.other = name, [], [], None
        self.remotes = {
            each: SimpleNamespace(number=number, peer=SimpleNamespace(name=each), foreign=0)
            for number, each in enumerate(("lb", "web1", "web2", "client"), 1)
            if each != name
        }
        self.watching = Watching(lambda: 0.5)
        service = node(TWO).table.services["web"]
        self.watching.adopt({"web": service}, clock.now())
        roster = SimpleNamespace(by_name=self.remotes)
        self.shared = Shared(name, self.watching, roster, self.tell, self.apply)
        self.shared.adopt(node(TWO), deaf, clock.now())
        self.service = service

    async def tell(self, command):
        self.told.append(command)
        assert isinstance(command, SendControl)
        if self.other is not None:
            message = control.parse(command.payload)
            await self.other.shared.take(self.other.remotes[self.name], message)

    async def apply(self, service, key, by_hand):
        self.applied.append((service, key, by_hand))
        self.watching.set_by_hand(service, key, by_hand, clock.now())

    def condition(self):
        return self.watching.healths["web"].standings["web1:0"].condition

    async def drain(self):
        return await self.shared.set_by_hand(self.service, self.service.servers[0], DRAINED)


def run(act, monkeypatch):
    mock = trio.testing.MockClock(autojump_threshold=0)
    monkeypatch.setattr(clock, "now", lambda: 1000.0 + mock.current_time())

    async def main():
        async with trio.open_nursery() as nursery:
            await act(nursery)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=mock)


def test_setting_has_its_effect_at_both_and_the_other_confirms_it(monkeypatch):
    async def act(nursery):
        one, two = Director("lb"), Director("client")
        one.other, two.other = two, one
        nursery.start_soon(one.shared.run)
        nursery.start_soon(two.shared.run)
        assert await one.drain() == []
        assert one.applied == two.applied == [("web", "web1:0", DRAINED)]
        assert one.condition() is two.condition() is Condition.DRAINED

    run(act, monkeypatch)


def test_who_does_not_confirm_is_named_after_a_while(monkeypatch):
    async def act(nursery):
        one = Director("lb")
        nursery.start_soon(one.shared.run)
        assert await one.drain() == ["client"]
        assert one.condition() is Condition.DRAINED

    run(act, monkeypatch)


def test_who_is_no_director_is_counted(monkeypatch):
    async def act(_):
        one = Director("lb")
        await one.shared.take(one.remotes["web1"], SettingsHeard(5, 1))
        assert one.remotes["web1"].foreign == 1

    run(act, monkeypatch)


def test_setting_outlives_a_reload_and_a_session_that_begins_has_it_told(monkeypatch):
    async def act(nursery):
        one, two = Director("lb"), Director("client")
        nursery.start_soon(one.shared.run)
        nursery.start_soon(two.shared.run)
        await one.drain()
        one.watching.adopt({}, clock.now())
        one.watching.adopt({"web": one.service}, clock.now())
        assert not one.watching.healths["web"].by_hand
        one.shared.adopt(node(TWO), (), clock.now())
        assert one.condition() is Condition.DRAINED

        one.other, two.other = two, one
        one.shared.met("client")
        two.shared.met("lb")
        await trio.sleep(2)
        assert two.condition() is Condition.DRAINED

    run(act, monkeypatch)
