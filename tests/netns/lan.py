"""A LAN with the LAN sides of two directors, a keepalived next to them, and a client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest

from overlay.wire.neighbours import announcement
from tests.netns.forks import server
from tests.netns.topology import wait_until

PATIENCE = 60.0  # seconds
VIPS = {4: "10.50.2.200", 6: "fd50:2::200"}
NETWORKS = {4: "10.50.2.0/24", 6: "fd50:2::/64"}
LINK_LOCAL = "fe80::200:5eff:fe00:233"  # of the virtual router 51, as the directors have it
# The host that runs this claims an address that many times, each time from another Ethernet address
CLAIMING = """
import os, socket, sys, time
from ipaddress import ip_address
from overlay.wire.neighbours import announcement
vip, count = ip_address(sys.argv[1]).packed, int(sys.argv[2])
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
link.bind(("eth0", 0))
for number in range(count):
    link.send(announcement(vip, b"\\2" + os.urandom(5)))
    if number % 50 == 49:
        time.sleep(0.002)
"""


@contextlib.contextmanager
def claims(namespace, vip):
    """Return a function with which the host *namespace* claims the address *vip* once."""
    mac = bytes.fromhex(namespace.run("cat", "/sys/class/net/eth0/address").replace(":", ""))
    claim = announcement(ip_address(vip).packed, mac)
    with namespace.entered():
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with link:
        link.bind(("eth0", 0))
        yield lambda: link.send(claim)


class Director:
    """The LAN side of one of our directors, in a namespace."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.process = server().converse(namespace, "from tests.netns import director; director.main()")
        self.states, self.history, self.answers, self.contested = {}, [], [], []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "changed" in said:
                row = said["changed"]
                self.history.append(row)
                self.states[row["version"]] = row
            elif "contested" in said:
                self.contested.append(said["contested"])
            else:
                self.answers.append(said["status"])

    def tell(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def status(self, about="status"):
        before = len(self.answers)
        self.tell(**{about: True})
        wait_until(lambda: len(self.answers) > before, PATIENCE, "a status")
        return self.answers[-1]

    def state(self, family):
        return self.states.get(family, {}).get("state")

    def becomes(self, state, family=4):
        wait_until(lambda: self.state(family) == state, PATIENCE, f"{self.namespace} to be {state}")

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0
        self._reader.join(PATIENCE)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Keepalived:
    def __init__(
        self, namespace, directory, *, family=4, version=3, priority=100, extra="", link_local=LINK_LOCAL
    ):
        if shutil.which("keepalived") is None:
            pytest.skip("keepalived is not installed")
        name = f"{namespace.name}{len(list(directory.iterdir()))}"
        self.namespace, self.log_path = namespace, directory / f"{name}.log"
        config = directory / f"{name}.conf"
        interval = 1 if version == 2 else 0.2
        vips = VIPS[family] if family == 4 else f"{link_local}\n{VIPS[family]}"
        config.write_text(
            f"global_defs {{\nvrrp_version {version}\n}}\nvrrp_instance VI_1 {{\nstate BACKUP\ninterface eth0\n"
            f"virtual_router_id 51\npriority {priority}\nadvert_int {interval}\n{extra}\n"
            f"virtual_ipaddress {{\n{vips}\n}}\n}}\n"
        )
        with self.log_path.open("w") as log:
            self.process = namespace.popen(
                *("keepalived", "-n", "-l", "-D", "-P", "-f", config),
                *("-p", directory / f"{name}.pid", "-r", directory / f"{name}.vrrp.pid"),
                stdout=log,
                stderr=log,
            )

    @property
    def log(self):
        return self.log_path.read_text()

    def state(self):
        found = re.findall(r"Entering (MASTER|BACKUP|FAULT) STATE", self.log)
        return found[-1] if found else None

    def becomes(self, state):
        wait_until(lambda: self.state() == state, PATIENCE, f"keepalived to be {state}:\n{self.log}")

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Lan:
    """A switch with the hosts of two directors, and a client."""

    def __init__(self, lab, directory):
        self.directory = directory
        self.switch = lab.switch("lan")
        self.ours, self.other, self.client = (lab.namespace(name) for name in ("ours", "other", "client"))
        for number, namespace in enumerate((self.ours, self.other, self.client), 1):
            namespace.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
            lab.plug(self.switch, namespace.end("eth0", f"10.50.2.{number}/24", f"fd50:2::{number}/64"))
        self.directors = []

    def director(self, namespace=None, **settings):
        one = Director(namespace or self.ours)
        self.directors.append(one)
        if settings:
            one.tell(groups=[self.group(**settings)])
        return one

    def group(self, *, family=4, version=3, priority=100, **settings):
        return {
            "name": "web",
            "router": 51,
            "interface": "eth0",
            "version": version,
            "priority": priority,
            "interval": 1.0 if version == 2 else 0.2,
            "addresses": [VIPS[family]],
            **settings,
        }

    def keepalived(self, **settings):
        return Keepalived(self.other, self.directory, **settings)

    def mac(self, namespace):
        return json.loads(namespace.run("ip", "-j", "link", "show", "eth0"))[0]["address"]

    def known(self, family):
        """Return where the client believes the virtual address to be."""
        rows = json.loads(self.client.run("ip", "-j", "neigh", "show", "to", VIPS[family]) or "[]")
        return next((row["lladdr"] for row in rows if "lladdr" in row), None)

    def ask(self, family):
        self.client.run("ip", "neigh", "flush", "to", VIPS[family])
        self.client.run("ping", "-c1", "-W1", VIPS[family], check=False)
        return self.known(family)

    def finds(self, namespace, family):
        """Return once the client finds the virtual address at *namespace*; fail if it does not."""
        wait_until(
            lambda: self.ask(family) == self.mac(namespace),
            PATIENCE,
            f"{namespace} to be the one that answers",
        )


@pytest.fixture
def lan(lab, tmp_path):
    made = Lan(lab, tmp_path)
    yield made
    for one in made.directors:
        if one.process.poll() is None:
            one.stop()


def processor_time(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
