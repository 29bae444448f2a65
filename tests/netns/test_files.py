"""Paths of a node that are not regular files: each is refused with a sentence; nothing hangs or grows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until


@pytest.fixture
def network(lab, tmp_path):
    made = Network(lab, tmp_path)
    yield made
    made.close()


def put(path, thing):
    """Create a *thing* at the path of a file."""
    path.unlink(missing_ok=True)
    match thing:
        case "pipe":
            os.mkfifo(path, 0o600)
        case "device":
            path.symlink_to("/dev/zero")
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 30)


THINGS = {"pipe": "is a named pipe", "device": "is a device", "huge": "has more than"}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("which", ["peers", "key"])
def test_start_with_such_a_file_ends_with_a_sentence(network, which, thing):
    paris = network.host("paris")
    paris.write()
    put(paris.peers_path if which == "peers" else paris.key_path, thing)

    done = paris.overlay("up", "--peers", str(paris.peers_path), "--key", str(paris.key_path))

    assert done.returncode == 2
    assert THINGS[thing] in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("which", ["peers", "preshared key"])
def test_reload_with_such_a_file_is_refused_and_the_next_is_not(network, which, thing):
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()
    psk = paris.directory / "tokyo.psk"
    with_key = network.toml().replace("[peers.tokyo]", '[peers.tokyo]\npreshared_key_file = "tokyo.psk"')
    before = memory(paris.process.pid)

    if which == "peers":
        put(paris.peers_path, thing)
    else:
        put(psk, thing)
        paris.write(with_key)
    wait_until(lambda: "reload refused" in paris.log, PATIENCE, "the reload to be refused")

    assert THINGS[thing] in paris.log
    assert memory(paris.process.pid) < before + 100_000
    paris.ping(tokyo.address)
    assert "reloaded" in paris.reload()
    paris.stop()


def test_agent_whose_peers_file_is_a_pipe_stops(network):
    paris = network.host("paris")
    paris.start()
    put(paris.peers_path, "pipe")
    wait_until(lambda: "reload refused" in paris.log, PATIENCE, "the reload to be refused")

    assert paris.overlay("down").returncode == 0
    assert paris.process.wait(PATIENCE) == 0


def memory(pid):
    """Return the memory of the process in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
