"""What `overlay ping`, notes and the log say if something does not answer."""

from __future__ import annotations

import json
import re

import pytest

from tests.netns.network import PATIENCE, Network
from tests.netns.topology import wait_until

pytestmark = pytest.mark.netns
QUICK = {"rekey_timeout": 0.3, "rekey_attempt_time": 60.0}


def ping(host, *arguments):
    done = host.overlay("ping", *arguments)
    assert done.stderr.count("\n") == (done.returncode != 0), done.stderr
    return done


def test_absent_address_behind_a_peer_is_told_as_the_peers_kernel_tells_it(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.container("web")
    network.start()
    paris.ping(tokyo.address)

    for absent, meaning in (("10.244.2.77", "host unreachable"), ("fd00:244:2::77", "address unreachable")):
        done = ping(paris, absent, "--count", "1", "--timeout", "20")

        assert re.search(rf"^error from tokyo \(\S+\): seq=1 {meaning}$", done.stdout, re.MULTILINE), (
            done.stdout
        )
        assert "1 sent, 0 answered, 1 error, 100% lost" in done.stdout
        assert f'says "{meaning}"; see whether {absent} is up' in done.stderr
        assert "firewall" not in done.stderr
    said = json.loads(ping(paris, "10.244.2.77", "-c", "1", "-W", "20", "--json").stdout)
    assert (said["errors"][0]["from"], said["errors"][0]["type"], said["errors"][0]["code"]) == (
        tokyo.address,
        3,
        1,
    )
    network.close()


def test_host_behind_a_peer_that_says_nothing_is_told_from_the_peer_that_answers(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    web = tokyo.container("web")
    network.start()
    paris.ping(web.address)
    web.run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")

    told = f"does not answer, but the tunnel to tokyo works: tokyo itself answers at {tokyo.address}"

    def is_said():
        said = ping(paris, web.address, "--count", "1", "--timeout", "0.5").stderr
        return told in said and f"see whether {web.address} is up" in said

    wait_until(is_said, PATIENCE, "tokyo to answer in time")
    network.close()


def test_wrong_public_key_for_a_node_is_told_at_both_ends_with_what_to_compare(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo, rome = network.host("paris"), network.host("tokyo"), network.host("rome")
    network.peers.pop("rome")
    right = network.toml()
    tokyo.write(right.replace(paris.public_key, rome.public_key))
    for host in (paris, tokyo):
        host.launch(timing=QUICK)
    for host in (paris, tokyo):
        host.wait_ready()

    first = ping(tokyo, "paris", "--count", "1", "--timeout", "0.3").stderr
    assert "does not answer" in first or "no handshake with" in first
    assert rome.public_key in first  # the address that this end has for paris

    wait_until(lambda: "handshakes for a public key other than" in paris.log, PATIENCE, "paris to say so")
    (note,) = [each for each in paris.status()["notes"] if "a public key other than this node's" in each]
    assert f"arrive from {tokyo.outside}:51820, the address of tokyo" in note
    assert f"compare the public_key of paris in the peers file there with {paris.public_key}" in note
    assert paris.log.count("handshakes for a public key other than") == 1
    assert (
        "handshakes for a public key other than"
        in ping(paris, "tokyo", "--count", "1", "--timeout", "0.3").stderr
    )

    wait_until(
        lambda: f"handshakes with the public key {paris.public_key}" in tokyo.log, PATIENCE, "tokyo to say so"
    )

    tokyo.reload(right)
    paris.wait_up(tokyo)
    assert not [each for each in paris.status()["notes"] if "a public key other than this node's" in each]
    network.close()


def test_preshared_keys_that_differ_are_told_with_the_file_and_how_to_compare_it(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo", preshared_key_file="tokyo.psk")
    for host in (paris, tokyo):
        (host.directory / "tokyo.psk").write_text(host.overlay("genpsk").stdout)
        host.launch(timing=QUICK)
    for host in (paris, tokyo):
        host.wait_ready()

    for host, other in ((paris, tokyo), (tokyo, paris)):
        host.wait_peer(other, "to be doubted", lambda row: row["state"] == "unconfirmed")
        file = host.directory / "tokyo.psk"
        pinged = ping(host, other.name, "--count", "1", "--timeout", "0.3").stderr
        assert f"does not answer: handshakes with {other.name} fail because" in pinged
        assert f"compare the preshared_key_file of peers.tokyo in {host.peers_path}" in pinged
        assert f"`sha256sum {file}`" in pinged
        assert file.read_text().strip() not in host.log + pinged

    (paris.directory / "tokyo.psk").write_text((tokyo.directory / "tokyo.psk").read_text())
    paris.reload()
    paris.wait_up(tokyo)
    assert paris.log.count("preshared keys changed peers=tokyo: the next handshake uses the new one") == 1
    network.close()


def test_after_a_kill_commands_say_that_packets_are_refused_on_purpose_and_how_to_go_on(lab, tmp_path):
    network = Network(lab, tmp_path)
    paris = network.host("paris")
    network.start()
    paris.kill()

    for command in (("status",), ("ping", "tokyo")):
        done = paris.overlay(*command)

        assert done.returncode == 1
        assert "reject all packets for the overlay" in done.stderr
        assert "`overlay up` takes them over, `overlay down` removes them" in done.stderr
    assert paris.overlay("down").returncode == 0
    assert "on purpose" not in paris.overlay("status").stderr
    network.close()


def test_tunnel_in_the_clear_is_told_by_its_protocol_and_its_number(lab, tmp_path):
    network = Network(lab, tmp_path, encapsulation="gre", gre_key=7)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    tokyo.write(network.toml().replace("gre_key = 7", "gre_key = 8"))
    network.start()

    first = ping(paris, "tokyo", "--count", "1", "--timeout", "0.3").stderr
    tokyo.wait_peer(paris, "with another number", lambda row: (row["drops"] or {}).get("gre_key"))
    second = ping(tokyo, "paris", "--count", "1", "--timeout", "0.3").stderr

    assert f"whether IP protocol 47 reaches it at {tokyo.outside} with the GRE key 7" in first
    assert "from its endpoint did not have the GRE key 8" in second
    network.close()
