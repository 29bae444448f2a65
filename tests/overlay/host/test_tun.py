from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys

import pytest

from overlay.errors import ConfigError, HostError
from overlay.host.tun import OFFLOAD_LADDER, Offloads, check_interface_name, negotiate_offloads, open_tun
from tests.netns.topology import ROOT
from tests.netns.users import AsUser

CSUM, TSO, ECN, USO = 0x01, 0x06, 0x08, 0x60


def kernel(accepted):
    """Return TUNSETOFFLOAD of a kernel that supports the features in *accepted*, and the requests that it got."""
    asked = []

    def set_offload(flags):
        asked.append(flags)
        if flags & ~accepted or (flags & ~CSUM and not flags & CSUM):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    return set_offload, asked


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (CSUM | TSO | ECN | USO, Offloads(checksum=True, tcp=True, ecn=True, udp=True)),
        (CSUM | TSO | USO, Offloads(checksum=True, tcp=True, udp=True)),
        (CSUM | TSO | ECN, Offloads(checksum=True, tcp=True, ecn=True)),
        (CSUM | TSO, Offloads(checksum=True, tcp=True)),
        (CSUM, Offloads(checksum=True)),
        (0, Offloads()),
    ],
)
def test_offloads_fall_back_to_what_the_kernel_knows(accepted, expected):
    set_offload, asked = kernel(accepted)

    assert negotiate_offloads(set_offload) == expected
    assert asked[-1] == expected.flags


def test_kernel_without_offloads_still_gets_an_answer():
    def refuse(flags):
        raise OSError(errno.EINVAL, "no")

    assert negotiate_offloads(refuse) == Offloads()


def test_each_step_of_the_ladder_has_its_checksum():
    assert all(step.checksum for step in OFFLOAD_LADDER[:-1])
    assert OFFLOAD_LADDER[0].flags == CSUM | TSO | ECN | USO


@pytest.mark.parametrize("name", ["overlay0", "a", "wg-site_1", "x.y=z+", "123456789012345"])
def test_good_name_is_taken(name):
    check_interface_name(name)


@pytest.mark.parametrize(
    "name", ["", "1234567890123456", "a/b", "a b", "a:b", "..", ".", "all", "default", "ä", "a%d", "a\n"]
)
def test_bad_name_is_refused(name):
    with pytest.raises(ConfigError, match="cannot name an interface"):
        check_interface_name(name)


def test_bad_name_is_refused_before_anything_is_opened():
    with pytest.raises(ConfigError):
        open_tun("a/b")


@pytest.mark.netns
def test_device_is_new_non_blocking_and_gone_after_close(lab):
    host = lab.namespace("host")
    with host.entered():
        device = open_tun("overlay0")

        assert device.index == socket.if_nametoindex("overlay0")
        assert not os.get_blocking(device.fileno())
        assert not os.get_inheritable(device.fileno())
        with pytest.raises(BlockingIOError):
            os.read(device.fileno(), 2000)

        device.close()
        assert "overlay0" not in host.run("ip", "link")


def number(value):
    return struct.pack("i", value)


# What a process with a copy of the descriptor could do to it if no filter of system calls prevented it.
CHANGES = {
    "blocking": lambda fd: os.set_blocking(fd, True),
    "signals": lambda fd: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR | os.O_NONBLOCK | os.O_ASYNC),
    "larger headers": lambda fd: fcntl.ioctl(fd, 0x400454D8, number(12)),  # TUNSETVNETHDRSZ
    "headers of another order": lambda fd: fcntl.ioctl(fd, 0x400454DC, number(0)),  # TUNSETVNETLE
    "no offloads": lambda fd: fcntl.ioctl(fd, 0x400454D0, 0),  # TUNSETOFFLOAD
    "persistent": lambda fd: fcntl.ioctl(fd, 0x400454CB, 1),  # TUNSETPERSIST
    "a small send buffer": lambda fd: fcntl.ioctl(fd, 0x400454D4, number(1)),  # TUNSETSNDBUF
    "no carrier": lambda fd: fcntl.ioctl(fd, 0x400454E2, number(0)),  # TUNSETCARRIER
}


def state_of(host, device):
    """Return what each of CHANGES affects."""
    fd = device.fileno()

    def ask(request, size=4):
        return fcntl.ioctl(fd, request, bytes(size))

    return (
        fcntl.fcntl(fd, fcntl.F_GETFL) & ~0o100000,  # except for O_LARGEFILE
        fcntl.fcntl(fd, fcntl.F_GETOWN),
        *map(ask, (0x800454D7, 0x800454DD, 0x800454D3)),  # header size, its order, send buffer
        ask(0x800454D2, 40),  # TUNGETIFF: persistent
        [line for line in host.run("ethtool", "-k", "overlay0").splitlines() if "segmentation" in line],
        "NO-CARRIER" in host.run("ip", "link", "show", "overlay0"),
    )


@pytest.mark.netns
@pytest.mark.parametrize("what", CHANGES)
def test_restored_device_is_as_it_was_opened(lab, what):
    host = lab.namespace("host")
    if shutil.which("ethtool") is None:
        pytest.skip("there is no ethtool")
    with host.entered():
        device = open_tun("overlay0")
        host.run("ip", "link", "set", "overlay0", "addrgenmode", "none")
        host.run("ip", "link", "set", "overlay0", "up")
        before, copy = state_of(host, device), os.dup(device.fileno())
        try:
            CHANGES[what](copy)
            assert state_of(host, device) != before

            device.restore()

            assert state_of(host, device) == before
        finally:
            os.close(copy)
            device.close()


@pytest.mark.netns
def test_persistent_device_is_persistent_after_it_was_restored(lab):
    host = lab.namespace("host")
    host.run("ip", "tuntap", "add", "dev", "overlay0", "mode", "tun")
    with host.entered():
        device = open_tun("overlay0")
        fcntl.ioctl(device.fileno(), 0x400454CB, 0)  # TUNSETPERSIST

        device.restore()
        device.close()

        assert "overlay0" in host.run("ip", "link")


@pytest.mark.netns
def test_device_that_is_gone_cannot_be_restored_and_the_error_says_so(lab):
    host = lab.namespace("host")
    with host.entered():
        device = open_tun("overlay0")
        host.run("ip", "link", "delete", "overlay0")

        with pytest.raises(
            HostError, match=r"interface overlay0 could not be prepared again: .*still exists"
        ):
            device.restore()

        device.close()


@pytest.mark.netns
def test_reads_and_writes_carry_a_virtio_header_of_ten_bytes(lab):
    host = lab.namespace("host")
    with host.entered():
        device = open_tun("overlay0")
        host.run("ip", "address", "add", "10.244.1.0/32", "dev", "overlay0")
        host.run("ip", "link", "set", "overlay0", "addrgenmode", "none")
        host.run("ip", "link", "set", "overlay0", "up")
        host.run("ip", "route", "add", "10.244.0.0/16", "dev", "overlay0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"test", ("10.244.2.2", 9))

        read = os.read(device.fileno(), 2000)

        assert read[10] == 0x45
        assert len(read) == 10 + 20 + 8 + 4
        assert os.write(device.fileno(), read) == len(read)
        device.close()


@pytest.mark.netns
def test_a_tap_carries_frames(lab):
    host = lab.namespace("host")
    with host.entered():
        device = open_tun("overlay0", is_tap=True)
        host.run("ip", "link", "set", "overlay0", "addrgenmode", "none", "address", "02:00:00:00:00:01")
        host.run("ip", "link", "set", "overlay0", "up")
        host.run("ip", "address", "add", "10.244.0.1/24", "dev", "overlay0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"test", ("10.244.0.2", 9))

        read = os.read(device.fileno(), 2000)

        assert read[10:24] == b"\xff" * 6 + bytes([2, 0, 0, 0, 0, 1]) + b"\x08\x06"
        device.close()


@pytest.mark.netns
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("link add overlay0 type bridge", "exists already and is of the kind bridge, not a tap device: "),
        ("tuntap add overlay0 mode tun", "exists already and is of the kind tun, not a tap device: "),
    ],
)
def test_name_that_is_taken_is_refused_for_a_tap_too(lab, command, said):
    host = lab.namespace("host")
    host.run("ip", *command.split())

    with host.entered(), pytest.raises(HostError, match=f"^interface overlay0 {said}"):
        open_tun("overlay0", is_tap=True)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("link add overlay0 type bridge", "exists already and is of the kind bridge, not a tun device: "),
        ("link add overlay0 type veth", "exists already and is of the kind veth, not a tun device: "),
        ("tuntap add overlay0 mode tap", "exists already and is of the kind tap, not a tun device: "),
        (
            "tuntap add overlay0 mode tun multi_queue",
            "is a multi-queue tun device, and this agent has one lane: ",
        ),
    ],
)
def test_name_that_is_taken_is_refused(lab, command, said):
    host = lab.namespace("host")
    host.run("ip", *command.split())

    with host.entered(), pytest.raises(HostError, match=f"^interface overlay0 {said}") as raised:
        open_tun("overlay0")

    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.netns
@pytest.mark.parametrize("is_persistent", [False, True])
def test_device_that_another_process_holds_is_refused(lab, is_persistent):
    host = lab.namespace("host")
    if is_persistent:
        host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")

    said = "overlay0 exists already and another process holds it: stop"
    with host.entered(), contextlib.closing(open_tun("overlay0")), pytest.raises(HostError, match=said):
        open_tun("overlay0")


@pytest.mark.netns
@pytest.mark.parametrize("options", ["", "pi", "one_queue", "vnet_hdr", "user 1000 group 1000"])
def test_persistent_device_is_taken_however_it_was_made_and_stays(lab, options):
    host = lab.namespace("host")
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun", *options.split())
    with host.entered():
        index = socket.if_nametoindex("overlay0")
        device = open_tun("overlay0")

        assert (device.is_persistent, device.index) == (True, index)
        host.run("ip", "address", "add", "10.244.1.0/32", "dev", "overlay0")
        host.run("ip", "link", "set", "overlay0", "addrgenmode", "none", "up")
        host.run("ip", "route", "add", "10.244.0.0/16", "dev", "overlay0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"test", ("10.244.2.2", 9))
        assert os.read(device.fileno(), 2000)[10] in {0x45, 0x60}  # an IP packet begins behind the header

        device.close()
        assert socket.if_nametoindex("overlay0") == index


@pytest.mark.netns
def test_device_that_goes_does_not_count_as_persistent(lab):
    with lab.namespace("host").entered(), contextlib.closing(open_tun("overlay0")) as device:
        assert not device.is_persistent


@pytest.mark.netns
def test_persistent_device_is_left_without_offloads(lab):
    """The next program may read it without a virtio header: it would get super-packets unknowingly."""
    host = lab.namespace("host")
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")

    def offload():
        return "tcp-segmentation-offload: on" in host.run("ethtool", "-k", "overlay0")

    with host.entered():
        device = open_tun("overlay0")
        assert offload()
        device.close()

    assert not offload()


OPEN = """
from overlay.host.tun import HostError, open_tun
try: print("attached", open_tun("overlay0").is_persistent)
except HostError as error: print(error)
"""


@pytest.mark.netns
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("user 65534", "attached True"),
        ("group 65534", "attached True"),
        (
            "user 1000",
            "interface overlay0 belongs to another user or group: run as that one, or have root create",
        ),
        (None, "interface overlay0 may not be created: run as root with CAP_NET_ADMIN, or have root make"),
    ],
)
def test_owner_needs_no_privilege_and_others_are_told_the_remedy(lab, options, said):
    host = lab.namespace("host")
    if options is not None:
        host.run("ip", "tuntap", "add", "overlay0", "mode", "tun", *options.split())

    answer = AsUser(host).python(OPEN)

    assert answer.startswith(said)
    if "root" in said:
        assert "ip tuntap add dev overlay0 mode tun user nobody)" in answer


@pytest.mark.netns
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("delete overlay0", "was removed by another program"),
        ("set overlay0 name other0", "is now called other0"),
    ],
)
def test_interface_that_somebody_removed_or_renamed_is_missed(lab, command, said):
    host = lab.namespace("host")
    with host.entered():
        device = open_tun("overlay0")
        device.check_present()
        host.run("ip", "link", *command.split())

        with pytest.raises(HostError, match=f"^interface overlay0 {said}"):
            device.check_present()

        device.close()


@pytest.mark.netns
def test_capability_is_enough_to_make_a_device(lab):
    assert AsUser(lab.namespace("host"), capabilities=("net_admin",)).python(OPEN) == "attached False\n"


@pytest.mark.netns
def test_refusal_names_the_capability(lab):
    code = (
        "from overlay.host.process.privileges import keep_only; from overlay.host.tun import open_tun; keep_only(set())\n"
        "try: open_tun('overlay0')\nexcept Exception as error: print(error)"
    )

    said = lab.namespace("host").python(code)

    assert re.match(
        "(interface overlay0 may not be created|/dev/net/tun may not be opened): "
        "(run as root with|give the container or service) CAP_NET_ADMIN",
        said,
    )


def test_missing_device_is_named():
    with pytest.raises(HostError, match=r"^/nonexistent/tun does not exist: load the tun module"):
        open_tun("overlay0", "/nonexistent/tun")


@pytest.mark.netns
def test_nobody_is_told_to_remove_an_interface_that_is_the_hosts():
    with pytest.raises(HostError) as raised:
        open_tun("lo")

    assert "choose another with --interface" in str(raised.value)
    assert "ip link delete" not in str(raised.value)


def test_interface_is_not_missed_because_there_is_no_free_descriptor():
    code = (
        "import resource; from overlay.host.tun import Offloads, Tun; device = Tun('lo', 1, 0, Offloads())\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); device.check_present(); print('there')"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("there\n", "")


def test_a_device_with_several_queues_keeps_each_flow_in_one_whatever_is_written(lab):
    host = lab.namespace("host")
    with host.entered(), contextlib.closing(open_tun("overlay0", queues=2)) as device:
        host.run("ip", "address", "add", "10.9.9.1/24", "dev", "overlay0")
        host.run("ip", "link", "set", "overlay0", "up")
        *reading, writing = device.descriptors
        sockets = [
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(32)
        ]  # all in one queue once in 2**31 times
        before = [_queue_of(each, reading) for each in sockets]
        for _, packet in before:
            back = bytearray(packet)
            back[22:26], back[26:30] = packet[26:30], packet[22:26]  # behind the virtio header: the addresses
            back[30:32], back[32:34], back[36:38] = packet[32:34], packet[30:32], bytes(2)
            os.write(writing, bytes(10) + back[10:])
        after = [_queue_of(each, reading) for each in sockets]
        for each in sockets:
            each.close()

    assert device.queues == 2
    assert {queue for queue, _ in before} == {0, 1}
    assert [queue for queue, _ in after] == [queue for queue, _ in before]


def _queue_of(sender, queues):
    """Send a datagram from a socket; return the number of the queue that it comes out of, and the packet."""
    sender.sendto(b"hello", ("10.9.9.2", 7))
    while True:
        for number in map(queues.index, select.select(queues, [], [], 60)[0]):
            packet = os.read(queues[number], 70_000)
            if packet[10] >> 4 == 4 and packet[19] == 17 and packet[-5:] == b"hello":
                return number, packet


def test_the_queues_of_a_device_are_restored(lab):
    host = lab.namespace("host")
    detach = struct.pack("16sH22x", b"", 0x0400)
    with host.entered(), contextlib.closing(open_tun("overlay0", queues=2)) as device:
        fcntl.ioctl(device.descriptor, 0x400454D9, detach)
        device.restore()
        with pytest.raises(OSError, match="Invalid"):  # it is attached again; writes do not matter
            fcntl.ioctl(device.descriptor, 0x400454D9, struct.pack("16sH22x", b"", 0x0200))
        with pytest.raises(OSError, match="Invalid"):
            fcntl.ioctl(device.others[-1], 0x400454D9, detach)


def test_a_device_with_several_queues_is_one_process_s(lab):
    host = lab.namespace("host")
    with host.entered(), contextlib.closing(open_tun("overlay0", queues=2)):
        with pytest.raises(HostError, match="another process holds it"):
            open_tun("overlay0", queues=2)
        with pytest.raises(HostError):
            open_tun("overlay0")


def test_a_persistent_device_for_one_queue_is_used_with_one(lab):
    host = lab.namespace("host")
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun")
    with host.entered(), contextlib.closing(open_tun("overlay0", queues=2)) as device:
        assert (device.queues, device.is_persistent) == (1, True)


def test_a_persistent_device_for_several_queues_is_used_with_several(lab):
    host = lab.namespace("host")
    host.run("ip", "tuntap", "add", "overlay0", "mode", "tun", "multi_queue")
    with host.entered(), contextlib.closing(open_tun("overlay0", queues=4)) as device:
        assert (device.queues, device.is_persistent) == (4, True)
