"""Filters: the program that tcpdump makes of an expression, and the same program behind a header."""

from __future__ import annotations

import shutil
import socket

import pytest

from overlay.errors import ConfigError, HostError
from overlay.host.sockets import pcap_filter
from overlay.host.sockets.bpf import SO_ATTACH_FILTER, attach
from overlay.host.sockets.pcap_filter import LINK_RAW, as_program, behind_header, compile_expression, parse
from tests.overlay.capturing.datagrams import udp

HEADER = bytes(8) + b"LLLL" + bytes(4)
LENGTH_AT = 8

needs_tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")


def test_no_expression_keeps_the_beginning_of_everything():
    assert compile_expression(" ", LINK_RAW, 96) == [(6, 0, 0, 96)]


@needs_tcpdump
def test_expression_becomes_a_program():
    assert compile_expression("ip6", LINK_RAW, 96)[-2:] == [(6, 0, 0, 96), (6, 0, 0, 0)]


@needs_tcpdump
def test_expression_that_tcpdump_refuses_is_named_with_its_reason():
    with pytest.raises(
        ConfigError, match=r"tcpdump does not accept the filter 'prot 80': .*see `man pcap-filter`"
    ):
        compile_expression("prot 80", LINK_RAW, 96)


@needs_tcpdump
@pytest.mark.parametrize("expression", ["-w /tmp/x", "--version", "\x00", "port \N{SNOWMAN}"])
def test_no_expression_is_an_option_of_tcpdump(expression):
    with pytest.raises((ConfigError, HostError)):
        compile_expression(expression, LINK_RAW, 96)


def test_without_tcpdump_the_package_is_named(monkeypatch):
    monkeypatch.setattr(pcap_filter, "PROGRAM", "nothing-of-that-name")

    with pytest.raises(HostError, match="apt-get install tcpdump"):
        compile_expression("ip", LINK_RAW, 96)


@pytest.mark.parametrize(
    "text", ["", "x", "1\n6 0 0", "2\n6 0 0 0", "0\n", "1 2\n6 0 0 0", "1\n6 0 0 99999999999999999999999"]
)
def test_what_is_not_a_program_is_refused(text):
    with pytest.raises(HostError):
        parse(text)


def passes(program, message):
    """Return whether the kernel hands *message* on to a socket that has *program*."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        attach(other, SO_ATTACH_FILTER, as_program(program))
        other.setblocking(False)
        one.send(message)
        try:
            return other.recv(1 << 16) == message
        except BlockingIOError:
            return False


@needs_tcpdump
@pytest.mark.parametrize(
    "expression",
    [
        "udp",
        "tcp",
        "udp port 53",
        "dst host 10.0.0.2",
        "ip6",
        "len > 1000",
        "udp[8] == 0x61",
        "ip[0] & 15 != 5",
    ],
)
@pytest.mark.parametrize("length", [32, 2000])
def test_program_behind_a_header_does_what_it_does_without(expression, length):
    packet = udp("10.0.0.1", "10.0.0.2", 5, 53, b"abcd")
    whole = packet + bytes(length - len(packet))
    compiled = compile_expression(expression, LINK_RAW, 1 << 18)
    moved = behind_header(compiled, len(HEADER), LENGTH_AT)

    header = HEADER.replace(b"LLLL", length.to_bytes(4, "big"))

    assert passes(moved, header + packet) == passes(compiled, whole)
