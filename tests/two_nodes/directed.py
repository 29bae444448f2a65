"""A service with two directors, four servers, another host, and a slow twin of the invariants of its flows."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from overlay.link.messages import OWN, ControlReceived, Routes
from overlay.link.service_messages import VIRTUAL
from overlay.services import instructions
from overlay.services.checking import Result
from overlay.services.health import ByHand, FlowPolicy
from overlay.services.instructions import Numbers
from overlay.services.schedulers import SCHEDULERS, Hashed
from overlay.services.settings import Settings
from overlay.services.sharing import Sharing
from overlay.services.states import UNPROVEN, State, after_datagram, after_tcp, timeouts
from overlay.services.watching import Watching
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM
from overlay.wire.service_control import FlowsTold, SyncedFlow
from peers import toml
from tests import packets
from tests.packets import ACK, SYN
from tests.sim import World

VIPS = {4: "203.0.113.80", 6: "2001:db8:9::80"}
CLIENTS = {4: "198.51.100.{}", 6: "2001:db8:7::{}"}
DIRECTORS, SERVERS, STRANGER = ("lb1", "lb2"), ("web1", "web2", "web3", "static"), "mallory"
HOSTS = (*DIRECTORS, *SERVERS, STRANGER)
BY_HAND = (ByHand(), ByHand(is_drained=True), ByHand(is_disabled=True), ByHand(weight=3), ByHand(weight=0))
SETTLED = 12.0  # seconds in which directors tell each other of servers and flows, all their rounds together
REFRESH = 310.0  # seconds during which packets of a flow are not reported
AT_ONCE = 0.05  # seconds in which everything is done that a packet starts


@dataclass(frozen=True)
class File:
    """What the peers file says, the same at every host; *weights* are those of web1 to web3, None for one
    that is gone.
    """

    weights: tuple[int | None, ...] = (1, 1, 1)
    scheduler: str = "maglev"
    persistence: int = 0
    has_sorry: bool = False
    on_failure: str = "remove"

    def table(self, nodes):
        lines = ['[network]\nprefix = "10.244.0.0/16"\n']
        for node in nodes:
            key = base64.b64encode(node.key.public).decode()
            lines.append(f'[peers.{node.name}]\npublic_key = "{key}"\naddress = "{node.inner()}"\n')
        servers = ", ".join(
            f'{{ peer = "{name}", weight = {weight} }}'
            for name, weight in zip(SERVERS, self.weights, strict=False)
            if weight is not None
        )
        sorry = '"static"' if self.has_sorry else ""
        return toml.parse(
            "".join(lines)
            + f'[services.web]\naddress = ["{VIPS[4]}", "{VIPS[6]}"]\nports = 80\nprotocol = ["tcp", "udp"]\n'
            f'directors = ["lb1", "lb2"]\nscheduler = "{self.scheduler}"\npersistence = {self.persistence}\n'
            f'servers = [{servers}]\non_failure = "{self.on_failure}"\nquorum = 2\n'
            'check = { kind = "tcp", retries = 0 }\n' + (f"sorry = {sorry}\n" if sorry else ""),
            Path("peers.toml"),
        )


class Agent:
    """What the agent of a director does for services: it watches servers, and tells and hears of them."""

    def __init__(self, site, node):
        self.site, self.node = site, node
        self.begin()

    def begin(self):
        """Know only the peers file; the first checks have succeeded."""
        self.numbers, self.settings, self.told = Numbers(), Settings(), None
        self.watching = Watching(lambda: 0.0)
        self.sharing = Sharing(self.node.name, self.settings, lambda: self.watching.healths)
        self.adopt()
        for key in list(self.standings):
            self.check(key, is_good=True)

    def adopt(self):
        """Use the current file."""
        now, service = self.site.world.clock.now, self.site.service
        self.watching.adopt({"web": service}, now)
        self.sharing.adopt([service], HOSTS, (), now)
        self._apply()
        number = self.numbers.service("web")
        self.node.tell(instructions.set_service(service, number, self.node.name, self._number))
        self._tell_servers()
        ways = [(ip_address(each).packed, ip_address(each).max_prefixlen, VIRTUAL) for each in VIPS.values()]
        self.node.tell(Routes(ways, [], is_last=True))

    def check(self, key, *, is_good):
        """End a check of the server *key* with a result."""
        now = self.site.world.clock.now
        for probe in self.watching.run_now("web", key, now):
            self.watching.due(now, 1)
            self.watching.finish(probe, Result(is_good, ""), now)
        self._tell_servers()

    def set_by_hand(self, key, by_hand):
        servers = {each.key: each for each in self.site.service.entries}
        now = self.site.world.clock.now
        self.sharing.set_by_hand(self.site.service, servers[key], by_hand, int(now * 1000), now)
        self._apply()
        self._tell_servers()

    def turn(self):
        """Take the messages of the other director, and send what is due."""
        now, reported = self.site.world.clock.now, self.node.reported
        for report in [each for each in reported if isinstance(each, ControlReceived)]:
            said = self.sharing.heard(HOSTS[self._host(report.peer)], control.parse(report.payload), now)
            for each in said or ():
                self._say(each)
        reported.clear()
        self._apply()
        self.watching.look(now)
        self._tell_servers()
        for each in self.sharing.handle_deadline(now):
            self._say(each)

    def next_deadline(self):
        return self.sharing.next_deadline()

    def _say(self, said):
        for name in said.peers:
            peer = self.node.peer(self._number(name))
            keypair = peer.keypairs.usable(self.site.world.clock.now)
            if keypair is not None:
                self.node.core.outbound.send_payload(peer, keypair, control.build(said.message))

    def _apply(self):
        now = self.site.world.clock.now
        for service, key, by_hand in self.settings.by_hand():
            if self.watching.healths[service].by_hand.get(key, ByHand()) != by_hand:
                self.watching.set_by_hand(service, key, by_hand, now)

    def _tell_servers(self):
        health = self.watching.healths["web"]
        health.look(self.site.world.clock.now)
        elsewhere = self.sharing.elsewhere(health.service)
        command = instructions.set_servers(health, self.numbers, self._number, elsewhere)
        if command != self.told:
            self.told = command
            self.node.tell(command)
        self.site.twin.set_standings(self.node.name, health.standings)

    def _number(self, name):
        return OWN if name == self.node.name else self.site.numbers[self.node.name, name]

    def _host(self, number):
        return next(
            HOSTS.index(other) for (own, other), each in self.site.numbers.items()
            if own == self.node.name and each == number
        )  # fmt: skip

    @property
    def standings(self):
        return self.watching.healths["web"].standings


@dataclass
class Flow:
    """A flow at *server*; *at* has for each director the life of the server that it assigns the flow to.

    A director that has had no packet of it may have to find it by its table: *table* has by director which that was.
    """

    packet: dict
    is_tcp: bool
    server: str
    at: dict = field(default_factory=dict)
    table: dict = field(default_factory=dict)
    seen: dict = field(default_factory=dict)
    state: State = State.NONE


class Twin:
    """The invariants of flows: the server of each, and the lives of the servers as each director sees them."""

    def __init__(self):
        self.lives, self.takers, self.tables, self.flows, self.count = {}, {}, {}, [], 0

    def set_standings(self, director, standings):
        lives = self.lives.setdefault(director, {})
        for key in [key for key in lives if key not in standings or standings[key].flows is FlowPolicy.NONE]:
            del lives[key]
        for key, standing in standings.items():
            if standing.flows is not FlowPolicy.NONE and key not in lives:
                self.count += 1
                lives[key] = self.count
        table = {key: standing.effective for key, standing in standings.items() if standing.effective}
        self.takers[director] = set(table)
        if self.tables.get(director) is None or self.tables[director][1] != table:
            self.count += 1
            self.tables[director] = self.count, table

    def begin(self, director):
        """Record that *director* does not know any flows any more."""
        for flow in self.flows:
            flow.at.pop(director, None)

    def knows(self, director, flow, now):
        """Return whether the director must have the flow at its server, and nowhere else."""
        life = flow.at.get(director)
        if life is None or self.lives[director].get(flow.server) != life:
            return False
        if flow.table.get(director, self.tables[director][0]) != self.tables[director][0]:
            return False
        return flow.seen[director] + timeouts()[flow.state] > now + 1

    def settle(self, now, *, is_told):
        """Note that the directors have told each other the state of servers and their flows: all, or those that they
        could not derive.
        """
        for flow in self.flows:
            if flow.state in UNPROVEN:
                continue
            for one, other in (DIRECTORS, DIRECTORS[::-1]):
                has_it = self.knows(one, flow, now) and one not in flow.table
                if not has_it or (self.knows(other, flow, now) and other not in flow.table):
                    continue
                life = self.lives[other].get(flow.server)
                if life is not None:
                    flow.at[other], flow.seen[other] = life, flow.seen[one] - REFRESH
                    flow.table[other] = self.tables[other][0]
                    if is_told:
                        del flow.table[other]


class Site:
    """All hosts.  Clients are behind the directors; *active* is the one that their packets come to."""

    def __init__(self, file):
        self.world, self.twin, self.file = World(ciphers=[AES_256_GCM]), Twin(), file
        self.nodes = {name: self.world.node(name) for name in HOSTS}
        self.numbers = {}
        for one in HOSTS:
            for other in HOSTS:
                if one != other and not {one, other} <= set(SERVERS):
                    self.numbers[one, other] = self.nodes[one].know(self.nodes[other])
        for one, other in self.numbers:
            if HOSTS.index(one) < HOSTS.index(other):
                self.nodes[one].send(self.nodes[other])
        self.active, self.ports = DIRECTORS[0], iter(range(2000, 60000))
        self._read(file)
        self.agents = {name: Agent(self, self.nodes[name]) for name in DIRECTORS}
        self.run(SETTLED)

    def _read(self, file):
        self.file, self.tables = file, file.table(self.nodes.values())
        self.service = self.tables.services["web"]
        for name, node in self.nodes.items():
            node.tell(
                instructions.set_permits(
                    self.tables,
                    self.tables.peers[name],
                    lambda other, own=name: OWN if other == own else self.numbers.get((own, other), 99),
                )
            )

    def run(self, seconds):
        end = self.world.clock.now + seconds
        while True:
            for agent in self.agents.values():
                agent.turn()
            now = self.world.clock.now
            due = min(end, *(agent.next_deadline() for agent in self.agents.values()))
            self.world.run(max(AT_ONCE, due - now))
            if self.world.clock.now >= end:
                break
        for node in self.nodes.values():
            node.received.clear()

    def settle(self):
        self.run(SETTLED)
        is_told = SCHEDULERS[self.file.scheduler].hashed is Hashed.NOTHING
        self.twin.settle(self.world.clock.now, is_told=is_told)

    def deliver(self, packet):
        """Send a packet of a client to the active director; return the host that it is delivered to."""
        for node in self.nodes.values():
            node.received.clear()
        self.nodes[self.active].tun.outgoing.append(packets.PLAIN + packet)
        self.world.run(AT_ONCE)
        found = [name for name in HOSTS if packet in self.nodes[name].received]
        others = [each for name in HOSTS if name != self.active for each in self.nodes[name].received]
        assert others == [packet] * len(found)
        assert len(found) <= 1
        return found[0] if found else None

    # Steps of a story

    def open(self, client, version, is_tcp, is_proven):
        port = next(self.ports)
        ends = {
            "ports": (port, 80), "source": CLIENTS[version].format(client + 1), "destination": VIPS[version],
            "version": version,
        }  # fmt: skip
        flow = Flow(ends, is_tcp, "")
        self.send(flow, SYN)
        if flow.server:
            self.twin.flows.append(flow)
            if is_proven:
                self.send(flow, ACK)

    def packet(self, number, flags):
        if self.twin.flows:
            self.send(self.twin.flows[number % len(self.twin.flows)], flags)

    def send(self, flow, flags):
        twin, director, now = self.twin, self.active, self.world.clock.now
        packet = (
            packets.tcp(b"", flags=flags, **flow.packet) if flow.is_tcp else packets.udp(b"?", **flow.packet)
        )
        knows, takers = twin.knows(director, flow, now), twin.takers[director]

        host = self.deliver(packet)

        key = None if host is None else f"{host}:0"
        if knows:
            assert key == flow.server
        elif key is not None:
            assert key in takers | ({flow.server} & set(twin.lives[director]))
        else:
            assert flow.server or not takers or self.file.scheduler == "ovf"
        if key is None:
            if flow in twin.flows:
                twin.flows.remove(flow)
            return
        if not knows and flow.server:
            twin.flows.remove(flow)  # the twin does not know how far it is at this director
            return
        if key != flow.server:
            flow.server, flow.state = key, State.NONE
        flow.state = after_tcp(flow.state, flags) if flow.is_tcp else after_datagram(flow.state)
        flow.at[director], flow.seen[director] = twin.lives[director][key], now
        flow.table.pop(director, None)
        if flow.state is State.CLOSE:
            twin.flows.remove(flow)

    def check(self, place, server, is_good):
        agent = self.agents[DIRECTORS[place]]
        key = f"{SERVERS[server]}:0"
        if key in agent.standings:
            agent.check(key, is_good=is_good)

    def by_hand(self, place, server, by_hand):
        agent, key = self.agents[DIRECTORS[place]], f"{SERVERS[server]}:0"
        if key in agent.standings:
            agent.set_by_hand(key, by_hand)
            self.run(AT_ONCE)

    def reload(self, file):
        before, self.file = self.file, file
        self._read(file)
        for agent in self.agents.values():
            agent.adopt()
        if file.scheduler != before.scheduler:
            self.settle()

    def takeover(self, is_planned):
        if is_planned:
            self.settle()
        self.active = DIRECTORS[1 - DIRECTORS.index(self.active)]

    def restart(self, place):
        """Restart a director that is not the active one."""
        name = DIRECTORS[place]
        if name == self.active:
            self.takeover(True)
        self.nodes[name].restart()
        self.twin.begin(name)
        self._read(self.file)
        self.agents[name].begin()
        self.run(SETTLED)
        for other in HOSTS:
            if other != name:
                self.nodes[name].send(self.nodes[other])
        self.settle()

    def intrude(self, what, version):
        """Let a host without permission try to reach servers."""
        client, vip = CLIENTS[version].format(7), VIPS[version]
        to_service = packets.udp(b"forged", ports=(7, 80), source=client, destination=vip, version=version)
        answer = packets.udp(b"forged", ports=(80, 7), source=vip, destination=client, version=version)
        sender, receivers, packet = {
            "stranger asks servers": (STRANGER, SERVERS, to_service),
            "stranger asks directors": (STRANGER, DIRECTORS, to_service),
            "server asks directors": (SERVERS[0], DIRECTORS, to_service),
            "stranger answers": (STRANGER, DIRECTORS, answer),
            "server answers as a client": (SERVERS[0], DIRECTORS, packets.udp(b"", source=client, version=version, destination=vip)),
        }[what]  # fmt: skip
        for receiver in receivers:
            node, number = self.nodes[sender], self.numbers[sender, receiver]
            node.route(
                [
                    (f"{vip}/{32 if version == 4 else 128}", number),
                    (f"{client}/{32 if version == 4 else 128}", number),
                ]
            )
            self.nodes[receiver].received.clear()
            before = self.nodes[receiver].drops["source"]
            node.tun.outgoing.append(packets.PLAIN + packet)
            self.world.run(AT_ONCE)
            assert self.nodes[receiver].received == []
            assert self.nodes[receiver].drops["source"] == before + 1

    def lie(self, place, server, number):
        """Let a host that is not a director report flows."""
        if not self.twin.flows:
            return
        flow = self.twin.flows[number % len(self.twin.flows)].packet
        row = SyncedFlow(
            6, State.ESTABLISHED, 0, zlib.crc32(f"{SERVERS[server]}:0".encode()), ip_address(flow["source"]).packed,
            flow["ports"][0], ip_address(flow["destination"]).packed, 80,
        )  # fmt: skip
        node = self.nodes[STRANGER]
        peer = node.peer(self.numbers[STRANGER, DIRECTORS[place]])
        told = FlowsTold(zlib.crc32(b"web"), (row,))
        node.core.outbound.send_payload(peer, peer.keypairs.current, control.build(told))
        self.world.run(AT_ONCE)
