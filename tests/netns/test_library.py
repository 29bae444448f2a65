"""The programs in docs/library.md, unchanged, with wireguard-go as their peer and without any capability."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from overlay.wireguard import Device, PrivateKey
from tests.netns.network import PATIENCE, PORT, Network
from tests.netns.topology import wait_until

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("wireguard-go", "wg", "setpriv"))), reason="needs wireguard-go, wg and setpriv"
)

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
PROGRAMS = dict(
    re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs")


@pytest.fixture(scope="module")
def network(module_lab, tmp_path_factory):
    network = Network(module_lab, tmp_path_factory.mktemp("library"))
    network.wireguard("theirs")
    network.wireguard("program")  # a namespace on the underlay, with a key; no wireguard-go runs there
    network.peers["theirs"].start()
    return network


@pytest.fixture
def ends(network):
    theirs, program = network.peers["theirs"], network.peers["program"]
    theirs.set("peer", program.public_key, "remove")
    return theirs, program


def start(program, title, *arguments):
    path, key = program.directory / "example.py", program.directory / "example.key"
    path.write_text(PROGRAMS[title])
    key.write_text(f"{program.private_key.to_base64()}\n")  # as `wg genkey` prints it
    process = program.namespace.popen(
        *UNPRIVILEGED,
        sys.executable,
        str(path),
        str(key),
        *arguments,
        stdout=subprocess.PIPE,
        text=True,
    )
    program.network.lab.on_exit(lambda: program.network.lab.end_process(process))
    return process


def call_from_nowhere(node, program, port):
    device, key = Device(PrivateKey.generate(os.urandom)), program.private_key.public
    device.add_peer(key, endpoint=(program.outside, port))
    [initiation] = device.connect(key, 0.0)
    with node.namespace.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    with raw:
        header = struct.pack("!4H", 0, port, 8 + len(initiation.data), 0)  # from port 0, without a checksum
        raw.sendto(header + initiation.data, (program.outside, 0))


def test_device_of_the_first_example_says_hello(capsys):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS["The API"]], capture_output=True, text=True, check=True
    )

    assert done.stdout == "b'hello'\n"


def test_asyncio_program_gets_an_echo_through_wireguard_go(ends):
    theirs, program = ends
    theirs.meet(program)

    asked = start(
        program, "With asyncio", theirs.public_key, theirs.outside, str(PORT), program.address, theirs.address
    )

    assert asked.communicate(timeout=PATIENCE)[0] == f"28 bytes from {theirs.address}\n"
    assert theirs.show(program).latest_handshake


def test_trio_program_answers_pings_of_wireguard_go(ends):
    theirs, program = ends
    theirs.meet(program, endpoint=f"{program.outside}:{PORT}")
    server = start(program, "With trio", theirs.public_key, str(PORT))
    assert server.stdout.readline() == "ready\n"

    theirs.ping(program.address, 20)

    assert theirs.show(program).rx_bytes > 20 * 128
    program.network.lab.end_process(server)


def test_scanner_finds_the_node_that_knows_its_key(ends):
    theirs, program = ends
    theirs.meet(program)
    network = IPv4Network((theirs.outside, 29), strict=False)

    def is_found():
        """Scan once: it waits two seconds for answers, which a busy machine may take."""
        asked = start(program, "A scanner", theirs.public_key, str(network), str(PORT))
        said = asked.stdout.readline()
        program.network.lab.end_process(asked)
        return said == f"{theirs.outside} {PORT}\n"

    wait_until(is_found, PATIENCE, "an answer")


def test_honeypot_answers_who_knows_its_key_and_names_them(ends):
    theirs, program = ends
    server = start(program, "A honeypot", str(PORT + 1))
    assert server.stdout.readline() == "ready\n"

    call_from_nowhere(theirs, program, PORT + 1)
    theirs.meet(program, endpoint=f"{program.outside}:{PORT + 1}", persistent_keepalive="1")

    assert server.stdout.readline() == f"{theirs.public_key} {theirs.outside} {PORT}\n"
    wait_until(lambda: theirs.show(program).latest_handshake, PATIENCE, "the handshake")
    program.network.lab.end_process(server)
