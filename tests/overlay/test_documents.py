"""The documents for programs, compared with the commands and the page that print them."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest
from click.testing import CliRunner

from overlay import documents
from overlay.cli import main
from overlay.cli.surroundings import Surroundings
from overlay.documents import RENAMED, renamed, told
from overlay.host.control import control_path
from overlay.reasons import REASONS
from tests.overlay.doors.site import Agent, agent_at, page_for

UNITS = ("_bytes", "_seconds", "_per_second")


def test_fields_are_renamed_at_every_depth_and_what_is_keyed_by_names_is_left():
    fields = {
        "mtu": 1420,
        "peers": [{"last_handshake": 1.5, "drops": {"path_mtu": 3}}],
        "store": {"silent": None},
        "server_commands": {"mtu": [{"command": "x", "why": "y"}]},
    }

    assert told(fields) == {
        "schema": 1,
        "mtu_bytes": 1420,
        "peers": [{"last_handshake_age_seconds": 1.5, "drops": {"path_mtu": 3}}],
        "store": {"silent_seconds": None},
        "server_commands": {"mtu": [{"command": "x", "why": "y"}]},
    }


def test_every_name_ends_with_its_unit_and_is_renamed_once():
    assert all(name.endswith(UNITS) for name in RENAMED.values())
    assert not RENAMED.keys() & set(RENAMED.values())
    assert len(set(RENAMED.values())) == len(RENAMED)


def test_renaming_twice_changes_nothing():
    once = renamed({"mtu": 1, "peers": [{"path_mtu": 2}]})

    assert renamed(once) == once


def test_a_list_of_values_stays_as_it_is():
    assert renamed({"mtu": [1, None, "mtu"], "rows": [[{"mtu": 1}]]}) == {
        "mtu_bytes": [1, None, "mtu"],
        "rows": [[{"mtu_bytes": 1}]],
    }


def test_reasons_are_there_at_zero_for_the_node_and_unknown_is_not_zero():
    known = documents.tell_status({"drops": {"no_peer": 3}, "peers": [{"drops": {}}]})

    assert known["drops"] == dict.fromkeys(REASONS, 0) | {"no_peer": 3}
    assert known["peers"] == [{"drops": {}}]
    assert documents.tell_status({"drops": None})["drops"] is None


def test_findings_stand_the_worst_first_and_otherwise_as_they_came():
    found = [
        {"name": str(place), "severity": each}
        for place, each in enumerate(("notice", "new", "error", "notice"))
    ]

    ordered = documents.tell_examination(interface="overlay0", node=None, findings=found)["findings"]

    assert [each["name"] for each in ordered] == ["2", "0", "3", "1"]


def test_what_is_told_is_left_as_it_was():
    status = {"mtu": 1420, "drops": {}, "peers": [{"path_mtu": None}]}

    documents.tell_status(status)

    assert status == {"mtu": 1420, "drops": {}, "peers": [{"path_mtu": None}]}


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("status", ("status",)),
        ("services", ("services", "list")),
        ("events?limit=100", ("log", "--number", "100")),
    ],
)
def test_the_page_tells_what_the_command_prints(tmp_path, path, command):
    place = control_path("overlay0", tmp_path)
    with agent_at(place, Agent(3)), page_for(place) as site:
        with contextlib.closing(http.client.HTTPConnection(str(site), timeout=30)) as connection:
            connection.request("GET", f"/api/{path}")
            of_page = json.loads(connection.getresponse().read())
        printed = CliRunner().invoke(main, [*command, "--json"], obj=Surroundings(tmp_path))

    assert of_page == json.loads(printed.stdout)
    assert len(of_page) > 2
