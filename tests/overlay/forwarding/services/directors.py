"""Directors that synchronize flows, over a network in memory."""

from __future__ import annotations

from types import SimpleNamespace

from overlay.forwarding.services.settings import ServiceSettings
from overlay.forwarding.services.sync import TICK, Sync
from overlay.forwarding.workqueue import Workqueue
from overlay.reasons import Drops
from overlay.wire import control
from tests.overlay.forwarding.services.conftest import WEB, World, tcp
from tests.packets import SYN

PORTS, PROTOCOLS = ((80, 80),), (6, 17)


class Director(World):
    """One of several directors; its number as a peer is its position."""

    def __init__(self, directors, place, scheduler, **settings):
        super().__init__()
        self.directors, self.place, self.settings = directors, place, {"scheduler": scheduler, **settings}
        self.others = {
            number: SimpleNamespace(
                number=number, drops=Drops(), keypairs=SimpleNamespace(usable=self.usable(number))
            )
            for number in range(len(directors.cut))
            if number != place
        }
        self.queue = Workqueue()
        self.sync = Sync(self.others, self.queue, self.post)

    def begin(self, now, others=None):
        """Reset the service as by a start of the agent."""
        self.balancer.set_service(
            WEB, "web", ServiceSettings(**self.settings), self.vips.values(), PROTOCOLS, PORTS, is_shared=True
        )
        self.servers(0, 1, 2, sorry=self.row(9))
        others = self.others if others is None else others
        self.sync.share(WEB, self.service(), others, self.vips.values(), PROTOCOLS, PORTS, now)

    def usable(self, number):
        def usable(now):
            assert now == self.directors.now
            return None if {self.place, number} & self.directors.away else "keypair"

        return usable

    def post(self, peer, _, payload):
        self.directors.sent.append((self.place, peer.number, payload))

    def hear(self, sender, told, now):
        self.sync.take(self.others[sender], told, now)
        self.queue.run(now)


class Directors:
    """Directors that receive each other's messages immediately, and a clock."""

    def __init__(self, scheduler="wlc", count=2, **settings):
        self.now, self.sent, self.told, self.away = 100.0, [], [], set()
        self.cut = [False] * count
        self.how = scheduler, settings
        self.all = [Director(self, place, scheduler, **settings) for place in range(count)]
        for each in self.all:
            each.begin(self.now)
        self.run(1)
        self.told.clear()

    def restart(self, place):
        scheduler, settings = self.how
        self.all[place] = Director(self, place, scheduler, **settings)
        self.all[place].begin(self.now)
        return self.all[place]

    def run(self, seconds):
        end, step = self.now + seconds, TICK
        while self.now < end:
            self.now = min(end, self.now + step)
            for each in self.all:
                each.sync.turn(self.now)
                each.queue.run(self.now)
            sent, self.sent = self.sent, []
            step = TICK if sent else 2.0
            for sender, receiver, payload in sent:
                if not {sender, receiver} & self.away:
                    told = control.parse(payload)
                    self.told.append((sender, receiver, told))
                    self.all[receiver].hear(sender, told, self.now)

    def sweep(self):
        for each in self.all:
            while each.service().sweep(self.now):
                pass

    def rows(self, sender=0):
        return [row for place, _, told in self.told if place == sender for row in told.rows]

    def connect(self, place, *ports, **ends):
        """Establish connections at a director; return the server of each by port."""
        servers = {port: self.all[place].send(tcp(port=port, flags=SYN, **ends), self.now) for port in ports}
        for port in ports:
            assert self.all[place].send(tcp(port=port, **ends), self.now) == servers[port]
        return servers
