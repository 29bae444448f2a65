"""Files are read as keepalived itself reads them.

Where the kernel has no ip_vs, keepalived gives up at once and names each server that it would have to remove: the
servers that it read, each with its virtual server.  It runs in a network namespace of its own.
"""

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.overlay.services.importing.reading import keepalived

EXAMPLES = Path(__file__).parent / "examples"
SEEN = re.compile(r"Shutting down service \[(.*)\]:\w+:\d+ from VS \[(.*)\]:\w+:(\d+)")
CONFIG_ID = "dir-a"

pytestmark = pytest.mark.netns


@pytest.fixture
def seen(tmp_path):
    """Return a function that returns what keepalived reads in a text: virtual address, port and server."""
    if shutil.which("keepalived") is None or os.geteuid() != 0:
        pytest.skip("keepalived and root are needed")
    if Path("/proc/net/ip_vs").exists():
        pytest.skip("this kernel has ip_vs, which keepalived would use")

    def run(text):
        path = tmp_path / "keepalived.conf"
        path.write_bytes(text.encode("latin-1"))
        command = ["unshare", "--net", "keepalived", "-C", "-n", "-l", "-i", CONFIG_ID, "-f", str(path)]
        files = ["-p", str(tmp_path / "pid"), "-c", str(tmp_path / "checkers.pid")]
        done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=240, check=False)
        return {(vip, int(port), server) for server, vip, port in SEEN.findall(done.stdout + done.stderr)}

    return run


def imported(text):
    return {
        (str(address), port, str(server.address))
        for service in keepalived(text, config_id=CONFIG_ID).plan.services
        for address in service.addresses
        for port in service.ports or (0,)
        for server in service.servers
    }


@pytest.mark.parametrize("name", ["comments", "crlf", "ipv6", "sctp", "variables", "vrrp"])
def test_examples(name, seen):
    text = (EXAMPLES / f"{name}.conf").read_bytes().decode("latin-1").removeprefix("\xef\xbb\xbf")
    text = text.replace(
        "inhibit_on_failure", "alpha"
    )  # such servers are not removed, so they would not be named

    assert imported(text) == {
        each for each in seen(text) if "%" not in each[2]
    }  # no link-local address is imported


def test_braces_wherever_they_are(seen):
    assert imported(TIDY) == seen(TIDY) != set()


@pytest.mark.parametrize("seed", range(20))
def test_generated_files(seed, seen):
    text = Writer(random.Random(seed)).file()

    assert imported(text) == seen(text) != set()


class Writer:
    """Writes files with variables, repetitions, conditions, comments and braces of all kinds."""

    def __init__(self, chance):
        self.chance = chance

    def file(self):
        text = "$N=10.2\n$W=9\n$V0=1\n$V1=2\n$V2=3\n$CHECK=TCP_CHECK { \\\n connect_timeout 2 \\\n}\n"
        for virtual in ("10.9.9.9 80", "10.9.9.8 80"):
            lines = [self.line() for _ in range(self.chance.randrange(1, 9))]
            opening = self.chance.choice([" {\n", "\n{\n", "{ "])
            text += f"virtual_server {virtual}{opening}lb_kind TUN\nprotocol TCP\nlb_algo rr\n"
            text += "".join([*lines, self.server("10.1.12.1"), "}\n"])
        return text.replace("\n", "\r\n") if self.chance.random() < 0.2 else text

    def line(self):
        network, number = self.chance.choice(["10.1", "${N}"]), self.chance.randrange
        limits = ["3", f"2, {number(3, 9)}", "25, -2, 11", f"1, 3, {number(4, 30)}", "0x1, 0x5", "07, 011"]
        return self.chance.choice(
            [
                f"$V{number(3)}={number(1, 250)}\n",
                f"~SEQ(S, {self.chance.choice(limits)}) real_server {network}.1.$S 80 {{ weight $S }} # each\n",
                "~SEQx(X, 8, 4, 20) real_server fd00::2:$X 80 { }\n",
                f"~LST({{A, B}}, {{{number(9)}, 1}}, {{{number(9)}, 7}}) real_server {network}.7.${{A}}${{B}} 80 {{ }}\n",
                f"~LST(C, {number(99)}, {number(100, 200)}) real_server {network}.8.$C 80 {{ }}\n",
                f"~SEQ(P, 2) ~SEQ(Q, {number(1, 4)}) real_server {network}.9.${{P}}${{Q}} 80 {{ }}\n",
                self.chance.choice(
                    ["# } {\n", "! $V1=3 }\n", "\n", " \t\n", "@zz quorum 2\n", "@^a alpha\n", '# "odd\n']
                ),
                self.server(f"{network}.10.${{V{number(3)}}}"),
                self.server(f"{network}.11.{number(1, 250)}"),
            ]
        )

    def server(self, address):
        opening = self.chance.choice([" {\n", "{ ", "\n{\n", " { # x {\n", "\n# c }\n{ "])
        content = self.chance.choice(
            [
                "",
                "weight $W\n",
                "$CHECK\n",
                "TCP_CHECK { connect_timeout 3 }\n",
                f"@{CONFIG_ID} weight 4\n@^{CONFIG_ID} weight 5\n@b weight 6\n",
                'notify_up "/bin/true {}"\n',
                'HTTP_GET {\n url { path "/#a!{}" }\n}\n',
            ]
        )
        return f"real_server {address} 80{opening}{content}{self.chance.choice(['}', ' } '])}\n"


TIDY = """virtual_server 10.96.255.40 80{lb_algo rr
lb_kind TUN
  protocol TCP
    real_server 10.96.5.1 80
    {
        weight 1
 TCP_CHECK { connect_timeout 3 } }
    real_server 10.96.5.2 80{weight 2
        TCP_CHECK{connect_timeout 3}}
    real_server 10.96.5.3 80 { HTTP_GET { url { path "/{id}"
                status_code 200 } } }
    real_server 10.96.5.4 80 { }
}   virtual_server 10.96.255.41 80

# the block comes later

{
    lb_algo rr
    lb_kind TUN
    protocol TCP
    real_server 10.96.5.1 80 {	HTTP_GET {	url	{ path	/a } url { path / } } }
}
"""
