import dataclasses
import errno
import json
from ipaddress import ip_address

import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.cli.echo import EchoError
from overlay.cli.ping import SHOWN_ERRORS
from overlay.wire.icmp_errors import IcmpError
from tests.overlay.cli.fakes import Tunnel, peer_answer, ping_answer


@pytest.fixture
def ping(agent, clock, surroundings):
    """Ping a peer through a tunnel that answers after the given delays."""

    def run(*arguments, delays=(), tunnel=None):
        tunnel = tunnel or Tunnel(clock, *delays)
        run.tunnel = tunnel
        obj = dataclasses.replace(surroundings, open_echo=tunnel.open)
        return CliRunner().invoke(main, ["ping", *arguments], obj=obj)

    run.clock = clock
    agent.answers["peer"] = peer_answer("tokyo", "10.244.2.0", endpoint="192.0.2.2:51820", last_handshake=3.2)
    agent.answers["ping"] = ping_answer(None, is_possible=False)
    return run


def test_ping_shows_each_reply_and_a_summary(ping):
    result = ping("tokyo", delays=(0.0004, 0.0123, 0.002, 0.15))

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "ping tokyo (10.244.2.0) from 10.244.1.0\n"
        "reply from tokyo (10.244.2.0): seq=1 time=0.400 ms\n"
        "reply from tokyo (10.244.2.0): seq=2 time=12.3 ms\n"
        "reply from tokyo (10.244.2.0): seq=3 time=2.00 ms\n"
        "reply from tokyo (10.244.2.0): seq=4 time=150 ms\n"
        "4 sent, 4 answered, 0% lost, round trip min/avg/max 0.400/41.2/150 ms\n"
    )


def test_one_request_leaves_each_interval(ping, clock):
    ping("tokyo", "-c", "3", "-i", "0.5", delays=(0.001, 0.001, 0.001))

    assert clock.time == pytest.approx(1001.001)


def test_a_reply_later_than_the_next_request_counts(ping, clock):
    result = ping("tokyo", "-c", "2", "-i", "1", "-W", "2", delays=(1.5, 0.1))

    assert "2 sent, 2 answered" in result.stdout
    assert result.stdout.index("seq=2") < result.stdout.index("seq=1")


def test_a_reply_after_the_timeout_does_not_count(ping):
    result = ping("tokyo", "-c", "2", delays=(0.001, 4.5))

    assert result.exit_code == 0
    assert "no reply from tokyo (10.244.2.0): seq=2\n2 sent, 1 answered, 50% lost" in result.stdout


def test_a_request_that_cannot_be_sent_is_lost(ping):
    error = OSError(errno.EHOSTUNREACH, "No route to host")

    result = ping("tokyo", "-c", "2", delays=(error, 0.001))

    assert "seq=1 to tokyo (10.244.2.0) cannot be sent: No route to host\n" in result.stdout
    assert "2 sent, 1 answered, 50% lost" in result.stdout


def test_an_error_of_this_host_is_reported_at_once(ping, clock):
    class Wall(Tunnel):
        def receive(self, timeout):
            raise OSError(errno.EHOSTUNREACH, "No route to host")

    result = ping("tokyo", "-c", "1", tunnel=Wall(clock, None))

    assert "seq=1 to tokyo (10.244.2.0) is lost: No route to host\n" in result.stdout
    assert clock.time == 1000
    assert result.exit_code == 1


UNREACHABLE = IcmpError(4, 3, 1)


def test_an_icmp_error_is_reported_with_its_sender_and_ends_the_wait(ping, clock):
    result = ping("tokyo", "-c", "1", delays=(("10.244.2.0", UNREACHABLE),))

    assert result.stdout == (
        "ping tokyo (10.244.2.0) from 10.244.1.0\n"
        "error from tokyo (10.244.2.0): seq=1 host unreachable\n"
        "1 sent, 0 answered, 1 error, 100% lost\n"
    )
    assert result.stderr == (
        'Error: tokyo (10.244.2.0) does not answer: tokyo (10.244.2.0) says "host unreachable"; '
        "see whether tokyo is up "
        "and attached to the link on which that host looks for it\n"
    )
    assert (result.exit_code, clock.time) == (1, 1000)


def test_an_icmp_error_for_a_request_already_lost_is_reported_too(ping):
    class Late(Tunnel):
        def send(self, sequence):
            self._replies.append(
                (self.clock.time + 3.1, EchoError(sequence, ip_address("10.9.0.1"), UNREACHABLE))
            )

    result = ping("tokyo", "-c", "2", "-W", "2.5", tunnel=Late(ping.clock))

    assert result.stdout.splitlines()[1:] == [
        "no reply from tokyo (10.244.2.0): seq=1",
        "error from 10.9.0.1: seq=1 host unreachable",
        "no reply from tokyo (10.244.2.0): seq=2",
        "2 sent, 0 answered, 1 error, 100% lost",
    ]


def test_what_nobody_was_sent_is_in_no_error(ping):
    class Liar(Tunnel):
        def send(self, sequence):
            self._replies.append((self.clock.time, EchoError(77, ip_address("10.9.0.1"), UNREACHABLE)))

    assert "error" not in ping("tokyo", "-c", "1", tunnel=Liar(ping.clock)).stdout


def test_an_error_of_this_nodes_own_leaves_the_word_to_the_agent(ping, agent):
    agent.answers["peer"] = peer_answer(
        "tokyo", "10.244.2.0", endpoint="192.0.2.2:51820", last_handshake=300, state="unreachable"
    )

    result = ping("tokyo", "-c", "1", delays=(("10.244.1.0", UNREACHABLE),))

    assert "error from this node (10.244.1.0): seq=1 host unreachable\n" in result.stdout
    assert (
        "tokyo is unreachable, and its last handshake was 5 min ago: see whether its agent runs"
        in result.stderr
    )


def test_json_has_the_errors_that_differ_with_their_number(ping):
    delays = tuple((f"10.9.0.{1 + number % 40}", UNREACHABLE) for number in range(80))

    said = json.loads(ping("tokyo", "-c", "80", "-i", "0.01", "--json", delays=delays).stdout)

    assert said["errors"][0] == {
        "from": "10.9.0.1",
        "type": 3,
        "code": 1,
        "meaning": "host unreachable",
        "count": 2,
    }
    assert len(said["errors"]) == SHOWN_ERRORS


def test_a_peer_is_asked_itself_where_what_is_behind_it_does_not_answer(ping, agent, clock):
    agent.answers["peer"] = peer_answer(
        "tokyo",
        "10.244.2.0",
        asked_address="10.244.2.77",
        state="up",
        last_handshake=12.7,
        endpoint="192.0.2.2:51820",
    )

    class Behind(Tunnel):
        def open(self, own, peer):
            self.delays = (0.002,) if str(peer) == "10.244.2.0" else (None,)
            return self

    result = ping("10.244.2.77", "-c", "1", tunnel=Behind(clock))

    assert result.stderr == (
        "Error: 10.244.2.77 behind tokyo does not answer, but the tunnel to tokyo works: tokyo itself answers at "
        "10.244.2.0; see whether 10.244.2.77 is up, accepts echo requests, and has a route to 10.244.1.0 by tokyo, "
        "and whether tokyo forwards to it\n"
    )


def test_a_peer_that_can_is_asked_in_band_where_its_address_does_not_answer(ping, agent):
    agent.answers["peer"] = peer_answer(
        "tokyo", "10.244.2.0", state="up", last_handshake=12.7, endpoint="192.0.2.2:51820"
    )
    agent.answers["ping"] = ping_answer(0.0004)

    result = ping("tokyo", "--icmp", "-c", "1", delays=(None,))

    assert "but its tunnel works: tokyo answers in-band pings; see whether its firewall" in result.stderr


def test_a_peer_that_does_not_answer_in_any_way_is_not_reported_to_work(ping, agent):
    agent.answers["peer"] = peer_answer(
        "tokyo",
        "10.244.2.0",
        asked_address="10.244.2.77",
        state="up",
        last_handshake=12.7,
        endpoint="192.0.2.2:51820",
    )

    assert "does not answer, nor does tokyo itself" in ping("10.244.2.77", "-c", "1", delays=(None,)).stderr


def test_the_socket_is_closed_whatever_happens(ping, clock):
    class Broken(Tunnel):
        def receive(self, timeout):
            raise KeyboardInterrupt

    ping("tokyo", delays=(None,) * 4)
    assert ping.tunnel.is_closed

    ping("tokyo", tunnel=Broken(clock, None))
    assert ping.tunnel.is_closed


def test_an_interrupted_ping_still_sums_up(ping, clock):
    class Interrupted(Tunnel):
        def receive(self, timeout):
            if self.clock.time > 1001:
                raise KeyboardInterrupt
            return super().receive(timeout)

    result = ping("tokyo", tunnel=Interrupted(clock, 0.002, 0.004, None, None))

    assert (result.exit_code, result.stderr) == (130, "")
    assert result.stdout.endswith("2 sent, 2 answered, 0% lost, round trip min/avg/max 2.00/3.00/4.00 ms\n")


KEYS = (
    ", and whether the public keys are right: `overlay pubkey` at tokyo must print tokyo+key=, and its peers file must "
    "have own+key= for paris"
)


def silence(ping, agent, **fields):
    """Return the output for a peer that does not answer; *fields* are what the agent knows at the end."""
    first = peer_answer("tokyo", "10.244.2.0")
    answers = iter([first, peer_answer("tokyo", "10.244.2.0", **fields)])
    agent.answers["peer"] = lambda _: next(answers)
    result = ping("tokyo", "-c", "1", delays=(None,))
    assert result.stdout.endswith("no reply from tokyo (10.244.2.0): seq=1\n1 sent, 0 answered, 100% lost\n")
    assert result.exit_code == 1
    return result.stderr


def test_an_address_of_the_peer_stands_for_it(ping, agent):
    agent.answers["peer"] = peer_answer("tokyo", "10.244.2.0", "fd00:244:2::", asked_address="fd00:244:2::")

    result = ping("fd00:244:2::", "-c", "1", delays=(0.002,))

    assert result.stdout.startswith("ping tokyo (fd00:244:2::) from fd00:244:1::\n")
    assert [request["op"] for request in agent.requests] == ["peer", "ping"]


def test_an_address_behind_the_peer_is_asked_itself_and_not_in_band(ping, agent):
    agent.answers["peer"] = peer_answer("tokyo", "10.244.2.0", asked_address="10.244.2.7")

    result = ping("10.244.2.7", "-c", "1", delays=(0.002,))

    assert result.stdout.startswith(
        "ping 10.244.2.7 behind tokyo from 10.244.1.0\nreply from 10.244.2.7 behind tokyo: seq=1 time=2.00 ms\n"
    )
    assert [request["op"] for request in agent.requests] == ["peer"]


def test_json_says_why_a_peer_is_silent(ping, agent):
    answer = json.loads(ping("tokyo", "-c", "1", "--json", delays=(None,)).stdout)

    assert answer["why"].startswith("tokyo (10.244.2.0) does not answer; tokyo is idle")


def test_a_silent_peer_gets_the_age_of_its_last_handshake(ping, agent):
    assert silence(
        ping, agent, state="up", last_handshake=12.7, last_received=1.0, endpoint="192.0.2.2:51820"
    ) == (
        "Error: tokyo (10.244.2.0) does not answer, but its tunnel works: the last message of tokyo came 1 s ago; "
        "see whether its firewall drops echo requests, and whether it really has that address\n"
    )
    assert any(request.get("is_counted") for request in agent.requests)


def test_a_silent_peer_whose_session_is_over_gets_what_to_look_at(ping, agent):
    assert silence(ping, agent, last_handshake=300, endpoint="192.0.2.2:51820") == (
        "Error: tokyo (10.244.2.0) does not answer; tokyo is idle, and its last handshake was 5 min ago: "
        f"see whether its agent runs, and whether UDP reaches it at 192.0.2.2:51820{KEYS}\n"
    )


def test_a_peer_without_any_handshake_gets_what_to_look_at(ping, agent):
    assert silence(ping, agent, endpoint="192.0.2.2:51820") == (
        "Error: no handshake with tokyo yet: "
        f"see whether its agent runs, and whether UDP reaches it at 192.0.2.2:51820{KEYS}\n"
    )


def test_of_a_peer_in_the_clear_no_handshake_is_spoken_of(ping, agent):
    assert silence(ping, agent, endpoint="192.0.2.2:8285", state="unencrypted") == (
        "Error: tokyo (10.244.2.0) does not answer; the tunnel is not encrypted, so there are no handshakes to judge by, "
        "and no packet has come from it: see whether its end of the tunnel is up, "
        "and whether UDP reaches it at 192.0.2.2:8285\n"
    )


def test_packets_that_come_in_the_clear_do_not_show_that_others_are_taken(ping, agent):
    told = silence(
        ping, agent, endpoint="192.0.2.2", state="unencrypted", carried_by="IP protocol 4", last_received=0.1
    )

    assert told == (
        "Error: tokyo (10.244.2.0) does not answer, though its last packet came 0 s ago: none if tokyo only sends, as a "
        "director of LVS does, which accepts no packets from its servers; otherwise see whether its end of the tunnel is "
        "up, takes IP protocol 4 from here, and answers echo requests\n"
    )


def test_a_peer_that_has_to_call_first_gets_that(ping, agent):
    assert silence(ping, agent, is_configured=False) == (
        "Error: tokyo (10.244.2.0) does not answer: it has no endpoint, so it has to connect first\n"
    )


def test_an_address_of_a_family_that_both_have_is_taken(ping, agent):
    agent.answers["peer"] = peer_answer("tokyo", "10.244.2.0", "fd00:244:2::", own=("fd00:244:1::",))

    ping("tokyo", "-c", "1", delays=(0.001,))

    assert ping.tunnel.addresses == ("fd00:244:1::", "fd00:244:2::")


def test_peers_without_a_family_in_common_get_a_sentence(ping, agent):
    agent.answers["peer"] = peer_answer("tokyo", "10.244.2.0", own=("fd00:244:1::",))

    result = ping("tokyo")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "Error: this node has fd00:244:1::, tokyo has 10.244.2.0: "
        "give both an address of one family in the peers file\n"
    )


def test_an_unknown_peer_gets_near_names(ping, agent):
    agent.answers["peer"] = {
        "ok": False,
        "kind": "unknown_peer",
        "error": "there is no peer toky in /etc/overlay/peers.toml",
        "known": ["rome", "tokyo"],
    }

    result = ping("toky")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: there is no peer toky in /etc/overlay/peers.toml; did you mean tokyo?\n"


def test_an_unknown_peer_of_many_gets_some_names(ping, agent):
    agent.answers["peer"] = {
        "ok": False,
        "kind": "unknown_peer",
        "error": "there is no peer x in peers.toml",
        "known": [f"node{number}" for number in range(12)],
    }

    assert ping("x").stderr == (
        "Error: there is no peer x in peers.toml; the peers are node0, node1, node2, node3, node4, node5, "
        "node6, node7, node8, node9 and 2 more\n"
    )


def test_an_address_of_this_node_is_a_wrong_use(ping, agent):
    agent.answers["peer"] = {"ok": False, "kind": "own", "error": "10.244.1.3 is in a subnet of this node"}

    result = ping("10.244.1.3")

    assert (result.exit_code, result.stderr) == (2, "Error: 10.244.1.3 is in a subnet of this node\n")


def test_a_node_does_not_ping_itself(ping, agent):
    agent.answers["peer"] = peer_answer("paris", "10.244.1.0")

    result = ping("paris")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: paris is this node itself; name another peer\n"


def test_json_has_all_that_was_measured(ping):
    result = ping("tokyo", "-c", "2", "--json", delays=(0.001, None))

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "schema": 1,
        "peer": "tokyo",
        "address": "10.244.2.0",
        "own_address": "10.244.1.0",
        "way": "icmp",
        "sent": 2,
        "answered": 1,
        "times_ms": [1.0],
        "errors": [],
        "state": "idle",
        "endpoint": "192.0.2.2:51820",
        "last_handshake_age_seconds": 3.2,
        "why": None,
    }


# In-band


def in_band(agent, *answers):
    """Make the agent answer pings in this way, one after the other."""
    remaining = iter(answers)
    agent.answers["ping"] = lambda _: next(remaining)


def test_a_peer_that_can_is_pinged_in_band_and_each_line_says_so(ping, agent):
    in_band(agent, ping_answer(0.0004), ping_answer(0.0123))

    result = ping("tokyo", "-c", "2")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "ping tokyo (10.244.2.0) from 10.244.1.0\n"
        "reply from tokyo (10.244.2.0): seq=1 time=0.400 ms in-band\n"
        "reply from tokyo (10.244.2.0): seq=2 time=12.3 ms in-band\n"
        "2 sent, 2 answered, 0% lost, round trip min/avg/max 0.400/6.35/12.3 ms\n"
    )
    assert ping.tunnel.addresses is None


def test_the_agent_gets_the_peer_to_ping_and_the_time_to_wait(ping, agent):
    in_band(agent, ping_answer(0.001))

    ping("tokyo", "-c", "1", "-W", "0.5")

    assert {"op": "ping", "name": "tokyo", "timeout": 0.5} in agent.requests


def test_json_says_how_it_was_measured(ping, agent):
    in_band(agent, ping_answer(0.001), ping_answer(None))

    said = json.loads(ping("tokyo", "-c", "2", "--json").stdout)

    assert (said["way"], said["sent"], said["answered"], said["times_ms"]) == ("in-band", 2, 1, [1.0])


def test_an_in_band_ping_without_pong_is_lost(ping, agent):
    in_band(agent, ping_answer(None), ping_answer(0.001))

    result = ping("tokyo", "-c", "2")

    assert result.exit_code == 0
    assert "no reply from tokyo (10.244.2.0): seq=1 in-band\n2 sent, 1 answered, 50% lost" in result.stdout


def test_one_ping_too_many_for_the_agent_is_lost(ping, agent):
    in_band(agent, {"ok": False, "kind": "busy", "error": "256 pings wait"}, ping_answer(0.001))

    result = ping("tokyo", "-c", "2")

    assert "seq=1 in-band\n2 sent, 1 answered" in result.stdout


def test_new_keys_in_the_middle_are_gone_on_under_with_echo_requests(ping, agent):
    in_band(agent, ping_answer(0.001), ping_answer(None, is_possible=False))

    result = ping("tokyo", "-c", "3", delays=(None, 0.002, 0.003))

    assert result.stdout.splitlines()[1:] == [
        "reply from tokyo (10.244.2.0): seq=1 time=1.00 ms in-band",
        "reply from tokyo (10.244.2.0): seq=2 time=2.00 ms",
        "reply from tokyo (10.244.2.0): seq=3 time=3.00 ms",
        "3 sent, 3 answered, 0% lost, round trip min/avg/max 1.00/2.00/3.00 ms",
    ]


def test_json_tells_of_both_ways(ping, agent):
    in_band(agent, ping_answer(0.001), ping_answer(None, is_possible=False))

    said = json.loads(ping("tokyo", "-c", "2", "--json", delays=(None, 0.002)).stdout)

    assert (said["way"], said["times_ms"]) == ("both", [1.0, 2.0])


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": False, "kind": "failed", "error": "this agent does not know that request"},
        {"ok": True},
        {"ok": True, "ping": None},
        {"ok": True, "ping": {"seconds": 1}},
        {"ok": True, "more": "x" * 10_000},
    ],
    ids=["older", "empty", "null", "half", "long"],
)
def test_an_agent_that_knows_of_no_in_band_pings_is_not_needed(ping, agent, answer):
    agent.answers["ping"] = answer

    result = ping("tokyo", "-c", "2", delays=(0.001, 0.001))

    assert "2 sent, 2 answered" in result.stdout
    assert "in-band" not in result.stdout


def test_an_agent_that_ends_meanwhile_is_not_needed(ping, agent):
    def end(_):
        agent._control.path.unlink()
        return ping_answer(0.001)

    agent.answers["ping"] = end

    result = ping("tokyo", "-c", "2", delays=(None, 0.002))

    assert "2 sent, 2 answered" in result.stdout


def test_echo_requests_can_be_asked_for(ping, agent):
    result = ping("tokyo", "-c", "1", "--icmp", delays=(0.002,))

    assert result.stdout.splitlines()[1] == "reply from tokyo (10.244.2.0): seq=1 time=2.00 ms"
    assert [request["op"] for request in agent.requests] == ["peer"]


def test_a_firewall_is_not_blamed_for_in_band_silence(ping, agent):
    agent.answers["peer"] = peer_answer(
        "tokyo", "10.244.2.0", state="up", last_handshake=12.7, endpoint="192.0.2.2:51820"
    )
    in_band(agent, ping_answer(None))

    result = ping("tokyo", "-c", "1")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: tokyo (10.244.2.0) does not answer; the last handshake of tokyo was 12 s ago, and no message has come "
        "from it: see whether its agent runs, and whether UDP reaches it at 192.0.2.2:51820\n"
    )


@pytest.mark.parametrize(
    "arguments", [("-c", "0"), ("-c", "65536"), ("-i", "0"), ("-i", "nan"), ("-W", "inf"), ("-W", "x")]
)
def test_numbers_out_of_range_are_refused(ping, arguments):
    result = ping("tokyo", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: Invalid value for '{arguments[0]}'" in result.stderr


# Without addresses


@pytest.fixture
def bare(agent, ping):
    """A peer that is only a bridge, as is this node."""
    agent.answers["peer"] = peer_answer("tokyo", own=(), last_handshake=3.2)
    return ping


def test_a_peer_without_an_address_is_pinged_in_band(bare, agent):
    in_band(agent, ping_answer(0.0004))

    result = bare("tokyo", "-c", "1")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "ping tokyo\n"
        "reply from tokyo: seq=1 time=0.400 ms in-band\n"
        "1 sent, 1 answered, 0% lost, round trip min/avg/max 0.400/0.400/0.400 ms\n"
    )


def test_json_tells_of_no_address(bare, agent):
    in_band(agent, ping_answer(0.0004))

    answer = json.loads(bare("tokyo", "-c", "1", "--json").stdout)

    assert (answer["address"], answer["own_address"], answer["way"]) == (None, None, "in-band")


@pytest.mark.parametrize(
    ("own", "last_handshake", "arguments", "sentence"),
    [
        (
            (),
            3.2,
            (),
            (
                "this node has no address on the overlay, so it cannot be sent echo requests, and tokyo has not "
                "announced support for in-band pings yet: try again in a second"
            ),
        ),
        (
            ("10.244.1.0",),
            None,
            (),
            (
                "tokyo has no address on the overlay, so it cannot be sent echo requests, and there is no session "
                "with tokyo: see whether its agent runs and can be reached"
            ),
        ),
        (
            (),
            3.2,
            ("--icmp",),
            "this node has no address on the overlay, so it cannot be sent echo requests: omit --icmp",
        ),
    ],
)
def test_without_an_address_nor_in_band_pings_a_sentence_says_so(
    ping, agent, own, last_handshake, arguments, sentence
):
    agent.answers["peer"] = peer_answer("tokyo", own=own, last_handshake=last_handshake)

    result = ping("tokyo", *arguments)

    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}\n")
