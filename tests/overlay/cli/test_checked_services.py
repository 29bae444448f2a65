"""Services as ``overlay check`` shows them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from overlay.cli import main
from tests.peers.services.files import HEAD, PLAIN, web

SERVICE = web(
    "ports = [80, '8000-8099']",
    'directors = ["lb1", "lb2"]',
    "servers = ['web1', { peer = 'plain', weight = 3 }]",
    "check = { kind = 'tcp' }",
    'sorry = "static"',
)


@pytest.fixture
def check(tmp_path):
    """Return a function that runs ``overlay check`` on a text, and returns its output."""

    def run(text, *options):
        peers = tmp_path / "peers.toml"
        peers.write_text(text)
        arguments = ["check", "--peers", str(peers), "--key", str(tmp_path / "none"), *options]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_services_are_a_table(check):
    shown = check(HEAD + SERVICE + PLAIN)

    (row,) = (line.split() for line in shown.splitlines() if line.startswith("web "))
    assert row == [
        "web",
        "192.0.2.100",
        "80,",
        "8000-8099",
        "tcp",
        "maglev",
        "lb1,",
        "lb2",
        "web1,",
        "plain",
        "(3)",
    ]


def test_without_services_nothing_is_shown_of_them(check):
    assert "SERVICE" not in check(HEAD)
    assert json.loads(check(HEAD, "--json"))["services"] == []


def test_what_a_server_without_an_agent_needs_is_shown_with_the_reasons(check):
    shown = check(HEAD + SERVICE + PLAIN)

    assert "plain runs no agent. To be a server it needs, as root:\n" in shown
    assert (
        "  # the address that the server answers from\n  ip address add 192.0.2.100/32 dev tunl0\n" in shown
    )


def test_json_has_services_their_clients_and_the_commands(check):
    report = json.loads(check(HEAD + SERVICE + PLAIN, "--json"))

    (service,) = report["services"]
    assert service["ports"] == ["80", "8000-8099"]
    assert service["directors"] == ["lb1", "lb2"]
    assert service["servers"][1] == {
        "name": "plain",
        "peer": "plain",
        "address": None,
        "port": None,
        "weight": 3,
        "checks": ["tcp"],
    }
    assert service["sorry"]["checks"] == []
    assert {place["place"] for place in service["clients"]} >= {"director", "lan", "routed"}
    assert report["server_commands"]["plain"][0]["command"] == "modprobe ipip"
