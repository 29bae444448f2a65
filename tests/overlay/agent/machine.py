"""An agent whose forwarder and host are simulated."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from types import SimpleNamespace

import trio

from overlay.agent import Agent
from overlay.config import Options, settle
from overlay.crypto.keys import PrivateKey
from overlay.encap.encapsulation import Role
from overlay.errors import HostError
from overlay.host import clock, control
from overlay.host.firewall.rules import Firewall
from overlay.host.names import Names as KnownNames
from overlay.link.messages import (
    OWN,
    AskCounters,
    Begin,
    Counters,
    Handshake,
    PingPeer,
    Ponged,
    RemovePeer,
    Routes,
    SetPeer,
)
from overlay.session.constants import Timing
from overlay.session.outputs import Transmit
from overlay.session.sessions import Sessions
from overlay.supervision.forwarder import ForwarderGoneError, OtherReleaseError
from overlay.supervision.supervisor import Supervisor
from peers.stores import Location
from peers.stores.memory import MemoryStore
from tests.models import SlowForwarder
from tests.peers.examples import peer, render, table

PRIVATE, TOKYO_PRIVATE = PrivateKey(bytes(range(32))), PrivateKey(bytes(range(1, 33)))
PARIS = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
TOKYO = peer("tokyo", "10.244.2.0/24", public_key=TOKYO_PRIVATE.public, endpoint="192.0.2.2")
ROME = peer("rome", "10.244.3.0/24", "192.168.77.0/24", endpoint="192.0.2.3")
TOKYO_AT, ROME_AT = ("192.0.2.2", 51820), ("192.0.2.3", 51820)
ELSEWHERE, FAR_AWAY = ("203.0.113.9", 4500), ("203.0.113.10", 4500)
PATIENCE = 60.0  # seconds; each of these stories takes a fraction of one


class FakeForwarder:
    """A forwarder that obeys, and reports what a test wants it to report."""

    def __init__(self, machine):
        self.machine = machine
        self.pid = 1000 + len(machine.forwarders)
        self.commands = []
        self.is_gone = False
        self.dies_after, machine.dies_after = machine.dies_after, math.inf
        self.may_begin = trio.Event()
        self.answers_counters = True
        self.packet_path, self.lanes, self.aes = "interpreted", 1, ""
        self.is_hung = False
        self._changed = trio.Event()
        self._reports = []
        machine.forwarders.append(self)
        if not machine.holds_forwarders:
            self.may_begin.set()

    def say(self, *reports):
        self._reports += reports
        self._changed.set()

    def die(self):
        self.is_gone = True
        self._changed.set()
        self.may_begin.set()

    async def send(self, command, descriptors=()):
        await trio.lowlevel.checkpoint()
        if isinstance(command, SetPeer):
            await trio.sleep(self.machine.seconds_per_command)
        if len(self.commands) >= self.dies_after:
            self.die()
        if self.is_gone:
            raise ForwarderGoneError
        self.commands.append(command)
        if isinstance(command, AskCounters) and self.answers_counters and not self.is_hung:
            self.say(Counters(command.serial, self.machine.counters, {"tun": 1}, True))
        if isinstance(command, PingPeer) and command.peer == OWN and not self.is_hung:
            self.say(Ponged(OWN, command.identifier, None))

    def disconnect(self):
        self.die()

    async def hear(self):
        await trio.lowlevel.checkpoint()

    async def get_ready(self):
        await self.may_begin.wait()
        if self.machine.is_upgraded:
            raise OtherReleaseError("restart the agent")
        if self.is_gone:
            raise ForwarderGoneError
        return ["a note"]

    async def receive(self, most=1):
        while not self._reports:
            if self.is_gone:
                raise ForwarderGoneError
            self._changed = trio.Event()
            await self._changed.wait()
        reports, self._reports = self._reports[:most], self._reports[most:]
        return reports

    async def stop(self):
        self.die()
        return "exit code 0"

    def told(self, *kinds):
        return [command for command in self.commands if isinstance(command, kinds)]

    def in_force(self):
        """Return the peers and prefixes that a real forwarder would have now."""
        slow = SlowForwarder()
        slow.take(self.told(SetPeer, RemovePeer, Routes))
        return slow


class FakeHost:
    """A host on which everything works, until *refusal* says why not."""

    interface, mtu, icmp = "overlay0", 1420, None
    paths, plan = (), None
    mtu_reason = "1500 on the way to tokyo at 192.0.2.2, less 80 for the tunnel"

    def links(self):
        return []

    def __init__(self):
        self.adopted = []
        self.refusal = None
        self.found = []
        self.affecting = set()
        self.too_narrow = set()  # endpoints to which the kernel may fragment
        self.port = 51820
        self.mends = self.renewals = 0
        self.left = None  # the routes that are left after others removed some
        self.is_present = True
        self._ours, self.others = socket.socketpair()
        self._ours.setblocking(False)
        self.watch = SimpleNamespace(
            fileno=self._ours.fileno, drain=self._drain, take_move=lambda: True, take_loss=lambda: False
        )
        self.device = SimpleNamespace(descriptors=[7], offloads=SimpleNamespace(udp=True))
        self.sockets = {"wireguard": [self._udp()]}
        self.rules = SimpleNamespace(hold=lambda wanted: [])

    @property
    def underlay(self):
        return [udp for opened in self.sockets.values() for udp in opened]

    @property
    def udp(self):
        return self.underlay

    def close(self):
        self._ours.close()
        self.others.close()

    def ask_paths(self, node, endpoints):
        return {}

    def adopt(self, node, endpoints, planned=None):
        if self.refusal:
            raise HostError(self.refusal)
        self.adopted.append((node, endpoints))
        if self.too_narrow & {sockaddr for _, sockaddr in endpoints}:
            self.paths = ()
        before, port = self.sockets, node.table.network.port_for("wireguard")
        kept = {name for name in before if name != "wireguard" or port == self.port}
        self.port = port
        self.sockets = {
            each.name: before[each.name] if each.name in kept else [self._udp()]
            for each in node.encapsulations
        }
        return [udp for name, old in before.items() if self.sockets.get(name) is not old for udp in old]

    def leave(self, replaced, now):
        for udp in replaced:
            udp.is_left = True

    def close_left(self, now):
        pass

    def renew(self):
        self.renewals += 1
        if self.refusal:
            raise HostError(self.refusal)

    def overruns(self):
        return 0

    def findings(self, node, firewall=None, checks=None):
        return list(self.found)

    def devices(self, node):
        return [self.interface]

    def read_firewall(self):
        return Firewall()

    def learnt_mtus(self):
        return {}

    def is_affected_by(self, name, endpoint):
        return endpoint in self.affecting

    def may_lack_routes(self):
        return self.left is not None

    def read_routes(self):
        return self.left

    def mend(self, routes):
        assert routes is self.left
        self.mends += 1
        if self.refusal:
            raise HostError(self.refusal)
        return ""

    def _drain(self):
        with contextlib.suppress(BlockingIOError):
            return bool(self._ours.recv(1000))
        return False

    def check_device(self):
        if not self.is_present:
            raise HostError("interface overlay0 was removed by another program: start the agent again")

    @staticmethod
    def _udp():
        return SimpleNamespace(
            can_segment=True,
            family=socket.AF_INET,
            port=51820,
            role=Role.ALL,
            protocol=17,
            lane=0,
            fileno=lambda: 8,
            is_left=False,
        )


class Machine:
    """One agent with its surroundings, and methods that make events happen to it."""

    def __init__(self, directory, *peers):
        self.forwarders = []
        self.holds_forwarders = False
        self.is_upgraded = False
        self.dies_after = math.inf  # commands that the next forwarder takes
        self.seconds_per_command = 0  # until the forwarder has taken a peer
        self.start_refusals = 0
        self.counters = []
        self.host = FakeHost()
        self.store = MemoryStore(render(table(PARIS, *peers)))
        peers = Location.parse(str(directory / "peers.toml"))
        self.wg_directory = directory / "wireguard"
        self.options = Options(peers, directory / "key", "overlay0", wg_directory=self.wg_directory)
        self.write_key(PRIVATE)
        self.timing = Timing()
        self.control_path = directory / "overlay0.sock"
        self.send_signal, self._signals = None, None

    def write_key(self, private):
        self.options.key.touch(mode=0o600)
        self.options.key.write_text(private.to_base64())

    def write(self, *peers, **fields):
        self.store.write(render(table(*peers, **fields)))

    def start_forwarder(self):
        if self.start_refusals and self.forwarders:
            self.start_refusals -= 1
            raise HostError("the forwarder could not be started: Cannot allocate memory")
        return FakeForwarder(self)

    @property
    def forwarder(self):
        return self.forwarders[-1]

    async def run(self):
        node = settle(self.store, PRIVATE, self.options)
        self.supervisor = Supervisor(self.start_forwarder)
        self.agent = Agent(
            self.options, node, self.store, self.timing, self.host, self.supervisor, KnownNames(None)
        )
        await self.agent.set_up()
        self.send_signal, signals = trio.open_memory_channel(10)
        listening = control.listen(self.control_path)
        try:
            await self.agent.run(listening.socket, signals)
        finally:
            listening.close()
            self.host.close()

    async def ready(self):
        await until(lambda: self.forwarders and self.forwarder.told(Begin) and self.control_path.exists())
        await trio.testing.wait_all_tasks_blocked()

    async def greeted(self):
        """Return once the reachable peers have been called, so that no handshake is under way."""
        await self.ready()
        reachable = [
            each for each in self.agent._engine.roster.by_number.values() if each.endpoint is not None
        ]
        await until(lambda: len(self.forwarder.told(Transmit)) == len(reachable))
        await trio.testing.wait_all_tasks_blocked()

    async def ask(self, **request):
        async with await trio.open_unix_socket(str(self.control_path)) as stream:
            await stream.send_all(control.encode(request))
            *pieces, answer = [
                control.decode(line) for line in b"".join([each async for each in stream]).splitlines(True)
            ]
            self.pieces = [each["rows"] for each in pieces]
            return answer

    async def wg(self, *requests):
        """Return the answer to each of *requests* of `wg`, which arrive on one connection."""
        async with await trio.open_unix_socket(str(self.wg_directory / "overlay0.sock")) as stream:
            answers = []
            for request in requests:
                await stream.send_all(request if isinstance(request, bytes) else request.encode())
                answer = b""
                while not answer.endswith(b"\n\n"):
                    chunk = await stream.receive_some()
                    if not chunk:
                        break
                    answer += chunk
                answers.append(answer.decode())
            return answers

    async def status(self):
        answer = await self.ask(op="status")
        return {**answer["status"], "peers": [row for rows in self.pieces for row in rows]}


async def until(condition):
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


def initiation(private=TOKYO_PRIVATE, source=TOKYO_AT):
    """Return what a forwarder reports when the peer with *private* calls."""
    sessions = Sessions(private, entropy=os.urandom, wall_ns=clock.wall_ns)
    sessions.add_peer(1, PRIVATE.public)
    (transmit,) = sessions.want(1, clock.now())
    return Handshake(transmit.datagram, source)
