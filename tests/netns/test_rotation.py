"""A new key for a host, while traffic flows: peers learn of it at different times, and nothing waits for that."""

from __future__ import annotations

import json
import shutil

import pytest

from overlay.crypto.keys import PrivateKey, encode_key
from tests.netns.network import PATIENCE, PORT, Network, pinging
from tests.netns.topology import wait_until

pytestmark = pytest.mark.skipif(
    not (shutil.which("wireguard-go") and shutil.which("wg")), reason="needs wireguard-go and wg"
)

# Pings of one every 20 ms that may be lost: those in flight when a peer switched over, many on a busy machine.  A
# handshake that is lost and repeated takes 5 s, which is 250 pings.
LOST = 50


class Rotation:
    """A host whose key is replaced, and as peers an agent and wireguard-go."""

    def __init__(self, network):
        self.network = network
        self.paris, self.tokyo, self.rome = (network.peers[name] for name in ("paris", "tokyo", "rome"))
        self.old = self.paris.public_key

    def run(self, *arguments, code=0):
        done = self.paris.overlay("rotate-key", "--key", str(self.paris.key_path), *arguments)
        assert done.returncode == code, done
        return done

    def told(self):
        return json.loads(self.run("--json").stdout)

    def publish(self, public_key):
        """Write *public_key* into the peers file that all hosts will read."""
        self.paris.public_key = self.paris.settings["public_key"] = public_key

    def rome_goes_over(self):
        """Tell wireguard-go the host's current key, in one step as `wg syncconf` does it."""
        self.rome.set(
            *("peer", self.old, "remove", "peer", self.paris.public_key),
            *("allowed-ips", ",".join(self.paris.settings["subnets"]), "persistent-keepalive", "1"),
            *("endpoint", f"{self.paris.outside}:{PORT}"),
        )


@pytest.fixture
def rotation(lab, tmp_path):
    folder = tmp_path / "rotation"
    folder.mkdir()
    network = Network(lab, folder)
    network.host("paris"), network.host("tokyo"), network.wireguard("rome")
    rotation = Rotation(network)
    rotation.rome.start()
    rotation.rome.meet(rotation.paris, endpoint=f"{rotation.paris.outside}:{PORT}")
    network.start()
    rotation.paris.wait_up(rotation.tokyo, rotation.rome)
    yield rotation
    network.close()


def test_key_is_replaced_under_traffic_with_a_restart_in_the_middle(rotation, tmp_path):
    paris, tokyo, rome = rotation.paris, rotation.tokyo, rotation.rome
    with (
        pinging(tokyo.namespace, paris.address, tmp_path, 0.02) as to_tokyo,
        pinging(rome.namespace, paris.address, tmp_path, 0.02) as to_rome,
    ):
        new = rotation.run().stdout.strip()
        assert rotation.told()["peers"] == {"new": [], "old": ["tokyo", "rome"], "silent": []}
        to_tokyo.go_on(), to_rome.go_on()
        assert (to_tokyo.lost, to_rome.lost) == ([], [])

        rotation.publish(new)
        assert "INFO reloaded" in paris.reload()
        to_tokyo.go_on(), to_rome.go_on()
        assert (to_tokyo.lost, to_rome.lost) == ([], [])
        refused = rotation.run("--finish", code=1)
        assert "tokyo, rome would be cut off once the old key is withdrawn" in refused.stderr

        tokyo.reload()
        wait_until(lambda: rotation.told()["peers"]["new"] == ["tokyo"], PATIENCE, "tokyo to use the new key")
        rotation.rome_goes_over()
        wait_until(lambda: rotation.told()["peers"]["old"] == [], PATIENCE, "rome to use the new key")
        to_tokyo.go_on(), to_rome.go_on()
        assert len(to_tokyo.lost) <= LOST
        assert len(to_rome.lost) <= LOST

        lost = to_tokyo.lost, to_rome.lost
        rotation.run("--finish")
        to_tokyo.go_on(), to_rome.go_on()
        assert set(to_tokyo.lost) <= set(lost[0])
        assert set(to_rome.lost) <= set(lost[1])

    assert encode_key(PrivateKey.from_base64(paris.key_path.read_text().strip()).public) == new
    assert not paris.key_path.with_name("private.key.new").exists()
    assert rotation.told()["public_key"] == new
    paris.stop()
    paris.start()
    paris.wait_up(tokyo, rome)


def test_restart_in_the_middle_finds_peers_by_either_key_and_abort_goes_back_to_the_old_one(rotation):
    paris, tokyo, rome = rotation.paris, rotation.tokyo, rotation.rome
    rotation.old = paris.public_key
    rotation.publish(rotation.run().stdout.strip())
    tokyo.reload()

    paris.kill()
    paris.start(timing={"rekey_timeout": 1.0, "rekey_attempt_time": 18.0})

    paris.wait_up(tokyo, rome)
    told = rotation.told()["peers"]
    assert (told["new"], told["old"]) == (["tokyo"], ["rome"])
    rome.ping(paris.address)
    tokyo.ping(paris.address)

    refused = rotation.run("--abort", code=1)
    assert "tokyo would be cut off once the new key is withdrawn" in refused.stderr
    rotation.publish(rotation.old)
    tokyo.reload()
    wait_until(lambda: rotation.told()["peers"]["new"] == [], PATIENCE, "tokyo to use the old key again")

    rotation.run("--abort")

    assert not paris.key_path.with_name("private.key.new").exists()
    rome.ping(paris.address)
    tokyo.ping(paris.address)
