"""Programs of services that a director cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from overlay.diagnosis.programs import check_programs
from peers import toml
from tests.overlay.diagnosis.examples import facts
from tests.peers.examples import key_text

PEERS = f"""
[network]
prefix = "10.244.0.0/16"

[peers.paris]
public_key = "{key_text("paris")}"
address = "10.244.1.0"

[peers.tokyo]
public_key = "{key_text("tokyo")}"
address = "10.244.2.0"

[checks.mine]
kind = "script"
command = "/none/check -v"

[services.web]
address = "10.244.9.9"
ports = 80
directors = "paris"
servers = "tokyo"
check = "mine"
up_command = "/bin/true"
down_command = "/none/down"
quorum_up_command = "/none/down up"
"""


def found(own):
    table = toml.parse(PEERS, Path("peers.toml"))
    known = facts()
    return list(check_programs(replace(known, node=replace(known.node, table=table, own=table.peers[own]))))


def test_program_of_a_service_that_cannot_be_started_is_found_once_where_it_runs():
    missing = "cannot be started: it is missing: install it, or correct its path"
    assert [str(each) for each in found("paris")] == [
        f"/none/down, which down_command of services.web names, {missing}",
        f"/none/check, which command of checks.mine names, {missing}",
    ]
    assert found("tokyo") == []


def test_host_without_a_user_for_programs_is_told_whom_to_add(monkeypatch):
    monkeypatch.setattr("overlay.services.checks.script.USERS", ("overlay_script",))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("pwd.getpwnam", {}.__getitem__)

    assert [each.problem for each in found("paris")] == [
        "programs of services cannot be started: there is no user to run it as; add the user overlay_script"
    ]
