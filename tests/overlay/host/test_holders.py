from __future__ import annotations

import os
import socket
import subprocess
import sys
from ipaddress import ip_address

import pytest

from overlay.host.holders import Holder, find_holder
from tests.ports import free_port

STRANGER = 65534
HOLDER = """
import os, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", int(sys.argv[1])))
print("bound", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder():
    """A program that has a port of 127.0.0.1, and that port, which nobody has at another address."""
    port = udp_port()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "bound\n"
        yield process, port
        process.stdin.close()


def udp_port():
    """Return a port that the kernel gives nobody, at any address."""
    return free_port(host="0.0.0.0", kind=socket.SOCK_DGRAM)


@pytest.mark.parametrize("listen", [[], [ip_address("127.0.0.1")], [ip_address("0.0.0.0")]])
def test_program_that_has_the_port_is_found_with_its_user(holder, listen):
    process, port = holder

    found = find_holder(port, listen)

    assert (found.process, found.user, found.interface) == (process.pid, os.geteuid(), None)
    assert found.program.startswith("python")


def test_port_at_another_address_is_in_nobodys_way(holder):
    assert find_holder(holder[1], [ip_address("127.0.0.2")]) is None


def test_sockets_of_ones_own_do_not_count():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port := udp_port()))
        inode = os.fstat(udp.fileno()).st_ino

        assert find_holder(port, []) is not None
        assert find_holder(port, [], {inode}) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_of_a_process_that_may_not_be_looked_at_the_user_is_known(holder):
    code = f"from overlay.host.holders import find_holder; import os; os.setuid({STRANGER}); print(find_holder({holder[1]}, []))"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert said == f"{Holder(0)}\n"


def test_user_without_a_name_is_a_number():
    assert (Holder(0).user_name, Holder(4_000_000_000).user_name) == ("root", "4000000000")
