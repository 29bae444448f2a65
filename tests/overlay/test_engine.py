"""The engine alone: reports and the time go in, commands and events come out.  tests/two_nodes/ has whole nodes."""

import dataclasses
import math

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.encap import udp, wireguard
from overlay.engine import Engine, LookUp, Relocated
from overlay.link import messages as link
from overlay.link.messages import SetEndpoint
from overlay.roster import Prospect, Remote, RosterChange
from overlay.session.constants import GREETINGS_PER_SECOND, Timing
from overlay.session.outputs import GiveUp, InstallKeypair, Transmit
from peers.peer import Endpoint, Peer
from tests.overlay.session.pair import Clock, seeded

HERE, THERE, ELSEWHERE = ("192.0.2.1", 51820), ("192.0.2.2", 51820), ("198.51.100.9", 4500)


class Bench:
    """An engine with peers, of which the first is another engine's."""

    def __init__(self, name="paris"):
        self.clock, self.key = Clock(), PrivateKey.generate(seeded(name))
        self.engine = Engine(self.key, Timing(), entropy=seeded(name), wall_ns=self.clock.wall_ns)

    @property
    def now(self):
        return self.clock.now

    def know(
        self, public_key, endpoint=THERE, *, configured=None, psk=None, encapsulation=wireguard.ENCAPSULATION
    ):
        number = len(self.engine.roster.by_number) + 1
        peer = Peer(f"peer{number}", public_key)
        remote = Remote(number, peer, psk, encapsulation, configured=configured, endpoint=endpoint)
        self._adopt(RosterChange([remote], [], [], [], []), {number: remote})
        return remote

    def remove(self, remote):
        self._adopt(RosterChange([], [remote], [], [], []), {}, gone={remote.number})

    def _adopt(self, change, new, gone=()):
        numbers = {
            number: remote
            for number, remote in {**self.engine.roster.by_number, **new}.items()
            if number not in gone
        }
        names = {remote.peer.name: remote for remote in numbers.values()}
        self.engine.adopt(Prospect(None, change, names, numbers, max(numbers, default=0), []))

    def pass_on(self, other, effects, source):
        """Let *other* receive the handshakes among *effects*; return its effects."""
        return [
            effect
            for each in effects
            if isinstance(each, Transmit)
            for effect in other.engine.take(link.Handshake(each.datagram, source), other.now)
        ]


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def both():
    paris, tokyo = Bench("paris"), Bench("tokyo")
    return paris, tokyo, paris.know(tokyo.key.public), tokyo.know(paris.key.public, HERE)


def kinds(effects):
    return [type(effect) for effect in effects]


def test_an_engine_without_peers_has_nothing_to_do(bench):
    assert bench.engine.next_deadline() == math.inf
    assert bench.engine.handle_deadline(bench.now) == []


def test_a_handshake_is_two_messages_and_a_keypair_at_each_end(both):
    paris, tokyo, to_tokyo, to_paris = both

    initiation = paris.engine.want(1, paris.now)
    response = paris.pass_on(tokyo, initiation, HERE)
    done = tokyo.pass_on(paris, response, THERE)

    assert kinds(initiation) == [Transmit]
    assert set(kinds(response)) == {Transmit, InstallKeypair}
    assert kinds(done) == [InstallKeypair]
    assert to_tokyo.is_confirmed
    assert not to_paris.is_confirmed  # the responder has not received anything under the new keys yet


def test_the_responder_looks_at_its_routes_where_the_initiator_is_now(both):
    paris, tokyo, _, to_paris = both

    effects = paris.pass_on(tokyo, paris.engine.want(1, paris.now), ELSEWHERE)

    assert Relocated(to_paris, ELSEWHERE) in effects
    assert (to_paris.endpoint, to_paris.heard_at) == (ELSEWHERE, ELSEWHERE)


def test_a_refused_handshake_changes_nothing_and_is_counted(both):
    paris, tokyo, _, to_paris = both
    (initiation,) = paris.engine.want(1, paris.now)
    garbled = initiation.datagram[:60] + bytes([initiation.datagram[60] ^ 1]) + initiation.datagram[61:]

    assert tokyo.engine.take(link.Handshake(garbled, ELSEWHERE), tokyo.now) == []

    assert sum(tokyo.engine.refusals.counts.values()) == 1
    assert to_paris.endpoint == HERE


def test_a_caller_whom_nobody_knows_is_a_stranger(both):
    paris, tokyo, _, to_paris = both
    tokyo.remove(to_paris)

    effects = paris.pass_on(tokyo, paris.engine.want(1, paris.now), HERE)

    assert effects == []
    assert tokyo.engine.refusals.counts == {"initiation_unknown_peer": 1}
    (stranger,) = tokyo.engine.refusals.describe_strangers(tokyo.now)
    assert stranger["calls"] == 1


def test_a_call_without_an_answer_asks_for_a_look_up_and_ends_in_giving_up(both):
    paris, _, to_tokyo, _ = both
    to_tokyo.is_confirmed = True
    paris.engine.want(1, paris.now)
    effects = []
    while not any(isinstance(each, GiveUp) for each in effects):
        paris.clock.now = paris.engine.next_deadline()
        effects += paris.engine.handle_deadline(paris.now)

    attempts = [each.attempt for each in effects if isinstance(each, LookUp)]
    assert attempts == list(range(1, len(attempts) + 1))
    assert len(attempts) > 10
    assert not to_tokyo.is_confirmed


def test_a_peer_that_moved_is_where_it_was_heard_last(both):
    paris, _, to_tokyo, _ = both

    effects = paris.engine.take(link.Moved(1, ELSEWHERE, 1, THERE), paris.now)
    again = paris.engine.take(link.Moved(1, ELSEWHERE, 1, THERE), paris.now)

    assert effects == [Relocated(to_tokyo, ELSEWHERE)]
    assert again == []
    assert to_tokyo.heard_at == ELSEWHERE


def test_an_unencrypted_peer_stays_where_the_peers_file_says_whatever_a_forwarder_reports(bench):
    bench.know(None, configured=Endpoint(*THERE), encapsulation=udp.ENCAPSULATION)

    effects = bench.engine.take(link.Moved(1, ELSEWHERE, 1, THERE), bench.now)

    assert effects == []
    assert list(bench.engine.roster.places()) == [SetEndpoint(1, THERE, "configuration")]


def test_reports_on_peers_that_nobody_knows_are_nothing(bench):
    for report in (
        link.SessionWanted(7),
        link.Moved(7, ELSEWHERE, 1, THERE),
        link.Silence(7, is_over=False),
        link.Silence(7, is_over=True),
        link.Confirmed(7, 1),
        link.Retired(1),
    ):
        assert bench.engine.take(report, bench.now) == []


def test_a_silent_peer_is_silent_until_it_is_heard(both):
    paris, _, to_tokyo, _ = both
    paris.engine.take(link.Silence(1, is_over=False), paris.now)
    assert to_tokyo.is_silent

    paris.engine.take(link.Silence(1, is_over=True), paris.now)

    assert not to_tokyo.is_silent


def test_those_to_be_greeted_are_called_a_few_at_a_time(bench):
    count = 5
    for number in range(count):
        bench.know(PrivateKey.generate(seeded(str(number))).public)
    bench.engine.greet(bench.engine.roster.by_number)

    called = []
    start = bench.now
    while len(called) < count:
        bench.clock.now = max(bench.now, bench.engine.next_deadline())
        called += [effect.peer for effect in bench.engine.handle_deadline(bench.now)]

    assert called == [1, 2, 3, 4, 5]
    assert bench.now - start == pytest.approx((count - 1) / GREETINGS_PER_SECOND)


def test_who_cannot_be_reached_or_was_heard_meanwhile_is_not_greeted(bench):
    bench.know(PrivateKey.generate(seeded("nowhere")).public, endpoint=None)
    bench.know(PrivateKey.generate(seeded("heard")).public).is_confirmed = True
    bench.engine.greet([1, 2, 3])

    effects = []
    for _ in range(3):
        bench.clock.now += 1
        effects += bench.engine.handle_deadline(bench.now)

    assert effects == []


def test_a_peer_given_up_is_called_at_a_new_endpoint_and_at_each_once(both):
    paris, _, to_tokyo, _ = both
    told = []
    for endpoint in (ELSEWHERE, HERE, ELSEWHERE):
        assert paris.engine.resolved(to_tokyo, endpoint, "dns", paris.now)
        told.append(paris.engine.call(to_tokyo, endpoint, "dns"))
        paris.clock.now += 1
        told.append(kinds(paris.engine.handle_deadline(paris.now)))
        paris.engine.sessions.start_over()

    assert told == [
        [SetEndpoint(1, ELSEWHERE, "dns")],
        [Transmit],
        [SetEndpoint(1, HERE, "dns")],
        [Transmit],
        [SetEndpoint(1, ELSEWHERE, "dns")],
        [],
    ]


def test_a_peer_heard_elsewhere_while_routes_were_planned_stays_there(both):
    paris, _, to_tokyo, _ = both
    paris.engine.resolved(to_tokyo, HERE, "dns", paris.now)
    paris.engine.take(link.Moved(1, ELSEWHERE, 1, HERE), paris.now)

    assert paris.engine.call(to_tokyo, HERE, "dns") == []
    assert to_tokyo.endpoint == ELSEWHERE


def test_an_address_found_for_a_peer_that_was_removed_is_nothing(both):
    paris, _, to_tokyo, _ = both
    paris.remove(to_tokyo)

    assert not paris.engine.resolved(to_tokyo, ELSEWHERE, "dns", paris.now)
    assert to_tokyo.endpoint == THERE


def test_what_is_known_of_the_configured_endpoint_goes_before_where_a_peer_was_heard(bench):
    remote = bench.know(
        PrivateKey.generate(seeded("tokyo")).public, configured=Endpoint("tokyo.example", 51820)
    )
    bench.engine.take(link.Moved(1, ELSEWHERE, 1, THERE), bench.now)

    bench.engine.place(remote, (HERE, THERE))
    assert (remote.endpoint, remote.heard_at, remote.resolved) == (HERE, None, (HERE, THERE))

    bench.engine.place(remote, ())
    assert (remote.endpoint, remote.resolved) == (None, ())


def test_a_peer_without_a_configured_endpoint_stays_where_it_was_heard(both):
    paris, _, to_tokyo, _ = both
    paris.engine.take(link.Moved(1, ELSEWHERE, 1, THERE), paris.now)

    paris.engine.place(to_tokyo, ())

    assert (to_tokyo.endpoint, to_tokyo.heard_at) == (ELSEWHERE, ELSEWHERE)


def test_new_peers_are_called_and_those_without_a_place_looked_up(bench):
    tokyo, oslo = (PrivateKey.generate(seeded(name)).public for name in ("tokyo", "oslo"))
    there = bench.know(tokyo, configured=Endpoint("192.0.2.2", 51820))
    nowhere = bench.know(oslo, endpoint=None, configured=Endpoint("oslo.example", 51820))
    there.is_confirmed = True

    effects = bench.engine.meet(RosterChange([there, nowhere], [], [], [], []))
    assert effects == [LookUp(nowhere)]

    bench.clock.now += 1
    assert [effect.peer for effect in bench.engine.handle_deadline(bench.now)] == [there.number]


def test_after_a_forwarder_died_nobody_is_confirmed_and_all_are_greeted(both):
    paris, _, to_tokyo, _ = both
    to_tokyo.is_confirmed = to_tokyo.is_silent = True

    paris.engine.start_over()

    assert not to_tokyo.is_confirmed
    assert not to_tokyo.is_silent
    assert kinds(paris.engine.handle_deadline(paris.now)) == [Transmit]


def test_quiet_engine_calls_only_whom_it_is_to_keep_a_way_open_to(bench):
    bench.engine.is_quiet = True
    bench.know(PrivateKey.generate(seeded("tokyo")).public)
    rome = bench.know(PrivateKey.generate(seeded("rome")).public)
    rome.peer = dataclasses.replace(rome.peer, keepalive=25)

    bench.engine.greet(bench.engine.roster.by_number)

    assert [each.peer for each in bench.engine.handle_deadline(bench.now)] == [rome.number]
    assert bench.engine.next_deadline() > bench.now + 1


def test_another_private_key_voids_the_session_and_every_peer_is_called_again(both):
    paris, tokyo, to_tokyo, _ = both
    tokyo.pass_on(paris, paris.pass_on(tokyo, paris.engine.want(1, paris.now), HERE), THERE)
    assert to_tokyo.is_confirmed
    key = PrivateKey.generate(seeded("another"))

    told = paris.engine.change_key(key)

    assert told == [link.SetIdentity(key.public)]
    assert not to_tokyo.is_confirmed
    (initiation,) = paris.engine.handle_deadline(paris.now)
    assert tokyo.engine.take(link.Handshake(initiation.datagram, HERE), tokyo.now) == []
    assert tokyo.engine.refusals.counts == {"initiation_unknown_peer": 1}
    assert paris.engine.change_key(key) == []
