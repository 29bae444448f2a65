from ipaddress import ip_network

import pytest
from click.testing import CliRunner

from overlay.cli import main
from overlay.cli.surroundings import Surroundings
from overlay.host.control import control_path
from tests.overlay.cli.fakes import Clock, FakeAgent


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def surroundings(tmp_path, clock):
    directory = tmp_path / "run"
    directory.mkdir()
    return Surroundings(
        directory,
        clock.now,
        clock.sleep,
        routes=lambda: [ip_network("10.244.0.0/22")],
        remove_leftovers=lambda path, interface: None,
        count_guards=lambda interface: 0,
        wg_quick_directory=tmp_path / "wireguard",
    )


@pytest.fixture
def overlay(surroundings):
    """Run the command line as a shell would."""

    def run(*arguments, **fields):
        return CliRunner().invoke(main, [str(each) for each in arguments], obj=surroundings, **fields)

    return run


@pytest.fixture
def agent(surroundings):
    """An agent of overlay0 that answers on a real socket."""
    with FakeAgent(control_path("overlay0", surroundings.control_directory)) as agent:
        yield agent
