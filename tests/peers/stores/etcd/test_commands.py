"""A shell reads the commands in sentences as they are meant."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from overlay.cli import main
from peers.peer import format_public_key
from peers.stores.etcd.commands import Commands, accept
from peers.stores.etcd.location import EtcdLocation
from tests.peers.examples import key

URL = "//10.0.0.5:2379/office?user=paris&password-file=/etc/overlay/pass word"
RUN = Commands(EtcdLocation.parse("etcd", URL))


def words(command):
    assert command[0] == command[-1] == "`"
    return shlex.split(command[1:-1])


def test_shell_hands_the_url_over_as_it_is():
    location = words(RUN("show"))[-1]

    assert EtcdLocation.parse("etcd", location.removeprefix("etcd:")) == RUN.location


@pytest.mark.parametrize(
    "command",
    [
        RUN("show"),
        RUN("release", "10.244.1.0/24"),
        RUN("edit"),
        RUN("create", "--prefix", "PREFIX"),
        RUN.enroll(key("paris"), "--node", "paris"),
        RUN.enroll_here(Path("/etc/overlay/own key"), "paris"),
        accept(None),
        accept("wg0"),
    ],
)
def test_command_line_knows_each_command_and_its_options(command):
    given = words(command)

    context = main.make_context("overlay", given[1:], resilient_parsing=True)
    with context:
        for name in given[1:3]:
            found = context.command.get_command(context, name)
            context = type(context)(found, parent=context, info_name=name)
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in given if word.startswith("--")} <= known


def test_public_key_is_written_as_hosts_print_it():
    assert format_public_key(key("paris")) in words(RUN.enroll(key("paris")))
