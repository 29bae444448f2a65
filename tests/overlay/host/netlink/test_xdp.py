from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import struct

import pytest

from overlay.host.netlink.kernel import Kernel
from overlay.host.netlink.rtnetlink import INTERFACE, build_attribute, build_message
from overlay.host.netlink.xdp import programs_of, read_programs
from overlay.linux import NLM_F_ACK

BPF, BPF_PROG_LOAD, BPF_PROG_TYPE_XDP, XDP_PASS = 321, 5, 6, 2  # the first on x86-64
RTM_SETLINK, IFLA_XDP, IFLA_XDP_FD = 19, 43, 1


def load_program():
    """Return a descriptor of an XDP program that lets everything pass."""
    if platform.machine() != "x86_64":
        pytest.skip("the number of bpf(2) is not known for this machine")
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, XDP_PASS, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    told = struct.pack(
        "=IIQQIIQII16s",
        BPF_PROG_TYPE_XDP,
        2,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        b"x",
    )
    given = ctypes.create_string_buffer(told, len(told))
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(BPF, BPF_PROG_LOAD, given, len(told))
    if descriptor < 0:
        pytest.skip(f"this kernel loads no XDP programs: {os.strerror(ctypes.get_errno())}")
    return descriptor


@pytest.mark.netns
def test_program_that_is_attached_is_found(lab):
    host, other = lab.namespace("host"), lab.namespace("other")
    lab.veth(host.end("eth0"), other.end("eth0"))
    with host.entered(), contextlib.closing(Kernel()) as kernel:
        assert read_programs("eth0") == []
        program = load_program()
        attached = build_attribute(IFLA_XDP, build_attribute(IFLA_XDP_FD, struct.pack("=i", program)))
        link = INTERFACE.pack(0, 0, socket.if_nametoindex("eth0"), 0, 0)
        kernel.do(build_message(RTM_SETLINK, NLM_F_ACK, link, attached))
        os.close(program)

        assert len(read_programs("eth0")) == 1
        assert read_programs("eth1") == []  # there is none


def test_programs_of_several_modes_are_told_once():
    numbers = ((2, 1), (4, 12), (5, 12), (6, 13))  # how they are attached, and those of modes
    nested = b"".join(build_attribute(kind, value.to_bytes(4, "little")) for kind, value in numbers)

    assert programs_of(bytes(16) + bytes(16) + build_attribute(IFLA_XDP | 1 << 15, nested)) == [12, 13]
    assert programs_of(bytes(32)) == []
