"""The commands as a user runs them, on hosts that are connected."""

from __future__ import annotations

import base64
import json
import re
import signal

import pytest

from overlay.crypto.keys import PrivateKey, encode_key
from tests.netns.network import PATIENCE, PYTHON, Network
from tests.netns.topology import wait_until


@pytest.fixture(scope="module")
def pair(module_lab, tmp_path_factory):
    network = Network(module_lab, tmp_path_factory.mktemp("pair"))
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.host("ghost", endpoint="192.0.2.99")
    network.host("mute", endpoint=None)
    paris.start()
    tokyo.start()
    paris.wait_up(tokyo)
    yield paris, tokyo
    network.close()


def test_status_shows_the_node_and_its_peers(pair):
    paris, tokyo = pair
    paris.ping(tokyo.address, 3)

    done = paris.overlay("status")

    assert done.returncode == 0
    assert done.stderr == ""
    assert re.search(r"^node +paris$", done.stdout, re.MULTILINE)
    assert "overlay0, MTU 1420, port 51820" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("tokyo"))
    assert row.split()[1:3] == ["up", f"{tokyo.outside}:51820"]


def test_status_as_json_has_every_field_of_a_peer(pair):
    paris, tokyo = pair
    paris.ping(tokyo.address, 3)

    status = json.loads(paris.overlay("status", "--json").stdout)

    rows = {row["name"]: row for row in status["peers"]}
    assert list(rows) == ["tokyo", "ghost", "mute"]
    assert rows["tokyo"]["state"] == "up"
    assert rows["tokyo"]["endpoint"] == f"{tokyo.outside}:51820"
    assert rows["tokyo"]["rx_bytes"] > 0 < rows["tokyo"]["tx_bytes"]
    assert rows["tokyo"]["last_handshake_age_seconds"] >= 0
    assert rows["mute"]["endpoint"] is None
    assert status["node"] == "paris"
    assert {"schema", "drops", "mtu_bytes", "port", "uptime_seconds", "notes"} <= set(status)


def test_status_tells_states_apart(pair):
    paris, _ = pair

    def is_called():
        paris.namespace.completed("ping", "-c1", "-W0.2", "10.244.3.1")
        return re.search(r"^ghost +connecting", paris.overlay("status").stdout, re.MULTILINE)

    wait_until(is_called, PATIENCE, "the ghost to be called")
    assert re.search(r"^mute +idle", paris.overlay("status").stdout, re.MULTILINE)


def test_watched_status_is_shown_again_until_it_is_interrupted(pair, tmp_path):
    paris, _ = pair
    output = tmp_path / "output"
    with output.open("w") as file:
        process = paris.namespace.popen(PYTHON, "-u", "-m", "overlay", "status", "--watch", stdout=file)
    wait_until(lambda: output.read_text().count("node        paris") >= 2, PATIENCE, "the second picture")

    process.send_signal(signal.SIGINT)

    assert process.wait(PATIENCE) == 130


def test_ping_of_a_peer_is_answered(pair):
    paris, tokyo = pair

    done = paris.overlay("ping", "tokyo", "--count", "3", "--interval", "0.05", "--timeout", "30")

    assert done.returncode == 0, done.stderr
    assert f"ping tokyo ({tokyo.address}) from {paris.address}" in done.stdout
    assert "3 sent, 3 answered, 0% lost" in done.stdout


def test_ping_of_an_address_asks_the_peer_that_has_it_or_what_is_behind_it(pair):
    paris, tokyo = pair

    own = paris.overlay("ping", tokyo.address6, "--count", "1", "--timeout", "30")
    behind = paris.overlay(
        "ping", tokyo.address.rpartition(".")[0] + ".77", "--count", "1", "--timeout", "0.3"
    )
    nobody = paris.overlay("ping", "10.99.0.1")

    assert (own.returncode, behind.returncode, nobody.returncode) == (0, 1, 2)
    assert f"ping tokyo ({tokyo.address6})" in own.stdout
    assert "77 behind tokyo" in behind.stdout
    assert "has the address 10.99.0.1" in nobody.stderr


def test_ping_as_json_tells_times(pair):
    paris, _ = pair

    done = paris.overlay("ping", "tokyo", "--count", "2", "--interval", "0.05", "--timeout", "30", "--json")

    said = json.loads(done.stdout)
    assert (said["sent"], said["answered"], len(said["times_ms"])) == (2, 2, 2)


def test_ping_of_a_silent_peer_says_what_is_known_of_it(pair):
    paris, _ = pair

    ghost = paris.overlay("ping", "ghost", "--count", "1", "--timeout", "0.3")
    mute = paris.overlay("ping", "mute", "--count", "1", "--timeout", "0.3")

    assert ghost.returncode == mute.returncode == 1
    assert "no handshake with ghost yet" in ghost.stderr
    assert "192.0.2.99:51820" in ghost.stderr
    assert "it has no endpoint, so it has to connect first" in mute.stderr


def test_ping_of_nobody_names_who_there_is(pair):
    paris, _ = pair

    stranger = paris.overlay("ping", "tokio")
    itself = paris.overlay("ping", "paris")

    assert stranger.returncode == itself.returncode == 2
    assert "tokyo" in stranger.stderr
    assert "itself" in itself.stderr


def test_different_preshared_keys_look_like_no_tunnel_at_either_end(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo", preshared_key_file="tokyo.psk")
    for host in (paris, tokyo):
        (host.directory / "tokyo.psk").write_text(host.overlay("genpsk").stdout)
        host.launch(timing={"rekey_timeout": 0.3, "rekey_attempt_time": 60.0})
    for host in (paris, tokyo):
        host.wait_ready()

    for host, other in ((paris, tokyo), (tokyo, paris)):
        host.wait_peer(
            other,
            "to be doubted",
            lambda row: (
                row["state"] == "unconfirmed" and "the preshared keys differ" in "".join(row["notes"])
            ),
        )
        status = host.overlay("status").stdout
        assert re.search(rf"^{other.name} +unconfirmed", status, re.MULTILINE)
        assert "the preshared keys differ" in status
        assert "handshake completed" not in host.log
        wait_until(lambda h=host: "the preshared keys may differ" in h.log, PATIENCE, "the log to say so")
        assert host.log.count("the preshared keys may differ") == 1
        pinged = host.overlay("ping", other.name, "--count", "1", "--timeout", "0.3")
        assert "the preshared keys differ" in pinged.stderr
    network.close()


def test_ping_of_a_peer_that_went_tells_the_age_of_its_last_handshake(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.start()
    paris.wait_up(tokyo)
    tokyo.stop()

    done = paris.overlay("ping", "tokyo", "--count", "1", "--timeout", "0.3")

    assert done.returncode == 1
    assert re.search(r"last handshake (of tokyo )?was \d+ s ago", done.stderr)
    network.close()


def test_commands_without_an_agent_say_how_to_start_one(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris = network.host("paris")

    start, stop = "overlay up", "there is nothing to stop"
    for command, remedy in ((("status",), start), (("down",), stop), (("ping", "tokyo"), start)):
        done = paris.overlay(*command)

        assert done.returncode == 1
        assert "no overlay agent runs for overlay0 here" in done.stderr
        assert remedy in done.stderr


def test_down_of_another_interface_names_it(pair):
    paris, _ = pair

    done = paris.overlay("down", "--interface", "nosuch0")

    assert done.returncode == 1
    assert "nosuch0" in done.stderr
    assert paris.is_running


def test_keygen_check_and_up_are_all_that_a_new_host_needs(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    for host in (paris, tokyo):
        host.key_path.unlink()
        done = host.overlay("keygen", "--key", str(host.key_path))
        host.settings["public_key"] = done.stdout.strip()
        assert host.key_path.stat().st_mode & 0o777 == 0o600
        assert host.overlay("keygen", "--key", str(host.key_path)).returncode != 0  # it is never overwritten
        assert host.overlay("pubkey", "--key", str(host.key_path)).stdout == done.stdout
    paris.write()

    checked = paris.overlay("check", "--peers", str(paris.peers_path), "--key", str(paris.key_path))
    assert checked.returncode == 0
    assert "paris" in checked.stdout
    assert "10.244.2.0/24" in checked.stdout

    network.start()
    paris.ping(tokyo.address)
    network.close()


def test_check_of_a_wrong_file_names_the_line(pair, tmp_path):
    paris, _ = pair
    path = tmp_path / "peers.toml"
    path.write_text(paris.network.toml().replace("10.244.2.0/24", "10.244.2.1/24"))

    done = paris.overlay("check", "--peers", str(path), "--key", str(paris.key_path))

    line = path.read_text().splitlines().index("[peers.tokyo]") + 1
    assert done.returncode == 2
    assert re.search(rf"{path}, line {line + 3}: ", done.stderr)
    assert "10.244.2.0/24" in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"peers": "nosuch.toml"}, 2, "nosuch.toml"),
        ({"key": "nosuch.key"}, 2, "overlay keygen"),
        ({"node": "tokio"}, 2, "--node tokio"),
        ({"node": "tokyo"}, 2, "--node tokyo"),
        ({"interface": "lo"}, 1, "interface lo exists already"),
        ({"interface": "a-name-that-is-too-long"}, 2, "a-name-that-is-too-long"),
    ],
    ids=["no peers file", "no key", "unknown node", "another's key", "interface taken", "no name"],
)
def test_up_with_a_wrong_option_ends_with_a_sentence(pair, tmp_path, monkeypatch, change, code, said):
    monkeypatch.chdir(tmp_path)
    paris, _ = pair
    options = {"peers": str(paris.peers_path), "key": str(paris.key_path), "interface": "other0", **change}

    done = paris.overlay("up", *(word for key, value in options.items() for word in (f"--{key}", value)))

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4


def test_key_that_others_can_read_is_warned_of(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris = network.host("paris")
    paris.key_path.chmod(0o644)

    paris.start()

    # A request does not wait long for the files to be read.
    wait_until(lambda: any("can be read by others" in note for note in paris.status()["notes"]))
    assert f"chmod 600 {paris.key_path}" in paris.overlay("status").stdout
    paris.namespace.run("chmod", "600", str(paris.key_path))
    wait_until(lambda: not any("can be read by others" in note for note in paris.status()["notes"]))
    network.close()


def test_private_key_is_clamped_as_it_is_written_by_other_tools(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris = network.host("paris")
    unclamped = b"\xff" * 32
    paris.key_path.write_text(base64.b64encode(unclamped).decode() + "\n")

    done = paris.overlay("pubkey", "--key", str(paris.key_path))

    assert done.stdout.strip() == encode_key(PrivateKey(unclamped).public)


def test_shell_completes_the_names_of_peers(pair):
    paris, _ = pair
    code = "from overlay.cli import main; main(prog_name='overlay')"

    done = paris.namespace.completed(
        *(PYTHON, "-c", code),
        env={"_OVERLAY_COMPLETE": "bash_complete", "COMP_WORDS": "overlay ping t", "COMP_CWORD": "2"},
    )

    assert done.stdout.split() == ["plain,tokyo"]
