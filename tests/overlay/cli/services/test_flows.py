import json

import pytest

from overlay.answers import flows as answers
from overlay.cli.services.flows import COLUMNS, LEFT_OUT, LIMIT, MOST, PROTOCOLS, STATES, FlowTable
from overlay.documents import renamed
from peers.service import PROTOCOLS as ALL_PROTOCOLS
from tests.overlay.cli.services.rows import flow

ANSWER = {"ok": True, "is_complete": True, "has_more": False}


def test_options_accept_what_the_agent_knows():
    assert list(STATES) == answers.STATES
    assert set(PROTOCOLS) == set(ALL_PROTOCOLS)
    assert (LIMIT, MOST) == (answers.LIMIT, answers.MOST)


def test_flows_are_lines(overlay, agent):
    agent.answers["flows"] = ANSWER
    agent.rows["flows"] = [
        [flow(), flow(client="2001:db8::1", address="2001:db8::80", state="SYN_RECV")],
        [flow(protocol="udp", state="UDP", server=None, idle_s=75.0)],
    ]

    result = overlay("services", "--flows", "web")

    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["PROTOCOL", "CLIENT", "SERVICE", "STATE", "SERVER", "IDLE", "LEFT"],
        ["tcp", "192.0.2.7:40000", "web", "203.0.113.80:80", "ESTABLISHED", "web1", "1", "s", "14", "min", "59", "s"],
        ["tcp", "[2001:db8::1]:40000", "web", "[2001:db8::80]:80", "SYN_RECV", "web1", "1", "s", "14", "min", "59", "s"],
        ["udp", "192.0.2.7:40000", "web", "203.0.113.80:80", "UDP", "-", "1", "min", "15", "s", "14", "min", "59", "s"],
    ]  # fmt: skip
    assert agent.requests == [{"op": "flows", "name": "web"}]


@pytest.mark.parametrize(
    ("width", "left_out"), [(None, set()), (120, set()), (80, {"LEFT", "PROTOCOL"}), (20, set(LEFT_OUT))]
)
def test_less_important_columns_are_left_out_where_they_do_not_fit(width, left_out):
    """Before, each line had 110 columns."""
    table = FlowTable()
    table.take([flow(client="198.51.100.201", idle_s=75.0), flow(server=None)])

    header, *rows = table.lines(width)

    assert set(header.split()) == set(COLUMNS) - left_out
    assert max(map(len, [header, *rows])) <= max(width or 120, 70)


def test_filters_reach_the_agent(overlay, agent):
    agent.answers["flows"] = ANSWER

    result = overlay(
        "services", "--flows", "--client", "192.0.2.0/24", "--server", "web1", "--state", "syn_recv", "--state", "UDP",
        "--protocol", "tcp", "--port", "80", "--limit", "5",
    )  # fmt: skip

    assert result.stdout == "there are no such flows\n"
    assert agent.requests == [
        {
            "op": "flows",
            "client": "192.0.2.0/24",
            "server": "web1",
            "states": ["SYN_RECV", "UDP"],
            "protocol": "tcp",
            "port": 80,
            "limit": 5,
        }
    ]


def test_flows_are_json_with_whether_there_are_more(overlay, agent):
    agent.answers["flows"] = ANSWER | {"has_more": True}
    agent.rows["flows"] = [[flow()], [], [flow(client_port=2)]]

    told = overlay("services", "--flows", "--json")
    shown = overlay("services", "--flows")

    assert json.loads(told.stdout) == {
        "schema": 1,
        "flows": renamed([flow(), flow(client_port=2)]),
        "has_more": True,
    }
    assert "idle_seconds" in json.loads(told.stdout)["flows"][0]
    assert shown.stdout.endswith("\nthere are more flows: filter them, or raise --limit\n")


def test_nothing_is_shown_if_not_all_is_known(overlay, agent):
    agent.answers["flows"] = ANSWER | {"is_complete": False}
    agent.rows["flows"] = [[flow()]]

    result = overlay("services", "--flows")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: the forwarder of overlay0 did not report its flows\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--client", "192.0.2.1"), "--client is about flows: add --flows"),
        (("--state", "UDP"), "--state is about flows: add --flows"),
        (("--flows", "--state", "OPEN"), "'OPEN' is not one of"),
        (("--flows", "--limit", "0"), "'0' is not a number from 1"),
        (("--flows", "--port", "70000"), "'70000' is not a number from 0 to 65535"),
        (("--flows", "--ipvsadm"), "--ipvsadm has one format: remove --flows"),
        (("--flows", "--stats"), "--stats is an option of --ipvsadm: add that"),
    ],
)
def test_options_that_do_not_fit_are_a_sentence(overlay, agent, arguments, said):
    result = overlay("services", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert agent.requests == []


def test_unknown_names_are_a_mistake(overlay, agent):
    agent.answers["flows"] = {
        "ok": False,
        "kind": "unknown_service",
        "error": "there is no server of web 'web9'",
        "known": ["web1", "web2"],
    }

    result = overlay("services", "--flows", "web", "--server", "web9")

    assert result.exit_code == 2
    assert "there is no server of web 'web9': there are web1, web2" in result.stderr
