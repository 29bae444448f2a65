from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from overlay.forwarding.services.server import Takes
from overlay.services.schedulers import SCHEDULERS
from overlay.services.states import CLOSING, State, after_datagram, after_tcp, timeouts
from overlay.wire.flow_key import flow_key
from tests.hypothesis_profiles import seeds
from tests.overlay.forwarding.services.conftest import CLIENTS, VIPS, WEB, World, flags_of, tcp, udp
from tests.packets import ACK, FIN, RST, SYN

SERVERS = 4


class Twin:
    """The invariants of flows, whoever chooses the servers: a dictionary, and the current servers.

    A life of a server begins when it comes, and when it is up again: flows belong to lives.
    """

    def __init__(self):
        self.flows = {}  # key: [life, state, last packet]
        self.rows = {}
        self.lives = {}
        self.count = 0
        self.refuses = False  # new flows although there are servers that take some: ovf

    def set_servers(self, rows):
        for number in range(SERVERS):
            lives = number in rows and rows[number].takes is not Takes.NOTHING
            if not lives:
                self.lives.pop(number, None)
            elif number not in self.lives:
                self.count += 1
                self.lives[number] = self.count
        self.rows = rows

    def takers(self):
        return {number for number, row in self.rows.items() if row.takes is Takes.NEW and row.weight}

    def expected(self, key, is_tcp, flags, now):
        """Return the servers that a packet may go to, and whether None is allowed."""
        new, is_syn = self.takers(), is_tcp and flags & (SYN | ACK | RST) == SYN
        if key in self.flows:
            life, state, seen = self.flows[key]
            number = next((number for number, each in self.lives.items() if each == life), None)
            is_over = seen + timeouts()[state] < now
            if not is_over and number is None:
                return (new, not new or self.refuses) if is_syn or not is_tcp else (set(), True)
            if is_over and number is not None:  # no sweep may have come
                return new | {number}, not new or self.refuses or (is_tcp and not is_syn)
            if not is_over and not (is_syn and state in CLOSING and number not in new):
                return {number}, False
        return new, not new or self.refuses or (is_tcp and not is_syn)

    def note(self, key, is_tcp, flags, number, now):
        if number is None:
            self.flows.pop(key, None)
            return
        life, state, seen = self.flows.get(key, (None, State.NONE, now))
        if life != self.lives[number] or seen + timeouts()[state] < now:
            state = State.NONE
        after = after_tcp(state, flags) if is_tcp else after_datagram(state)
        if state is State.NONE and after is State.CLOSE:
            self.flows.pop(key, None)
        else:
            self.flows[key] = [self.lives[number], after, now]


def steps(chance, count=250):
    """Yield steps of a story: mostly packets of few flows, so that much happens to each."""
    for _ in range(count):
        what = chance.choices(
            ["packet", "servers", "time", "sweep", "scheduler", "check"],
            [80, 10, 6, 3, 1 if chance.random() < 0.3 else 0, 3],
        )[0]
        if what == "packet":
            flags = chance.choice([None, SYN, SYN, ACK, ACK, ACK, ACK, FIN | ACK, RST])
            yield what, chance.randint(1, 2), chance.randint(1000, 1001), chance.choice([4, 6]), flags
        elif what == "servers":
            takes = chance.choices([Takes.NEW, Takes.KEPT, Takes.NOTHING, None], [6, 2, 1, 1], k=SERVERS)
            yield what, takes, chance.choices([0, 1, 2, 3], [1, 4, 2, 2], k=SERVERS)
        elif what == "time":
            yield what, chance.choice([0.1, 1.0, 9.0, 11.0, 100.0, 1000.0])
        elif what == "scheduler":
            yield what, chance.choice(sorted(SCHEDULERS))
        elif what == "check":
            yield what, chance.randrange(SERVERS), chance.choice([4, 6]), chance.choice([SYN, ACK, FIN | ACK])
        else:
            yield (what,)


def see_that_a_check_reaches_its_server(world, twin, number, version, flags, now):
    """Send a packet of a health check, which reaches its server whatever the state, and starts no flow."""
    key = flow_key(6, ip_address(CLIENTS[version].format(9)).packed, 2000, world.vips[version], 80)
    before = len(world.service().flows)

    assert world.balancer.pin(key, WEB, number) == (number in twin.rows)
    if number in twin.rows:
        assert world.send(tcp(9, 2000, flags, version=version), now) == number
        world.balancer.unpin([key])
    assert len(world.service().flows) == before


@pytest.mark.parametrize("persistence", [0.0, 60.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("seed", seeds(6))
def test_a_flow_keeps_its_server_while_that_lives_and_nothing_goes_to_others(scheduler, persistence, seed):
    world, twin, now = World(), Twin(), 1000.0
    world.serve(scheduler=scheduler, persistence=persistence)

    def change(takes, weights):
        rows = {
            number: world.row(number, takes=each, weight=weights[number])
            for number, each in enumerate(takes)
            if each is not None
        }
        world.servers(*rows.values())
        twin.set_servers(rows)

    change([Takes.NEW] * SERVERS, [1] * SERVERS)
    for what, *more in steps(random.Random(seed)):
        if what == "time":
            now += more[0]
        elif what == "sweep":
            for _ in range(64):
                world.service().sweep(now)
        elif what == "servers":
            change(*more)
        elif what == "scheduler":
            scheduler = more[0]
            world.serve(scheduler=scheduler, persistence=persistence)
            world.work()
        elif what == "check":
            see_that_a_check_reaches_its_server(world, twin, *more, now)
        else:
            client, port, version, flags = more
            is_tcp = flags is not None
            packet = (
                tcp(client, port, flags, version=version) if is_tcp else udp(client, port, version=version)
            )
            key = (client, port, version, is_tcp)
            twin.refuses = scheduler == "ovf"
            allowed, may_be_none = twin.expected(key, is_tcp, flags, now)
            written = len(world.written)

            number = world.send(packet, now)

            if number is None:
                assert may_be_none
                answers = world.written[written:]
                assert len(answers) == (not (is_tcp and flags & RST))
                assert not is_tcp or all(flags_of(answer) & RST for answer in answers)
            else:
                assert number in allowed
                assert len(world.written) == written
            twin.note(key, is_tcp, flags or 0, number, now)
        loads = world.service().flows.loads
        assert sum(loads.active) + sum(loads.inactive) == len(world.service().flows)
        assert min([*loads.active, *loads.inactive], default=0) >= 0


def test_a_service_that_is_removed_forgets_its_flows_and_its_addresses():
    world = World()
    world.serve(scheduler="rr", persistence=300.0)
    world.servers(0)
    world.send(tcp(flags=SYN))
    vip = world.balancer.vip(world.vips[4])

    world.balancer.remove_service(1)
    world.work()

    assert world.balancer.vip(world.vips[4]) is None
    assert vip.choose(memoryview(tcp()), 0.0) is None
    world.serve(scheduler="rr")
    world.servers(0)
    assert world.send(tcp()) is None
    assert world.count(0).active == 0


def test_a_virtual_address_is_the_same_object_as_long_as_a_service_has_it():
    world = World()
    world.serve(1)
    world.serve(2, ports=((81, 81),))
    vip = world.balancer.vip(world.vips[4])

    world.balancer.remove_service(1)
    assert world.balancer.vip(world.vips[4]) is vip
    world.serve(2, ports=((81, 81),), addresses=[world.vips[6]])

    assert world.balancer.vip(world.vips[4]) is None
    assert world.balancer.vip(world.vips[6]) is not None


def test_turns_are_shared_by_addresses_protocols_and_ports():
    world = World()
    world.serve(scheduler="rr", ports=((80, 80), (443, 443)))
    world.servers(0, 1, 2)

    found = [
        world.send(tcp(flags=SYN)),
        world.send(tcp(flags=SYN, version=6)),
        world.send(udp()),
        world.send(tcp(flags=SYN, to=443)),
    ]

    assert found == [0, 1, 2, 0]


def test_flows_are_listed_with_all_that_tells_them_apart():
    world = World()
    world.serve(scheduler="rr")
    world.servers(0, 1)
    world.send(tcp(7, 5000, SYN, version=6), 100.0)
    world.send(udp(8, 5001), 110.0)

    rows = {row.protocol: row for row in world.flows(120.0)}

    assert rows[6].client == ip_address(CLIENTS[6].format(7)).packed
    assert rows[6].address == ip_address(VIPS[6]).packed
    assert (rows[6].client_port, rows[6].port, rows[6].state, rows[6].server) == (5000, 80, State.SYN_RECV, 0)
    assert (rows[6].idle, rows[6].left) == (20.0, 40.0)
    assert (rows[17].client_port, rows[17].port, rows[17].state, rows[17].server) == (
        5001,
        80,
        State.DATAGRAM,
        1,
    )
    assert rows[17].left == 290.0


def test_a_pin_needs_a_server_that_is_there():
    world = World()
    world.serve()
    world.servers(0)
    client = ip_address(CLIENTS[4].format(1)).packed
    key = flow_key(6, client, 5000, world.vips[4], 80)

    assert not world.balancer.pin(key, 1, 3)
    assert not world.balancer.pin(key, 2, 0)
    assert world.balancer.pin(key, 1, 0)
    world.balancer.remove_service(1)
    world.serve()
    world.servers(1)
    assert world.send(tcp(flags=SYN)) == 1, "the pin was removed with its service"


def test_pins_are_bounded(monkeypatch):
    monkeypatch.setattr("overlay.forwarding.services.balancer.PINS", 2)
    world = World()
    world.serve()
    world.servers(0)
    client = ip_address(CLIENTS[4].format(1)).packed

    done = [world.balancer.pin(flow_key(6, client, port, world.vips[4], 80), 1, 0) for port in (1, 2, 3, 1)]

    assert done == [True, True, False, True]


def test_pins_of_a_service_that_is_removed_make_room_and_no_others(monkeypatch):
    monkeypatch.setattr("overlay.forwarding.services.balancer.PINS", 3)
    world = World()
    for number, port in ((WEB, 80), (2, 81)):
        world.serve(number, ports=((port, port),))
        world.servers(0, 1, service=number)
    client = ip_address(CLIENTS[4].format(1)).packed
    keys = [flow_key(6, client, port, world.vips[4], to) for port, to in ((1, 80), (2, 80), (3, 81), (4, 81))]
    for key, where in zip(keys, ((WEB, 0), (WEB, 1), (2, 0)), strict=False):
        assert world.balancer.pin(key, *where)
    assert not world.balancer.pin(keys[3], 2, 1)

    world.balancer.remove_service(WEB)

    assert world.balancer.pin(keys[3], 2, 1)
    assert [world.send(tcp(port=port, to=81)) for port in (3, 4)] == [0, 1]


def test_clients_that_persistence_knew_otherwise_are_forgotten_a_piece_at_a_time():
    world = World()
    world.serve(scheduler="rr", persistence=300.0)
    world.servers(0, 1)
    world.send(tcp(flags=SYN))
    templates = world.service().templates
    assert len(templates) == 1

    world.serve(scheduler="rr", persistence=60.0)
    world.work()

    assert len(templates) == 0


def test_a_sorry_server_waits_for_its_turn_unless_it_is_said_to_be_that():
    world = World()
    world.serve(scheduler="rr")

    world.balancer.set_servers(WEB, [world.row(0)], world.row(9))
    world.work()

    assert world.send(tcp(flags=SYN)) == 0


def test_a_pin_takes_the_place_of_a_flow():
    world = World()
    world.serve(scheduler="rr")
    world.servers(0, 1)
    assert world.send(tcp(flags=SYN)) == 0
    world.send(tcp())

    client = ip_address(CLIENTS[4].format(1)).packed
    world.balancer.pin(flow_key(6, client, 5000, world.vips[4], 80), 1, 1)

    assert world.send(tcp(flags=SYN)) == 1
    assert world.count(0).active == 0


def test_sweeps_do_not_pile_up_while_there_is_no_time_for_them():
    world = World()
    world.serve(scheduler="rr")
    world.servers(0)
    for now in range(1, 100):
        world.balancer.handle_deadline(float(now))

    assert len(world.jobs) == 1
    world.work()
    world.balancer.handle_deadline(200.0)
    assert len(world.jobs) == 1
