from __future__ import annotations

import json

import pytest

from overlay.cli.agents import read_peer
from overlay.cli.doctor import hear_foreign, render, settle
from overlay.cli.echoes import Asked
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.kinds import describe
from overlay.documents import worst_first
from tests.overlay.cli.fakes import peer_answer, ping_answer

FORWARDING = describe(
    Finding("forwarding", "this host does not forward IPv4", "run `sysctl -w net.ipv4.ip_forward=1`")
)
OFFLOADS = describe(Finding("udp_offloads", "this kernel is old"))
STALE = describe(Finding("no_answer", "tokyo has not answered for 90 s", "", "tokyo"))
KEYS = describe(Finding("preshared_key", "the preshared keys differ", "compare them", "tokyo"))
SILENCE = Finding("no_answer", "no handshake with tokyo yet", "see whether its agent runs", "tokyo")


def examined(*findings, ask=()):
    return {
        "ok": True,
        "doctor": {
            "node": "paris",
            "interface": "overlay0",
            "packet_path": "compiled",
            "peers": 1,
            "ask": list(ask),
            "is_complete": True,
            "rekey_timeout_seconds": 0.0,
            "forwarder_pid": None,
            "drops": {},
            "devices": ["overlay0"],
            "foreign": {},
            "floods": {},
            "findings": list(findings),
        },
    }


def test_nothing_is_wrong_where_nothing_is_found(overlay, agent):
    agent.answers = {
        "doctor": examined(ask=["tokyo"]),
        "peer": peer_answer("tokyo"),
        "ping": ping_answer(0.001),
    }

    done = overlay("doctor")

    assert (done.exit_code, done.output) == (
        0,
        "paris on overlay0 (compiled packet path): 1 of 1 peer answered\n\nnothing is wrong\n",
    )


def test_what_is_wrong_is_shown_with_its_remedy_and_fails(overlay, agent):
    agent.answers = {"doctor": examined(FORWARDING)}

    done = overlay("doctor")

    assert done.exit_code == 1
    assert done.output.splitlines()[2:] == [
        "error    this host does not forward IPv4",
        "         -> run `sysctl -w net.ipv4.ip_forward=1`",
    ]


def test_with_notices_alone_nothing_is_wrong(overlay, agent):
    agent.answers = {"doctor": examined(OFFLOADS)}

    done = overlay("doctor")

    assert done.exit_code == 0
    assert "notice   this kernel is old" in done.output


def test_json_has_a_schema_and_the_findings(overlay, agent):
    agent.answers = {"doctor": examined(OFFLOADS, FORWARDING)}

    done = overlay("doctor", "--json")

    assert done.exit_code == 1
    assert json.loads(done.output) == {
        "schema": 1,
        "interface": "overlay0",
        "node": "paris",
        "is_running": True,
        "packet_path": "compiled",
        "peers": 1,
        "asked": 0,
        "answered": 0,
        "findings": [FORWARDING, OFFLOADS],
    }


def test_packets_that_are_dropped_for_their_sources_meanwhile_are_a_finding(overlay, agent):
    counts = iter([{"tokyo": 3, "rome": 1}, {"tokyo": 5, "rome": 1}])

    def examine(_request):
        answer = examined()
        answer["doctor"]["foreign"] = next(counts)
        return answer

    agent.answers = {"doctor": examine}

    done = overlay("doctor", "--json")

    (finding,) = json.loads(done.output)["findings"]
    assert (finding["name"], finding["peer"]) == ("foreign_source", "tokyo")
    assert finding["problem"].startswith(
        "5 packets of tokyo were dropped so far, with sources that are not in its"
    )


@pytest.mark.parametrize("is_complete", [False, True])
def test_drops_in_the_meantime_are_only_reported_if_the_counters_before_are_known(
    overlay, agent, is_complete
):
    later = examined()
    later["doctor"] |= {"floods": {"tokyo": [9, 0]}, "foreign": {"rome": 7}, "drops": {"tun_full": 5}}
    survey = examined()
    survey["doctor"]["is_complete"] = is_complete
    answers = iter([survey, later])
    agent.answers = {"doctor": lambda _: next(answers)}

    done = overlay("doctor", "--json")

    kinds = {each["name"] for each in json.loads(done.output)["findings"]}
    assert kinds == ({"dropping", "foreign_source", "peer_floods"} if is_complete else set())


@pytest.mark.parametrize(
    ("is_agent", "more", "kind"),
    [(True, 1, "foreign_source"), (False, 1, "tunnel_one_way"), (False, 100, "foreign_source")],
)
def test_a_peer_whose_packets_are_dropped_for_their_sources_meanwhile_is_not_silent(is_agent, more, kind):
    told = peer_answer("tokyo", endpoint="192.0.2.2", state="unencrypted", is_agent=is_agent)
    asked = [Asked("tokyo", None, SILENCE, read_peer("overlay0", told))]

    found = hear_foreign([describe(SILENCE)], asked, {"rome": 5}, {"rome": 5, "tokyo": more})

    assert [(each["name"], each["peer"]) for each in found] == [(kind, "tokyo")]


def test_a_peer_that_is_named_is_looked_at_alone(overlay, agent):
    agent.answers = {"doctor": examined()}

    overlay("doctor", "tokyo")

    assert [request["name"] for request in agent.requests] == ["tokyo", "tokyo"]


def test_a_peer_that_nobody_knows_is_wrong_usage(overlay, agent):
    agent.answers = {
        "doctor": {"ok": False, "kind": "unknown_peer", "error": "there is no peer tokio", "known": ["tokyo"]}
    }

    done = overlay("doctor", "tokio")

    assert (done.exit_code, done.output) == (2, "Error: there is no peer tokio; did you mean tokyo?\n")


def test_without_an_agent_that_is_the_first_finding_and_the_file_is_examined(overlay, tmp_path):
    done = overlay("doctor", "--peers", tmp_path / "none.toml", "--json")

    report = json.loads(done.output)
    assert (done.exit_code, report["is_running"], report["node"]) == (1, False, None)
    assert [each["name"] for each in report["findings"]] == ["no_agent", "peers_file"]


def test_interface_of_wg_quick_has_no_peers_file_that_could_be_missing(overlay, surroundings):
    surroundings.wg_quick_directory.mkdir()
    (surroundings.wg_quick_directory / "wg0.conf").touch()

    done = overlay("doctor", "--interface", "wg0", "--json")

    (finding,) = json.loads(done.output)["findings"]
    assert (finding["problem"], finding["remedy"]) == (
        "no overlay agent runs for wg0 here",
        "start it with `WG_QUICK_USERSPACE_IMPLEMENTATION=overlay-wg wg-quick up wg0`",
    )


def test_agent_that_waits_is_the_finding_with_what_to_do(overlay, agent):
    agent.answers = {"doctor": {"ok": False, "kind": "waiting", "error": "it waits", "reason": "run `this`"}}

    done = overlay("doctor", "--json")

    report = json.loads(done.output)
    assert (done.exit_code, report["is_running"], report["node"]) == (1, True, None)
    assert report["findings"] == [
        {
            "name": "waiting",
            "severity": "error",
            "peer": None,
            "problem": "it waits",
            "remedy": "run `this`",
        }
    ]
    assert overlay("doctor").output == (
        "overlay0, whose agent is not a node yet: 1 error\n\nerror    it waits\n         -> run `this`\n"
    )


def test_interface_that_is_named_is_examined_beside_the_agent_of_another(overlay, agent, tmp_path):
    done = overlay("doctor", "--interface", "office", "--peers", tmp_path / "none.toml", "--json")

    report = json.loads(done.output)
    assert (report["interface"], report["is_running"]) == ("office", False)
    assert [each["name"] for each in report["findings"]] == ["no_agent", "peers_file"]


def test_without_an_agent_no_single_peer_can_be_looked_at(overlay):
    done = overlay("doctor", "tokyo")

    assert done.exit_code == 1
    assert done.output.startswith("Error: no overlay agent runs for overlay0 here")


# What peers answered


def test_a_peer_that_answers_is_not_called_silent_by_what_was_known_before():
    assert settle([STALE], [Asked("tokyo", 0.01)]) == []


def test_a_peer_that_was_not_asked_is_as_the_agent_says():
    assert settle([STALE], [Asked("rome", 0.01)]) == [STALE]


def test_silence_is_explained_by_what_the_agent_knows_of_the_peer():
    assert settle([KEYS], [Asked("tokyo", None, SILENCE)]) == [KEYS]


def test_silence_that_the_agent_cannot_explain_is_a_finding():
    assert settle([STALE], [Asked("tokyo", None, SILENCE)]) == [describe(SILENCE)]


def test_a_peer_that_could_not_be_asked_is_not_a_finding():
    assert settle([], [Asked("tokyo")]) == []


def test_a_peer_that_could_not_be_asked_is_not_counted_as_silent():
    asked = [Asked("tokyo"), Asked("rome", 0.01), Asked("oslo", None, SILENCE)]

    assert [each.was_asked for each in asked] == [False, True, True]


@pytest.mark.parametrize("is_checked", [True, False])
def test_a_server_that_need_not_answer_is_reported_unless_checks_show_that_it_works(is_checked):
    unasked = Finding("server_unasked", "tokyo does not answer", "", "tokyo")
    services = [{"service": "web", "server": "tokyo", "state": "up", "is_checked": is_checked}]
    answer = read_peer("overlay0", peer_answer("tokyo", services=services))

    assert settle([], [Asked("tokyo", None, unasked, answer)]) == ([] if is_checked else [describe(unasked)])


CLOSED = Finding("port_closed", "192.0.2.2 says no", "start it", "tokyo")
UNCONFIRMED = describe(Finding("unconfirmed", "it uses no answer", "compare keys", "tokyo"))
ROUTE = describe(Finding("route_taken", "docker0 has its network", "give it another"))
ROUTE_TO_TOKYO = describe(Finding("route_taken", "docker0 has its network", "give it another", "tokyo"))
THERE = describe(Finding("wrong_key_there", "handshakes for another key", "compare", "tokyo"))


def test_what_a_host_says_is_surer_than_what_handshakes_make_likely():
    assert settle([UNCONFIRMED], [Asked("tokyo", None, CLOSED)]) == [describe(CLOSED)]


def test_what_handshakes_make_likely_is_surer_than_silence():
    assert settle([UNCONFIRMED, STALE], [Asked("tokyo", None, SILENCE)]) == [UNCONFIRMED]


@pytest.mark.parametrize("found", [UNCONFIRMED, THERE])
def test_what_is_likely_is_over_once_the_peer_answers(found):
    assert settle([found], [Asked("tokyo", 0.01)]) == []


def test_a_peer_that_misses_another_at_this_node_and_answers_is_a_notice():
    missing = describe(Finding("wrong_place_there", "handshakes for the key of rome", "correct it", "tokyo"))

    assert settle([missing], [Asked("tokyo", 0.01)]) == [
        missing | {"name": "misdirected", "severity": "notice"}
    ]
    assert settle([missing], [Asked("tokyo", None, SILENCE)]) == [missing]


@pytest.mark.parametrize("cause", [ROUTE, ROUTE_TO_TOKYO])
def test_silence_that_follows_from_this_host_is_not_reported(cause):
    assert settle([UNCONFIRMED], [Asked("tokyo", None, CLOSED)], [cause]) == []


def test_silence_of_another_peer_than_the_one_that_this_host_cuts_off_is_reported():
    rome = Finding("no_answer", "no handshake with rome yet", "", "rome")

    assert settle([], [Asked("rome", None, rome)], [ROUTE_TO_TOKYO]) == [describe(rome)]


def test_agent_of_another_version_is_distinguished_from_one_that_is_well(overlay, agent):
    agent.answers = {"doctor": {"ok": True, "doctor": {"node": "paris"}}}

    done = overlay("doctor")

    assert done.exit_code == 1
    assert "is of another version than this command" in done.output


# The text


def report(*findings, **changed):
    return {
        "interface": "overlay0",
        "node": "paris",
        "is_running": True,
        "packet_path": "compiled",
        "peers": 70,
        "asked": 64,
        "answered": 63,
        "findings": worst_first(findings),
    } | changed


def test_heading_counts_findings_and_who_was_not_asked():
    heading = render(report(OFFLOADS, FORWARDING, FORWARDING)).splitlines()[0]

    assert heading == (
        "paris on overlay0 (compiled packet path): 63 of 64 peers answered, 6 were not asked; 2 errors, 1 notice"
    )


def test_heading_counts_one_peer_as_one():
    heading = render(report(peers=2, asked=1, answered=1)).splitlines()[0]

    assert heading == "paris on overlay0 (compiled packet path): 1 of 1 peer answered, 1 was not asked"


@pytest.mark.parametrize(
    ("peers", "words"),
    [(1, "its peer was not asked"), (2, "none of its 2 peers was asked"), (0, "it has no tunnels")],
)
def test_heading_does_not_count_answers_where_nobody_was_asked(peers, words):
    heading = render(report(peers=peers, asked=0, answered=0)).splitlines()[0]

    assert heading == f"paris on overlay0 (compiled packet path): {words}"


def test_heading_says_that_packets_take_the_interpreted_path():
    assert render(report(packet_path="interpreted")).startswith(
        "paris on overlay0 (interpreted packet path): "
    )


def test_lines_fit_the_terminal():
    lines = render(report(KEYS, FORWARDING), 40).splitlines()

    assert max(map(len, lines[1:])) <= 40


def of_peers(count, name="no_answer"):
    return [
        describe(
            Finding(name, f"tokyo{number} does not answer", "see whether its agent runs", f"tokyo{number}")
        )
        for number in range(count)
    ]


def test_finding_of_many_peers_is_shown_for_one_and_the_others_are_named():
    lines = render(report(FORWARDING, *of_peers(10_000), KEYS)).splitlines()

    assert lines[2:] == [
        "error    this host does not forward IPv4",
        "         -> run `sysctl -w net.ipv4.ip_forward=1`",
        "error    tokyo0 does not answer",
        "         -> see whether its agent runs",
        "         the same applies to 9999 other peers: "
        + ", ".join(f"tokyo{number}" for number in range(1, 11))
        + " and 9989 more, which --json names",
        "error    the preshared keys differ",
        "         -> compare them",
    ]


def test_finding_of_few_peers_is_shown_for_each():
    text = render(report(*of_peers(3), *of_peers(3, "silent")))

    assert all(text.count(f"tokyo{number} does not answer") == 2 for number in range(3))
    assert "the same" not in text


def test_a_peer_with_two_findings_of_a_kind_is_named_once():
    found = of_peers(4)

    assert render(report(*found, *found)).splitlines()[4:] == [
        "         the same applies to 3 other peers: tokyo1, tokyo2, tokyo3"
    ]


@pytest.mark.parametrize(("number", "is_cut"), [(50, False), (51, True)])
def test_many_findings_are_cut(number, is_cut):
    assert ("1 more finding: --json has them" in render(report(*[FORWARDING] * number))) == is_cut
