"""The agent between a forwarder and a host in memory.  With real ones it is tested in tests/netns/."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from overlay.agent import Agent
from overlay.answers.status import ROWS_AT_ONCE
from overlay.config import Options, settle
from overlay.crypto.keys import PrivateKey, encode_key
from overlay.diagnosis.finding import Finding
from overlay.encap.encapsulation import Role
from overlay.ending import StoppedError, until_stopped
from overlay.errors import HostError
from overlay.forwarder import ForwarderGoneError, OtherReleaseError
from overlay.host import clock, control
from overlay.host.firewall.rules import Firewall
from overlay.host.names import Names as KnownNames
from overlay.journal import LOSSES_BURST
from overlay.link.messages import (
    OWN,
    PINGS_WAITING,
    AskCounters,
    Begin,
    Confirmed,
    Counters,
    Handled,
    Handshake,
    Moved,
    PeerCounters,
    PingPeer,
    Ponged,
    Ready,
    RemovePeer,
    RenewSources,
    Retired,
    Routes,
    SetEndpoint,
    SetNode,
    SetPeer,
    Silence,
    Sockets,
    Start,
    Wanted,
)
from overlay.policing import BURST, BURST_PER_PEER
from overlay.reload import RETRY
from overlay.relocations import REPLAN_PAUSE
from overlay.session.constants import Timing
from overlay.session.outputs import GiveUp, InstallKeypair, Transmit
from overlay.session.sessions import Sessions
from overlay.supervisor import HANG_TIME, PROOF_INTERVAL, START_TIME, Supervisor
from overlay.upkeep import UNSET_CLOCK
from peers.mac import derived_mac
from peers.stores import Location
from peers.stores.memory import MemoryStore
from tests.models import SlowForwarder
from tests.overlay.test_resolver import Names
from tests.peers.examples import key, peer, render, table

ROOT = Path(__file__).parents[2]
PRIVATE, TOKYO_PRIVATE = PrivateKey(bytes(range(32))), PrivateKey(bytes(range(1, 33)))
PARIS = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
TOKYO = peer("tokyo", "10.244.2.0/24", public_key=TOKYO_PRIVATE.public, endpoint="192.0.2.2")
ROME = peer("rome", "10.244.3.0/24", "192.168.77.0/24", endpoint="192.0.2.3")
TOKYO_AT, ROME_AT = ("192.0.2.2", 51820), ("192.0.2.3", 51820)
ELSEWHERE, FAR_AWAY = ("203.0.113.9", 4500), ("203.0.113.10", 4500)
PATIENCE = 10.0  # seconds; each of these stories takes a fraction of one


class FakeForwarder:
    """A forwarder that does as it is told and says what a test wants it to say."""

    def __init__(self, machine):
        self.machine = machine
        self.pid = 1000 + len(machine.forwarders)
        self.commands = []
        self.is_gone = False
        self.may_begin = trio.Event()
        self.answers_counters = True
        self.packet_path = "interpreted"
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
        if self.is_gone:
            raise ForwarderGoneError
        self.commands.append(command)
        if isinstance(command, AskCounters) and self.answers_counters:
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
    paths = ()
    mtu_reason = "1500 on the way to tokyo at 192.0.2.2, less 80 for the tunnel"

    def links(self):
        return []

    def __init__(self):
        self.adopted = []
        self.refusal = None
        self.found = []
        self.affecting = set()
        self.too_narrow = set()  # endpoints for which the kernel is left to cut
        self.port = 51820
        self.mends = self.renewals = 0
        self.is_present = True
        self._ours, self.others = socket.socketpair()
        self._ours.setblocking(False)
        self.watch = SimpleNamespace(
            fileno=self._ours.fileno, drain=self._drain, take_move=lambda: True, take_loss=lambda: False
        )
        self.device = SimpleNamespace(descriptor=7, offloads=SimpleNamespace(udp=True))
        self.sockets = {"wireguard": [self._udp()]}

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

    def findings(self, node, firewall):
        return list(self.found)

    def read_firewall(self):
        return Firewall()

    def learnt_mtus(self):
        return {}

    def is_affected_by(self, name, endpoint):
        return endpoint in self.affecting

    def mend(self):
        self.mends += 1
        if self.refusal:
            raise HostError(self.refusal)

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
            fileno=lambda: 8,
            is_left=False,
        )


class Machine:
    """One agent with what it runs on, and the ways of the world to reach it."""

    def __init__(self, directory, *peers):
        self.forwarders = []
        self.holds_forwarders = False
        self.is_upgraded = False
        self.seconds_per_command = 0  # until the forwarder has taken a peer
        self.start_refusals = 0
        self.counters = []
        self.host = FakeHost()
        self.store = MemoryStore(render(table(PARIS, *peers)))
        self.options = Options(Location.parse(str(directory / "peers.toml")), directory / "key", "overlay0")
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
        """Return when the peers that can be reached have been called, so that nothing of that is under way."""
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

    async def status(self):
        answer = await self.ask(op="status")
        return {**answer["status"], "peers": [row for rows in self.pieces for row in rows]}


async def until(condition):
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


@pytest.fixture
def node(tmp_path):
    """Return a runner of ``async def story(machine)`` beside an agent that knows *peers*."""

    def run(story, *peers, before=lambda machine: None, clock=None):
        machine = Machine(tmp_path, *peers or (TOKYO, ROME))
        before(machine)

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.run)
                await story(machine)
                nursery.cancel_scope.cancel()

        trio.run(main, strict_exception_groups=True, clock=clock)
        return machine

    return run


def initiation(private=TOKYO_PRIVATE, source=TOKYO_AT):
    """Return what a forwarder reports when the peer with *private* calls."""
    sessions = Sessions(private, entropy=os.urandom, wall_ns=clock.wall_ns)
    sessions.add_peer(1, PRIVATE.public)
    (transmit,) = sessions.want(1, clock.now())
    return Handshake(transmit.datagram, source)


# How it ends


@pytest.mark.parametrize(
    ("interface", "error", "code"),
    [("all", "'all' cannot name an interface", 2), ("overlay0", "does not exist: make one", 2)],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="without root that is what is said first")
def test_start_that_cannot_be_is_refused_before_anything_is_touched(tmp_path, interface, error, code):
    (tmp_path / "peers.toml").write_text(render(table(PARIS, TOKYO)))

    done = up(tmp_path, interface=interface)

    assert done.returncode == code
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_start_without_the_capability_names_it(tmp_path):
    done = up(
        tmp_path, interface="absent0", prelude="from overlay.host import privileges; privileges.keep_only([])"
    )

    assert done.returncode == 1
    assert "overlay up has no CAP_NET_ADMIN" in done.stderr


def up(directory, interface="overlay0", prelude="pass"):
    code = (
        f"{prelude}\nimport sys; sys.argv[1:] = "
        f"['up', '--peers', '{directory}/peers.toml', '--key', '{directory}/key', '--interface', '{interface}']\n"
        "from overlay.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_agent(node, number):
    async def story(machine):
        await machine.ready()
        await machine.send_signal.send(number)
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story)
    with until_stopped():
        raise raised.value


def test_signal_during_the_start_stops_the_agent(node):
    async def story(machine):
        await until(lambda: machine.send_signal is not None)
        await machine.send_signal.send(signal.SIGTERM)
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story, before=lambda machine: setattr(machine, "holds_forwarders", True))
    with until_stopped():
        raise raised.value


def test_down_is_answered_before_the_agent_stops(node):
    replies = []

    async def story(machine):
        await machine.ready()
        replies.append(await machine.ask(op="down"))
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup), contextlib.suppress(StoppedError):
        node(story)
    assert replies == [{"ok": True, "pid": os.getpid()}]


# The forwarder


def test_forwarder_gets_the_sockets_to_ask_the_kernel_by(node):
    async def story(machine):
        machine.host.paths = [
            SimpleNamespace(family=family, fileno=lambda: 9) for family in (socket.AF_INET, socket.AF_INET6)
        ]
        await machine.ready()

        (told,) = machine.forwarder.told(SetNode)
        assert told.families == [socket.AF_INET, socket.AF_INET6]

    node(story)


def test_forwarder_is_told_when_the_kernel_is_left_to_cut_and_the_mtu_stays(node):
    async def story(machine):
        machine.host.paths = [SimpleNamespace(family=socket.AF_INET, fileno=lambda: 9)]
        machine.host.affecting.add(ELSEWHERE)
        machine.host.too_narrow.add(ELSEWHERE)
        await machine.greeted()

        machine.forwarder.say(Moved(1, ELSEWHERE))
        await until(lambda: len(machine.host.adopted) == 2)
        await trio.testing.wait_all_tasks_blocked()

        assert [told.families for told in machine.forwarder.told(SetNode)] == [[socket.AF_INET], []]

    node(story)


def test_new_forwarder_is_told_everything_before_it_begins(node):
    async def story(machine):
        await machine.ready()

        commands = machine.forwarder.commands
        begin = commands.index(Begin())
        kinds = [type(command) for command in commands[:begin]]
        assert kinds == [Start, SetNode, Sockets, SetPeer, SetPeer, Routes, SetEndpoint, SetEndpoint]
        assert machine.forwarder.told(SetEndpoint) == [
            SetEndpoint(1, TOKYO_AT, "configuration"),
            SetEndpoint(2, ROME_AT, "configuration"),
        ]
        assert len(machine.forwarder.in_force().in_force) == 4

    node(story)


def test_forwarder_of_a_tap_is_told_so_and_the_own_ethernet_address(node):
    def use_a_tap(machine):
        machine.store = MemoryStore(render(table(PARIS, TOKYO, device="tap")))

    async def story(machine):
        await machine.ready()

        assert [each.is_tap for each in machine.forwarder.told(Start)] == [True]
        assert [each.macs for each in machine.forwarder.told(SetNode)] == [[derived_mac("paris")]]
        assert (await machine.status())["device"] == "tap"

    node(story, before=use_a_tap)


def test_every_peer_that_can_be_reached_is_greeted_at_the_start(node):
    async def story(machine):
        await until(lambda: machine.forwarders and len(machine.forwarder.told(Transmit)) == 2)

        assert [transmit.peer for transmit in machine.forwarder.told(Transmit)] == [1, 2]

    node(story, TOKYO, ROME, peer("silent", "10.244.4.0/24"))


def test_forwarder_that_never_gets_ready_ends_the_start_with_a_sentence(node):
    async def story(machine):
        await trio.sleep(START_TIME + 1)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(
            story,
            before=lambda machine: setattr(machine, "holds_forwarders", True),
            clock=trio.testing.MockClock(autojump_threshold=0.01),
        )
    with (
        pytest.raises(HostError, match="the forwarder accepted nothing and was not ready for 30 s"),
        until_stopped(),
    ):
        raise raised.value


def test_a_start_may_take_long_as_long_as_the_forwarder_takes_what_it_is_told(node):
    async def story(machine):
        began = trio.current_time()

        while not (machine.forwarders and machine.forwarder.told(Begin)):
            await trio.sleep(1)

        assert trio.current_time() - began > START_TIME

    def slow(machine):
        machine.seconds_per_command = START_TIME * 0.9

    node(story, before=slow, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_forwarder_that_dies_while_it_starts_ends_the_start_with_a_sentence(node):
    async def story(machine):
        await until(lambda: machine.forwarders)
        machine.forwarder.die()
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story, before=lambda machine: setattr(machine, "holds_forwarders", True))
    with pytest.raises(HostError, match="the forwarder did not start: exit code 0"), until_stopped():
        raise raised.value


def test_forwarder_that_died_has_a_successor_that_is_told_the_same_and_greets_at_once(node):
    async def story(machine):
        await until(lambda: machine.forwarders and len(machine.forwarder.told(Transmit)) == 2)
        first = machine.forwarder

        first.die()
        await until(lambda: machine.forwarder is not first and len(machine.forwarder.told(Transmit)) == 2)

        begin = first.commands.index(Begin())
        assert machine.forwarder.commands[: begin + 1] == first.commands[: begin + 1]

    node(story)


def test_successor_gets_no_socket_that_another_forwarder_had(node, caplog):
    async def story(machine):
        await machine.ready()
        assert machine.host.renewals == 0
        machine.host.refusal = "UDP port 51820 is taken by another program"

        machine.forwarder.die()
        await until(lambda: machine.host.renewals == 2)
        assert len(machine.forwarders) == 1
        machine.host.refusal = None
        await until(lambda: len(machine.forwarders) == 2 and machine.forwarder.told(Begin))

        assert machine.host.renewals == 3

    node(story)
    assert "forwarder not restarted, trying again" in caplog.text
    assert "UDP port 51820 is taken by another program" in caplog.text


FLOODS = {
    "garbage": None,
    "wishes": Wanted(1),
    "wishes for nobody": Wanted(77),
    "moves": Moved(1, ELSEWHERE),
    "moves of nobody": Moved(77, ELSEWHERE),
    "silence": Silence(1, False),
    "confirmations": Confirmed(1, 5),
    "retirements": Retired(5),
    "answers to no ping": Ponged(OWN, 77, 0.1),
    "counters that nobody asked for": Counters(77, [PeerCounters(1, None, 0, 0, 0, 0, 0.0, {})], {}, True),
    "beginnings": Ready([]),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_forwarder_that_reports_without_end_is_ended_with_one_line_and_has_a_successor(node, caplog, kind):
    async def story(machine):
        await machine.greeted()
        first, most = machine.forwarder, int(BURST + 2 * BURST_PER_PEER)
        with caplog.at_level(logging.INFO, "overlay"):
            first.say(*[FLOODS[kind]] * 2 * most)
            await until(lambda: machine.forwarder is not first and machine.forwarder.told(Begin))

        assert first.is_gone
        assert caplog.text.count("forwarder sends too many reports") == 1
        assert len(caplog.records) < 20
        assert {row["name"] for row in (await machine.status())["peers"]} == {"tokyo", "rome"}

    node(story)


def test_peer_that_a_forwarder_calls_silent_and_heard_in_turn_is_told_in_few_lines(node, caplog):
    async def story(machine):
        await machine.greeted()
        with caplog.at_level(logging.INFO, "overlay"):
            for _ in range(5000):
                machine.forwarder.say(Silence(1, False), Silence(1, True))
            await until(lambda: not machine.forwarder._reports)
            await trio.testing.wait_all_tasks_blocked()

        assert caplog.text.count("peer=tokyo") == LOSSES_BURST

    node(story)


def test_peer_that_has_fallen_silent_has_a_note_with_what_to_look_at_until_it_is_heard(node):
    async def tokyo_is(machine, state):
        while (status := await machine.status())["peers"][0]["state"] != state:
            await trio.sleep(0.01)
        return status

    async def story(machine):
        await machine.greeted()
        machine.forwarder.say(initiation())
        await until(lambda: machine.forwarder.told(InstallKeypair))
        machine.forwarder.say(
            Confirmed(1, machine.forwarder.told(InstallKeypair)[0].local_index), Silence(1, False)
        )

        with trio.fail_after(PATIENCE):
            status = await tokyo_is(machine, "silent")
        (note,) = status["peers"][0]["notes"]
        assert "has answered nothing for 15 s: see whether its agent runs" in note
        assert note in status["notes"]

        machine.forwarder.say(Silence(1, True))
        with trio.fail_after(PATIENCE):
            status = await tokyo_is(machine, "up")
        assert status["peers"][0]["notes"] == []

    node(story)


def test_peer_that_is_said_to_be_anywhere_costs_the_host_few_questions(node):
    async def story(machine):
        await machine.greeted()
        asked = []
        machine.host.is_affected_by = lambda name, endpoint: asked.append(endpoint)
        for port in range(1, 10_000):
            machine.forwarder.say(Moved(1, ("192.0.2.9", port)))
        await until(lambda: not machine.forwarder._reports)
        await trio.testing.wait_all_tasks_blocked()

        assert len(asked) < 100
        assert (await machine.status())["peers"][0]["endpoint"] == "192.0.2.9:9999"

    node(story)


def test_forwarder_that_answers_nothing_any_more_has_a_successor(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.forwarder.is_hung = True

        await trio.sleep(2 * PROOF_INTERVAL + HANG_TIME)

        assert len(machine.forwarders) == 2
        assert machine.forwarder.told(Begin)
        assert "forwarder hung" in caplog.text

    node(story, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_forwarder_that_answers_now_and_then_is_kept(node):
    async def story(machine):
        await machine.ready()
        for _ in range(4):
            machine.forwarder.is_hung = True
            await trio.sleep(HANG_TIME - 2 * PROOF_INTERVAL)
            machine.forwarder.is_hung = False
            await trio.sleep(2 * PROOF_INTERVAL)

        assert len(machine.forwarders) == 1

    node(story, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_successor_is_told_where_a_peer_was_heard_last(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(Moved(1, ELSEWHERE))
        await trio.testing.wait_all_tasks_blocked()
        first = machine.forwarder

        first.die()
        await until(lambda: machine.forwarder is not first and machine.forwarder.told(Begin))

        assert SetEndpoint(1, ELSEWHERE, "configuration") in machine.forwarder.commands

    node(story)


def test_forwarder_that_cannot_be_started_again_is_tried_again(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.start_refusals = 2

        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 2 and machine.forwarder.told(Begin))

        assert (await machine.status())["forwarder_pid"] == machine.forwarder.pid

    with caplog.at_level(logging.INFO, "overlay"):
        node(story)
    assert caplog.text.count("forwarder not restarted, trying again") == 2


def test_successor_of_another_release_is_refused_with_the_remedy_in_log_and_status(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.is_upgraded = True

        machine.forwarder.die()
        await until(lambda: "restart the agent" in caplog.text)
        status = await machine.status()
        assert status["notes"][0] == "no forwarder runs, so no packet passes: restart the agent"
        machine.is_upgraded = False
        await until(lambda: len(machine.forwarders) >= 3 and machine.forwarder.told(Begin))
        await trio.testing.wait_all_tasks_blocked()
        assert not [note for note in (await machine.status())["notes"] if "no forwarder runs" in note]

    node(story)
    assert "forwarder not restarted, trying again in 0.2 s: restart the agent" in caplog.text


def test_successor_that_dies_while_it_starts_has_one_too(node):
    async def story(machine):
        await machine.ready()
        machine.holds_forwarders = True

        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 2)
        machine.holds_forwarders = False
        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 3 and machine.forwarder.told(Begin))

    node(story)


def test_table_that_changes_while_a_forwarder_starts_anew_is_in_force_afterwards(node):
    async def story(machine):
        await machine.ready()
        machine.holds_forwarders = True
        machine.forwarder.die()
        await until(lambda: len(machine.forwarders) == 2)
        machine.write(PARIS, TOKYO, peer("oslo", "10.244.7.0/24"))
        await machine.send_signal.send(signal.SIGHUP)
        await trio.sleep(0.1)
        assert "rome" in (await machine.ask(op="peer", name="nobody"))["known"]

        machine.forwarder.may_begin.set()
        await until(lambda: "oslo" in machine.agent._engine.roster.by_name)
        await trio.testing.wait_all_tasks_blocked()

        slow = machine.forwarder.in_force()
        assert slow.named(machine.agent._engine.roster, "paris") == dict(machine.agent._node.table.routes)

    node(story)


def test_table_that_changes_while_there_is_no_forwarder_is_what_the_next_is_told(node):
    async def story(machine):
        await machine.ready()
        machine.start_refusals = 3
        machine.forwarder.die()
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await machine.send_signal.send(signal.SIGHUP)
        await until(lambda: "oslo" in machine.agent._engine.roster.by_name)
        await until(lambda: len(machine.forwarders) == 2 and machine.forwarder.told(Begin))

        slow = machine.forwarder.in_force()
        assert slow.named(machine.agent._engine.roster, "paris") == dict(machine.agent._node.table.routes)

    node(story)


def test_garbage_on_the_link_is_counted(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(None, None, Wanted(1), None)

        assert (await machine.status())["drops"] == {"link": 3, "tun": 1}

    node(story)


@pytest.mark.parametrize(
    "report",
    [
        Wanted(77),
        Wanted(0),
        Confirmed(77, 5),
        Confirmed(1, 5),
        Retired(5),
        Moved(77, ELSEWHERE),
        Counters(77, [], {}, True),
        Handshake(bytes(148), ELSEWHERE),
        Handshake(b"\x01" + bytes(147), ELSEWHERE),
        Handshake(b"\x02" + bytes(91), ELSEWHERE),
        Handshake(b"\x03" + bytes(63), ELSEWHERE),
        Handshake(b"\xff" * 148, ELSEWHERE),
    ],
    ids=repr,
)
def test_report_that_makes_no_sense_disturbs_nothing(node, report):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(report)

        assert {row["name"] for row in (await machine.status())["peers"]} == {"tokyo", "rome"}

    node(story)


def test_refused_handshakes_are_counted_by_reason_and_acknowledged(node):
    async def story(machine):
        await machine.ready()
        stranger = initiation(PrivateKey(b"\x55" * 32))
        machine.forwarder.say(stranger, Handshake(b"\x01" + bytes(147), ELSEWHERE))
        await trio.testing.wait_all_tasks_blocked()

        drops = (await machine.status())["drops"]
        assert drops["initiation_unknown_peer"] == 1
        assert sum(drops.values()) == 3  # and one of the tun
        assert machine.forwarder.told(Handled) == [Handled(2)]

    node(story)


def test_caller_with_a_key_that_no_peer_has_is_shown_with_it_until_it_is_a_peer(node, caplog):
    stranger = PrivateKey(b"\x55" * 32)
    shown = encode_key(stranger.public)

    async def story(machine):
        await machine.ready()
        machine.forwarder.say(*(initiation(stranger, ROME_AT) for _ in range(3)))
        await trio.testing.wait_all_tasks_blocked()

        (row,) = (await machine.status())["strangers"]
        assert (row["public_key"], row["calls"], row["peer"]) == (shown, 3, "rome")
        assert row["endpoint"] == "192.0.2.3:51820"

        machine.write(PARIS, TOKYO, peer("rome", "10.244.3.0/24", public_key=stranger.public))
        await reload(machine)
        assert (await machine.status())["strangers"] == []

    with caplog.at_level(logging.DEBUG, "overlay"):
        node(story)
    assert f"reason=initiation_unknown_peer source=192.0.2.3:51820 public_key={shown}" in caplog.text


def test_call_of_a_peer_is_answered_with_the_keypair_first(node):
    async def story(machine):
        await machine.greeted()
        before = len(machine.forwarder.commands)

        machine.forwarder.say(initiation())
        await until(lambda: machine.forwarder.told(InstallKeypair))
        await trio.testing.wait_all_tasks_blocked()

        kinds = [type(command) for command in machine.forwarder.commands[before:]]
        assert kinds == [InstallKeypair, Transmit, Handled]

    node(story)


# Where peers are


def test_handshake_from_a_place_that_matters_to_routes_has_them_computed_anew(node):
    async def story(machine):
        await machine.ready()
        machine.host.affecting.add(ELSEWHERE)

        machine.forwarder.say(initiation(source=ELSEWHERE))
        await until(lambda: len(machine.host.adopted) == 2)

        assert ("tokyo", ELSEWHERE) in machine.host.adopted[-1][1]

    node(story)


def test_peers_that_move_to_places_that_matter_to_routes_have_them_computed_anew_once(node):
    async def story(machine):
        await machine.ready()
        machine.host.affecting |= {ELSEWHERE, FAR_AWAY}

        machine.forwarder.say(Moved(1, ELSEWHERE), Moved(1, ELSEWHERE), Moved(2, FAR_AWAY))
        await until(lambda: len(machine.host.adopted) == 2)
        await trio.sleep(2 * REPLAN_PAUSE)

        assert len(machine.host.adopted) == 2
        assert {("tokyo", ELSEWHERE), ("rome", FAR_AWAY)} <= machine.host.adopted[-1][1]

    node(story)


def test_peer_that_flaps_is_told_in_few_lines_and_noted_and_the_host_is_asked_once_for_each_place(
    node, caplog
):
    async def story(machine):
        await machine.greeted()
        asked = []
        machine.host.is_affected_by = lambda name, endpoint: asked.append(endpoint)
        places = [ELSEWHERE, FAR_AWAY]
        with caplog.at_level(logging.INFO, "overlay"):
            for number in range(800):
                machine.forwarder.say(Moved(1, places[number % 2], 15, places[number % 2 - 1]))
            await until(lambda: not machine.forwarder._reports)
            await trio.testing.wait_all_tasks_blocked()
        status = await machine.status()

        assert caplog.text.count("peer moved peer=tokyo") == 5
        assert asked == places
        (note,) = [note for note in status["notes"] if "see whether two hosts use its key" in note]
        assert "203.0.113.9:4500" in note
        assert "203.0.113.10:4500" in note
        assert status["peers"][0]["notes"] == [note]

    node(story)


def test_peer_given_up_is_called_at_a_new_endpoint_at_once_and_at_each_once(node):
    async def story(machine):
        await machine.greeted()
        agent, remote = machine.agent, machine.agent._engine.roster.by_name["tokyo"]
        remote.is_confirmed = True
        calls = []
        for endpoint in (ELSEWHERE, FAR_AWAY, ELSEWHERE):
            await agent._carry_out(agent._engine._carry_out([GiveUp(1)], clock.now()))
            agent._engine.sessions.start_over()
            before = len(machine.forwarder.told(Transmit))
            await agent._set_endpoint(remote, endpoint, "dns")
            await trio.testing.wait_all_tasks_blocked(0.05)
            calls.append(len(machine.forwarder.told(Transmit)) - before)

        assert calls == [1, 1, 0]

    node(story)


def test_idle_wish_for_a_session_is_passed_on_as_such(node):
    async def story(machine):
        await machine.greeted()
        wishes = []
        machine.agent._engine.sessions.want = lambda peer, now, *, is_idle: (
            wishes.append((peer, is_idle)) or []
        )
        machine.forwarder.say(Wanted(1), Wanted(1, is_idle=True))
        await until(lambda: len(wishes) == 2)

        assert wishes == [(1, False), (1, True)]

    node(story)


def test_peer_is_asked_about_with_and_without_what_the_forwarder_counted(node):
    async def story(machine):
        await machine.greeted()
        machine.counters = [PeerCounters(1, TOKYO_AT, 7, 8, 1, 1, clock.now() - 2.0, {})]

        counted = (await machine.ask(op="peer", name="10.244.2.9", is_counted=True))["peer"]
        plain = (await machine.ask(op="peer", name="tokyo"))["peer"]

        assert (counted["name"], counted["asked_address"]) == ("tokyo", "10.244.2.9")
        assert counted["last_received"] == pytest.approx(2.0, abs=1.0)
        assert (plain["last_received"], plain["asked_address"]) == (None, None)
        assert (counted["forwarder_note"], plain["forwarder_note"]) == (None, None)

    node(story)


def test_peer_is_told_with_a_note_on_a_forwarder_that_counts_nothing(node):
    async def story(machine):
        await machine.greeted()
        machine.forwarder.answers_counters = False
        dying = machine.forwarder

        async def ask():
            told.append(await machine.ask(op="peer", name="tokyo", is_counted=True))

        told = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: dying.told(AskCounters))
            dying.die()

        assert told[0]["peer"]["forwarder_note"].startswith("the forwarder (process ")

    node(story)


def test_peer_whose_clock_was_set_back_is_counted_noted_and_called(node):
    now_ns = time.time_ns()

    def call(seconds_ago):
        sessions = Sessions(TOKYO_PRIVATE, entropy=os.urandom, wall_ns=lambda: now_ns - seconds_ago * 10**9)
        sessions.add_peer(1, PRIVATE.public)
        (transmit,) = sessions.want(1, clock.now())
        return Handshake(transmit.datagram, TOKYO_AT)

    async def story(machine):
        await machine.greeted()
        machine.agent._engine.sessions.start_over()
        sent = len(machine.forwarder.told(Transmit))
        machine.forwarder.say(call(0), call(26 * 3600))
        await until(lambda: len(machine.forwarder.told(Transmit)) == sent + 2)  # its answer, and our own call

        status = await machine.status()
        assert status["peers"][0]["drops"] == {"initiation_replayed": 1}
        assert status["peers"][0]["clock_behind"] == pytest.approx(26 * 3600, abs=1)
        assert any(note.startswith("the clock of tokyo was set back by 1 d ") for note in status["notes"])

    node(story)


def test_name_that_does_not_resolve_at_the_start_is_used_when_it_does(node):
    names = Names()

    async def story(machine):
        trio.socket.set_custom_hostname_resolver(names)
        await machine.ready()
        assert not machine.forwarder.told(SetEndpoint)
        names.addresses["tokyo.example.net"] = ["192.0.2.2"]

        remote = machine.agent._engine.roster.by_name["tokyo"]
        await until(lambda: remote.resolve_error is not None)
        machine.agent._resolver.resolve_due([remote], clock.now() + 11)
        await until(lambda: machine.forwarder.told(Transmit))

        assert machine.forwarder.told(SetEndpoint) == [SetEndpoint(1, TOKYO_AT, "dns")]

    node(story, peer("tokyo", "10.244.2.0/24", endpoint="tokyo.example.net"))


def test_look_up_that_ends_after_the_peer_was_heard_elsewhere_does_not_move_it(node):
    names = Names()
    names.delay = 0.2
    names.addresses["tokyo.example.net"] = ["192.0.2.2"]

    async def story(machine):
        trio.socket.set_custom_hostname_resolver(names)
        await machine.ready()
        machine.forwarder.say(Moved(1, ELSEWHERE))
        await trio.sleep(0.4)

        assert not machine.forwarder.told(SetEndpoint)
        assert machine.agent._engine.roster.by_name["tokyo"].endpoint == ELSEWHERE

    node(story, peer("tokyo", "10.244.2.0/24", endpoint="tokyo.example.net"))


# Reloads


async def reload(machine):
    """Have the agent read the peers file, and return when it has taken or refused it."""
    machine.agent._reloads.error = "not yet"
    await machine.send_signal.send(signal.SIGHUP)
    await until(lambda: machine.agent._reloads.error != "not yet")
    await trio.testing.wait_all_tasks_blocked()


def test_reload_tells_the_difference_and_nothing_else(node):
    async def story(machine):
        await machine.greeted()
        before = len(machine.forwarder.commands)

        machine.write(PARIS, TOKYO, peer("oslo", "10.244.7.0/24", endpoint="192.0.2.7"))
        await reload(machine)
        await until(lambda: len(machine.forwarder.commands) >= before + 7)

        kinds = [type(command) for command in machine.forwarder.commands[before:]]
        assert kinds == [SetNode, SetPeer, SetEndpoint, Routes, Routes, RemovePeer, Transmit]

    node(story)


def test_wrong_file_is_refused_and_the_last_good_table_stays(node, caplog):
    async def story(machine):
        await machine.greeted()
        before = len(machine.forwarder.commands)
        machine.store.write("[network]\nprefix = 10\n")

        await reload(machine)

        status = await machine.status()
        assert "memory" in status["reload_error"]
        assert {row["name"] for row in status["peers"]} == {"tokyo", "rome"}
        assert machine.forwarder.told(SetNode, Routes) == [
            command
            for command in machine.forwarder.commands[:before]
            if isinstance(command, SetNode | Routes)
        ]

        machine.write(PARIS, TOKYO, ROME)
        await reload(machine)
        assert (await machine.status())["reload_error"] is None

    node(story)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda machine: machine.write(peer("paris", "10.244.1.0/24", public_key=key("new")), TOKYO),
            "only after a restart",
        ),
        (
            lambda machine: machine.write(PARIS, TOKYO, device="tap"),
            "network.device changed in ",
        ),
        (lambda machine: machine.write(TOKYO), "has this host's public key"),
        (
            lambda machine: machine.write(PARIS, peer("x", "10.244.9.0/24", preshared_key_file="/nowhere/x")),
            "/nowhere/x does not exist",
        ),
        (lambda machine: setattr(machine.host, "refusal", "port 51820 is taken"), "port 51820 is taken"),
    ],
)
def test_change_that_cannot_be_taken_is_refused_with_its_sentence(node, change, sentence):
    async def story(machine):
        await machine.ready()
        change(machine)

        await reload(machine)

        status = await machine.status()
        assert sentence in status["reload_error"]
        assert {row["name"] for row in status["peers"]} == {"tokyo", "rome"}

    node(story)


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (
            lambda key: key.write_text(PrivateKey(b"\x77" * 32).to_base64()),
            "takes effect only after a restart",
        ),
        (lambda key: key.unlink(), "does not exist"),
        (lambda key: key.write_text("é"), "characters that are not base64"),
    ],
)
def test_private_key_that_is_another_now_is_noted_and_keeps_nothing_else_from_being_taken(
    node, caplog, spoil, note
):
    async def story(machine):
        await machine.ready()
        spoil(machine.options.key)
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))

        await reload(machine)
        await reload(machine)

        status = await machine.status()
        assert status["reload_error"] is None
        assert [row["name"] for row in status["peers"]] == ["oslo"]
        assert note in status["notes"][0]
        machine.write_key(PRIVATE)
        await reload(machine)
        assert (await machine.status())["notes"] == ["the forwarder keeps privileges: a note"]

    with caplog.at_level(logging.INFO, "overlay"):
        node(story)
    assert caplog.text.count(note) == 1


def test_refusal_by_the_host_is_tried_again_and_said_once(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.host.refusal = "port 51820 is taken"
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await reload(machine)
        for _ in range(3):
            await machine.agent._reload(RETRY)
        assert machine.agent._reloads.error == "port 51820 is taken"

        machine.host.refusal = None
        await machine.agent._reload(RETRY)

        assert machine.agent._reloads.error is None
        assert list(machine.agent._engine.roster.by_name) == ["oslo"]

    with caplog.at_level(logging.INFO, "overlay"):
        node(story)
    assert caplog.text.count("reload refused") == 1
    assert "reloaded cause=retry" in caplog.text


def test_file_that_changes_is_read_without_a_signal(node):
    async def story(machine):
        await machine.ready()

        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await until(lambda: "oslo" in machine.agent._engine.roster.by_name)

    node(story)


def test_signal_to_reload_during_the_start_is_heeded_after_it(node, caplog):
    async def story(machine):
        await until(lambda: machine.send_signal is not None)
        machine.write(PARIS, peer("oslo", "10.244.7.0/24"))
        await machine.send_signal.send(signal.SIGHUP)
        await trio.sleep(0.1)
        machine.forwarder.may_begin.set()
        await until(lambda: "reloaded cause=SIGHUP" in caplog.text)

    with caplog.at_level(logging.INFO, "overlay"):
        node(story, before=lambda machine: setattr(machine, "holds_forwarders", True))
    assert caplog.text.index("ready node=paris") < caplog.text.index("reloaded cause=SIGHUP")


def test_many_reloads_at_once_end_with_the_last_file(node):
    async def story(machine):
        await machine.ready()
        for number in range(10):
            machine.write(PARIS, peer(f"peer{number}", f"10.244.{number + 10}.0/24"))
            await machine.send_signal.send(signal.SIGHUP)
        await until(lambda: list(machine.agent._engine.roster.by_name) == ["peer9"])
        await trio.testing.wait_all_tasks_blocked()

        slow = machine.forwarder.in_force()
        assert slow.named(machine.agent._engine.roster, "paris") == dict(machine.agent._node.table.routes)

    node(story)


def test_old_sockets_are_left_after_the_forwarder_has_the_new_ones(node):
    async def story(machine):
        await machine.ready()
        (old,) = machine.host.underlay
        machine.write(PARIS, TOKYO, ROME, port=4500)

        await reload(machine)

        assert old.is_left
        assert len(machine.forwarder.told(Sockets)) == 2
        assert not machine.host.underlay[0].is_left

    node(story)


def test_peer_of_another_encapsulation_is_where_its_name_was_resolved_to_before_prefixes_lead_to_it(node):
    names = Names()
    names.addresses["tokyo.example.net"] = ["192.0.2.2"]
    by_name = {"endpoint": "tokyo.example.net", "public_key": TOKYO_PRIVATE.public}

    async def story(machine):
        trio.socket.set_custom_hostname_resolver(names)
        await machine.greeted()
        await until(lambda: machine.forwarder.told(SetEndpoint))
        del names.addresses["tokyo.example.net"]
        before = len(machine.forwarder.commands)
        clear = {"encapsulation": "udp", "endpoint": "192.0.2.1"}
        paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public, **clear)
        machine.write(paris, peer("tokyo", "10.244.2.0/24", **by_name))

        await reload(machine)

        commands = machine.forwarder.commands[before:]
        told = [each for each in commands if isinstance(each, SetPeer | SetEndpoint | Routes)]
        assert [type(each) for each in told] == [SetPeer, SetEndpoint, Routes]
        assert told[1] == SetEndpoint(2, ("192.0.2.2", 8285), "configuration")

    node(story, peer("tokyo", "10.244.2.0/24", **by_name))


def test_endpoint_that_another_takes_the_place_of_does_not_count_for_the_host(node):
    async def story(machine):
        await machine.ready()
        moved = peer("tokyo", "10.244.2.0/24", public_key=TOKYO_PRIVATE.public, endpoint="192.0.2.9")
        machine.write(PARIS, moved, ROME)

        await reload(machine)

        assert machine.host.adopted[-1][1] == {("tokyo", ("192.0.2.9", 51820)), ("rome", ROME_AT)}

    node(story)


def test_endpoint_that_is_no_longer_configured_leaves_the_peer_where_it_is(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.say(Moved(1, ELSEWHERE))
        await trio.testing.wait_all_tasks_blocked()
        machine.write(PARIS, peer("tokyo", "10.244.2.0/24", public_key=TOKYO_PRIVATE.public))

        await reload(machine)

        assert machine.agent._engine.roster.by_name["tokyo"].endpoint == ELSEWHERE
        assert SetEndpoint(1, ELSEWHERE, "configuration") not in machine.forwarder.commands

    node(story)


# The host's network


def test_changes_of_the_network_are_mended_and_sources_chosen_anew(node):
    async def story(machine):
        await machine.ready()
        machine.host.others.send(b"route")

        await until(lambda: machine.forwarder.told(RenewSources))

        assert machine.host.mends == 1

    node(story)


def test_mend_that_the_host_refuses_is_not_the_end(node, caplog):
    async def story(machine):
        await machine.ready()
        machine.host.refusal = "the routing tables are out of reach"
        machine.host.others.send(b"route")
        await until(lambda: machine.forwarder.told(RenewSources))
        machine.host.refusal = None

        assert (await machine.status())["node"] == "paris"

    node(story)
    assert "that another program changed: the routing tables are out of reach" in caplog.text


def test_notes_are_those_of_the_moment_at_which_they_are_asked_for(node, caplog):
    """A setting that somebody changes is told to nobody: notes stayed for ever, or never came."""
    caplog.set_level("INFO", logger="overlay")
    found = Finding("forwarding", "this host does not forward", "run `sysctl`")

    async def story(machine):
        await machine.ready()
        machine.host.found = [found]
        assert (await machine.status())["notes"][-1:] == [str(found)]
        await machine.status()

        machine.host.found = []

        assert str(found) not in (await machine.status())["notes"]

    node(story)
    told = [
        (each.levelname, each.getMessage()) for each in caplog.records if "not forward" in each.getMessage()
    ]
    assert told == [("WARNING", str(found)), ("INFO", "no longer true: this host does not forward")]


def test_key_that_others_can_read_is_noted_until_they_cannot(node):
    async def story(machine):
        key = machine.options.key
        key.chmod(0o644)
        await machine.ready()
        noted = f"{key} can be read by others: run `chmod 600 {key}`"
        assert noted in (await machine.status())["notes"]

        key.chmod(0o600)
        await trio.sleep(1)

        assert noted not in (await machine.status())["notes"]

    node(story)


def test_unset_clock_is_noted_until_it_is_set(node, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr("overlay.host.clock.wall_ns", lambda: int(seconds[0] * 1e9))

    async def story(machine):
        await machine.ready()
        assert str(UNSET_CLOCK) in (await machine.status())["notes"]

        seconds[0] = 1.8e9

        assert str(UNSET_CLOCK) not in (await machine.status())["notes"]

    node(story)


def test_interface_that_was_removed_ends_the_agent_with_a_sentence(node):
    async def story(machine):
        await machine.ready()
        machine.host.is_present = False
        machine.host.others.send(b"link")
        await trio.sleep(PATIENCE)

    with pytest.raises(BaseExceptionGroup) as raised:
        node(story)
    with pytest.raises(HostError, match="was removed by another program"), until_stopped():
        raise raised.value


# Questions


def test_status_shows_the_forwarders_counters_by_peer(node):
    async def story(machine):
        await machine.ready()
        machine.counters = [PeerCounters(1, ELSEWHERE, 11, 22, 3, 4, clock.now(), {"replayed": 1})]

        status = await machine.status()

        assert [row["name"] for row in status["peers"]] == ["tokyo", "rome"]
        tokyo, rome = status["peers"]
        assert (tokyo["endpoint"], tokyo["rx_bytes"], tokyo["drops"]) == (
            "203.0.113.9:4500",
            22,
            {"replayed": 1},
        )
        assert (rome["endpoint"], rome["rx_bytes"]) == ("192.0.2.3:51820", None)
        assert status["notes"] == ["the forwarder keeps privileges: a note"]

    node(story)


def test_status_tells_a_few_rows_at_a_time(node):
    async def story(machine):
        await machine.ready()
        machine.counters = [
            PeerCounters(number, None, 0, number, 0, 0, 0.0, {})
            for number in machine.agent._engine.roster.by_number
        ]

        status = await machine.status()

        assert [len(rows) for rows in machine.pieces] == [ROWS_AT_ONCE, ROWS_AT_ONCE, 5]
        assert [row["name"] for row in status["peers"]] == [each.name for each in many]
        assert len({row["rx_bytes"] for row in status["peers"]}) == len(many)

    many = [peer(f"peer{number}", f"10.244.{number + 2}.0/24") for number in range(2 * ROWS_AT_ONCE + 5)]
    node(story, *many)


def test_status_is_answered_at_once_when_the_forwarder_dies_meanwhile(node):
    async def story(machine):
        await machine.ready()
        machine.forwarder.answers_counters = False
        dying = machine.forwarder
        began = time.monotonic()

        async def ask():
            told.append(await machine.status())

        told = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: dying.told(AskCounters))
            dying.die()

        assert time.monotonic() - began < 2
        (status,) = told
        assert (status["is_complete"], status["drops"]) == (False, None)
        assert {(row["state"], row["rx_bytes"], row["drops"]) for row in status["peers"]} == {
            (None, None, None)
        }
        assert any("did not report its counters" in note for note in status["notes"])

    node(story)


@pytest.mark.parametrize(
    "request_", [{}, {"op": None}, {"op": ["status"]}, {"op": {"a": 1}}, {"op": "nonsense"}, {"op": 1.5}]
)
def test_unknown_question_is_refused(node, request_):
    async def story(machine):
        await machine.ready()

        assert await machine.ask(**request_) == {
            "ok": False,
            "kind": "failed",
            "error": "this agent does not know that request",
        }

    node(story)


@pytest.mark.parametrize("name", [None, 7, [], {}, "nobody", "", "\ud800"])
def test_unknown_peer_gets_the_names_that_there_are(node, name):
    async def story(machine):
        await machine.ready()

        answer = await machine.ask(op="peer", name=name)

        assert answer["kind"] == "unknown_peer"
        assert answer["known"] == ["tokyo", "rome"]

    node(story)


@pytest.mark.parametrize(
    ("name", "words"),
    [("paris", "paris is this node itself"), ("10.244.1.77", "10.244.1.77 is in a subnet of this node")],
)
def test_what_is_at_this_node_is_no_peer_to_ping(node, name, words):
    async def story(machine):
        await machine.ready()

        answer = await machine.ask(op="peer", name=name)

        assert answer["kind"] == "own"
        assert answer["error"].startswith(words)

    node(story)


def test_peer_is_told_with_this_nodes_addresses(node):
    async def story(machine):
        await machine.ready()

        told = (await machine.ask(op="peer", name="rome"))["peer"]

        assert told["addresses"] == ["10.244.3.0"]
        assert told["own_addresses"] == ["10.244.1.0"]

    node(story)


# Pings


async def ping(machine, answers, name="tokyo", timeout=PATIENCE):
    """Ask for a ping and keep the answer in *answers*."""
    answers.append(await machine.ask(op="ping", name=name, timeout=timeout))


async def told_pings(machine, count):
    await until(lambda: len(machine.forwarder.told(PingPeer)) == count)
    return machine.forwarder.told(PingPeer)


@pytest.mark.parametrize(
    ("seconds", "is_possible"), [(0.25, True), (None, False)], ids=["answered", "not able"]
)
def test_ping_is_answered_with_what_the_forwarder_says(node, seconds, is_possible):
    async def story(machine):
        answers = []
        await machine.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, machine, answers)
            (command,) = await told_pings(machine, 1)
            answer = Ponged(command.peer, command.identifier, seconds)
            machine.forwarder.say(answer, answer)  # the second is for nobody

        assert machine.agent._engine.roster.by_number[command.peer].peer.name == "tokyo"
        assert answers == [{"ok": True, "ping": {"is_possible": is_possible, "seconds": seconds}}]

    node(story)


def test_pings_are_told_apart(node):
    async def story(machine):
        one, other = [], []
        await machine.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, machine, one)
            await told_pings(machine, 1)
            nursery.start_soon(ping, machine, other, "rome")
            first, second = await told_pings(machine, 2)
            machine.forwarder.say(Ponged(second.peer, second.identifier, 2.0))
            machine.forwarder.say(Ponged(first.peer, first.identifier, 1.0))

        assert (one[0]["ping"]["seconds"], other[0]["ping"]["seconds"]) == (1.0, 2.0)

    node(story)


def test_ping_without_an_answer_is_given_up_and_an_answer_too_late_forgotten(node):
    async def story(machine):
        answers = []
        await machine.ready()

        await ping(machine, answers, timeout=0.01)
        (command,) = machine.forwarder.told(PingPeer)
        machine.forwarder.say(Ponged(command.peer, command.identifier, 9.0))
        await trio.testing.wait_all_tasks_blocked()

        assert answers == [{"ok": True, "ping": {"is_possible": True, "seconds": None}}]
        assert len(machine.supervisor._pings) == 0

    node(story)


@pytest.mark.parametrize("timeout", [None, 0, -1, "1", [], float("nan")])
def test_ping_needs_a_timeout(node, timeout):
    async def story(machine):
        await machine.ready()

        assert (await machine.ask(op="ping", name="tokyo", timeout=timeout))["ok"] is False
        assert machine.forwarder.told(PingPeer) == []

    node(story)


@pytest.mark.parametrize("name", [None, 7, [], "nobody"])
def test_ping_of_nobody_gets_the_names_that_there_are(node, name):
    async def story(machine):
        await machine.ready()

        assert (await machine.ask(op="ping", name=name, timeout=1))["kind"] == "unknown_peer"

    node(story)


def test_pings_under_way_are_bounded(node):
    async def story(machine):
        await machine.ready()
        async with trio.open_nursery() as nursery:
            for count in range(0, PINGS_WAITING, 16):  # as many at once as may wait on the control socket
                for _ in range(16):
                    nursery.start_soon(ping, machine, [])
                commands = await told_pings(machine, count + 16)

            refused = await machine.ask(op="ping", name="tokyo", timeout=1)
            machine.forwarder.say(*[Ponged(each.peer, each.identifier, 1.0) for each in commands])

        assert refused == {"ok": False, "kind": "busy", "error": "256 pings wait for their answers"}
        assert len(machine.forwarder.told(PingPeer)) == PINGS_WAITING

    node(story)


# Time


def test_agent_with_nothing_to_do_wakes_about_once_a_second(node):
    class Wakes(trio.abc.Instrument):
        def __init__(self):
            self.waits = []

        def before_io_wait(self, timeout):
            self.waits.append(timeout)

    async def story(machine):
        await machine.ready()
        await trio.sleep(0.2)
        wakes = Wakes()
        trio.lowlevel.add_instrument(wakes)
        await trio.sleep(2.2)
        trio.lowlevel.remove_instrument(wakes)

        assert len(wakes.waits) <= 12  # two ticks, the end of this sleep, and what each leads to

    node(story, peer("silent", "10.244.4.0/24"))


# In the clear


def test_a_peer_in_the_clear_is_not_called_and_the_status_says_so(node):
    bare = peer("tokyo", "10.244.2.0/24", endpoint="192.0.2.2:8285", public_key=None, encapsulation="udp")

    async def story(machine):
        await machine.ready()
        machine.forwarder.say(Wanted(1))
        status = await machine.status()

        assert machine.forwarder.told(Transmit) == []
        (told,) = machine.forwarder.told(SetPeer)
        assert (told.peer, told.keepalive, told.encapsulation) == (1, 0.0, "udp")
        assert machine.forwarder.told(SetEndpoint)[0].endpoint == ("192.0.2.2", 8285)
        assert status["peers"][0]["state"] == "unencrypted"
        assert status["notes"][-1] == "traffic with tokyo is not encrypted: the encapsulation is udp"

    node(story, bare)


def test_sockets_of_an_encapsulation_are_told_when_it_comes_into_use_and_when_it_goes(node):
    bare = peer("rome", "10.244.3.0/24", endpoint="192.0.2.3", public_key=None, encapsulation="udp")

    async def story(machine):
        await machine.greeted()
        for peers in ([PARIS, TOKYO, bare], [PARIS, TOKYO]):
            before = len(machine.host.adopted)
            machine.write(*peers)
            await until(lambda before=before: len(machine.host.adopted) > before)
            await trio.testing.wait_all_tasks_blocked()

        told = [(each.encapsulation, len(each.rows)) for each in machine.forwarder.told(Sockets)]
        assert told == [("wireguard", 1), ("udp", 1), ("udp", 0)]

    node(story, TOKYO)


def test_an_inherited_ttl_is_the_forwarder_s_matter(node):
    async def story(machine):
        await machine.greeted()
        for ttl in (0, 9, None):
            machine.write(PARIS, TOKYO, ROME, ttl=ttl)
            await reload(machine)

        assert [told.inherits_ttl for told in machine.forwarder.told(SetNode)] == [False, True, False, False]

    node(story)
