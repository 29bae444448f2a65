"""An overloaded path next to an idle one: what the peers behind each notice."""

from __future__ import annotations

import re

import pytest

from tests.netns.network import Network
from tests.netns.topology import CommandError

FLOOD = """
import socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begun, sent = time.monotonic(), 0
while (passed := time.monotonic() - begun) < float(sys.argv[2]):
    while sent < 5000 * passed:  # also where a busy machine lets this sleep longer
        udp.sendto(bytes(1300), (sys.argv[1], 9))
        sent += 1
    time.sleep(0.002)
"""
SECONDS = 4  # of the flood, 50 Mbit/s: more than the send buffer holds


@pytest.mark.parametrize("encapsulation", ["wireguard", "udp", "ipip"])
def test_an_overloaded_way_stops_no_other_and_what_it_does_not_take_is_counted(lab, tmp_path, encapsulation):
    """A send buffer that the overloaded path had filled stopped all of them: 97 of 100 pings were lost."""
    named = {} if encapsulation == "wireguard" else {"encapsulation": encapsulation}
    network = Network(lab, tmp_path, **named)
    paris, tokyo, rome = (network.host(name) for name in ("paris", "tokyo", "rome"))
    ends = (paris.namespace.end("slow0", "198.18.0.1/24"), tokyo.namespace.end("slow0", "198.18.0.2/24"))
    lab.veth(*ends)
    tokyo.settings["endpoint"] = "198.18.0.2"
    shaped = ("rate", "4mbit", "burst", "20kb", "limit", "30mb")
    try:
        paris.namespace.run("tc", "qdisc", "add", "dev", "slow0", "root", "tbf", *shaped)
    except (CommandError, FileNotFoundError) as error:
        pytest.skip(f"this machine has no tbf: {error}")
    paris.namespace.run("ip", "route", "replace", "198.18.0.0/24", "dev", "slow0", "src", paris.outside)
    back = (f"{paris.outside}/32", "via", "198.18.0.1", "dev", "slow0", "src", "198.18.0.2")
    tokyo.namespace.run("ip", "route", "add", *back)
    network.start()
    tokyo.ping(paris.address)
    rome.ping(paris.address)

    flood = paris.namespace.popen("python3", "-c", FLOOD, tokyo.address, str(SECONDS))
    pings = paris.namespace.run("ping", "-i", "0.1", "-c", "35", "-q", "-W", "10", rome.address, check=False)
    flood.wait(60)

    # The device's queue overflows as soon as a busy machine keeps the forwarder waiting for a tenth of a second.
    assert int(re.search(r"(\d+) received", pings)[1]) >= 18, pings
    assert paris.drops(tokyo)["send_full"] > 1000
    assert "send_full" not in paris.drops(rome)
    network.close()
