from __future__ import annotations

import errno
import platform
import re
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from overlay.forwarding import native
from overlay.host.process.seccomp import ARCHITECTURES, CALLS, _rules, build
from tests.netns.topology import ROOT

PROCESS = 4711
ALLOW, KILL = 0x7FFF0000, 0x80000000
UNKNOWN, REFUSED = 0x00050000 | errno.ENOSYS, 0x00050000 | errno.EPERM
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
needs_filter = pytest.mark.skipif(
    platform.machine() not in ARCHITECTURES, reason="there is no list of calls for this machine"
)


def verdict(program, architecture, number, *arguments):
    """Return the verdict of a filter, as the kernel would run it (seccomp_filter.rst), one instruction
    after the other.
    """
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        code, if_true, if_false, constant = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, constant)
            case 0x15:
                at += if_true if accumulator == constant else if_false
            case 0x45:
                at += if_true if accumulator & constant else if_false
            case 0x06:
                return constant


@pytest.fixture(params=ARCHITECTURES)
def ask(request):
    """Return the verdict of an architecture's filter on a call, by name or number."""
    architecture = ARCHITECTURES[request.param]
    program = build(architecture, PROCESS)
    numbers = {name: pair[architecture.column] for name, pair in CALLS.items()}
    numbers |= {name: rule.numbers[architecture.column] for name, rule in _rules(PROCESS).items()}

    def asked(call, *arguments, audit=architecture.audit):
        return verdict(program, audit, numbers.get(call, call), *arguments)

    asked.numbers = numbers
    return asked


def test_every_listed_call_is_allowed_and_every_other_unknown(ask):
    listed = {ask.numbers[name] for name in CALLS} - {None}
    ruled = {ask.numbers[name] for name in _rules(PROCESS)}

    assert {number for number in range(1000) if ask(number) == ALLOW} - ruled == listed
    assert all(ask(number) == UNKNOWN for number in range(1000) if number not in listed | ruled)


@pytest.mark.parametrize("number", [0x40000000, 0x40000000 | 16, 0x80000000, 0xFFFFFFFF])
def test_numbers_of_another_kind_are_unknown(ask, number):
    assert ask(number) == UNKNOWN


@pytest.mark.parametrize("audit", [0x40000003, 0xC0000028, 0, 0xFFFFFFFF])
def test_another_architecture_ends_the_process(ask, audit):
    assert ask("read", audit=audit) == KILL


@pytest.mark.parametrize(
    "command",
    [0x5412, 0x400454CB, 0x400454CC, 0x400454CE, 0x400454CA, 0x5421, 0x5452, 0x5401, 0x541B],
    ids=[
        "TIOCSTI",
        "TUNSETPERSIST",
        "TUNSETOWNER",
        "TUNSETGROUP",
        "TUNSETIFF",
        "FIONBIO",
        "FIOASYNC",
        "TCGETS",
        "FIONREAD",
    ],
)
def test_no_ioctl_is_allowed_but_what_waits_to_be_sent(ask, command):
    assert ask("ioctl", 5, command, 1) == REFUSED
    assert ask("ioctl", 5, 0x5411, 1) == ALLOW


def test_upper_half_of_an_argument_is_not_looked_at_as_by_the_kernel(ask):
    assert ask("ioctl", 5, 0x1_0000_5411, 1) == ALLOW
    assert ask("ioctl", 5, 0x1_0000_5412, 1) == REFUSED


@pytest.mark.parametrize(
    ("call", "allowed", "refused"),
    [
        ("mmap", (0, 4096, 3, 0x22), (0, 4096, 7, 0x22)),
        ("mmap", (0, 4096, 1, 0x22), (0, 4096, 4, 0x22)),
        ("mprotect", (0, 4096, 3), (0, 4096, 5)),
        ("setsockopt", (5, 0, 10), (5, 1, 36)),  # of a path's MTU; a mark
        ("setsockopt", (5, 41, 23), (5, 0, 23)),
        ("setsockopt", (5, 41, 24), (5, 41, 10)),
        ("setsockopt", (5, 0, 10), (5, 1, 26)),  # SO_ATTACH_FILTER
        ("setsockopt", (5, 0, 10), (5, 0, 4)),  # IP_OPTIONS
        ("setsockopt", (5, 1, 37), (5, 1, 2)),  # SO_TIMESTAMPING; SO_REUSEADDR
        ("clone", (0x3D0F00,), (0x11,)),  # a thread; fork()
        ("prlimit64", (0, resource.RLIMIT_NPROC), (0, resource.RLIMIT_NOFILE)),
        ("prlimit64", (0, resource.RLIMIT_NPROC), (1, resource.RLIMIT_NPROC)),
        ("ioctl", (5, 0x5411), (5, 0x5412)),  # SIOCOUTQ; TIOCSTI
        ("fcntl", (5, 3), (5, 8)),  # F_SETOWN
        ("fcntl", (5, 2), (5, 0)),  # F_DUPFD
        ("fcntl", (5, 1), (5, 4)),  # F_SETFL
        ("tgkill", (PROCESS, PROCESS, 6), (PROCESS + 1, PROCESS, 6)),
    ],
)
def test_call_is_allowed_for_some_arguments_only(ask, call, allowed, refused):
    assert ask(call, *allowed) == ALLOW
    assert ask(call, *refused) == REFUSED


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_numbers_are_those_of_the_system_headers(machine):
    if not HEADERS[machine].exists():
        pytest.skip(f"there is no {HEADERS[machine]}")
    said = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", HEADERS[machine].read_text())
    known = {name: int(number) for name, number in said}
    column = ARCHITECTURES[machine].column

    listed = {name: pair[column] for name, pair in CALLS.items()}
    listed |= {name: rule.numbers[column] for name, rule in _rules(PROCESS).items()}

    assert listed == {name: known.get(name) for name in listed}
    assert ARCHITECTURES[machine].seccomp == known["seccomp"]


def test_every_jump_stays_in_the_program(ask):
    for architecture in ARCHITECTURES.values():
        instructions = list(struct.iter_unpack("=HBBI", build(architecture, PROCESS)))
        for at, (code, if_true, if_false, _) in enumerate(instructions):
            assert code == 0x06 or at + 1 + max(if_true, if_false) < len(instructions)


# A real kernel


PROLOGUE = """
import ctypes, errno, fcntl, gc, mmap, os, pty, resource, signal, socket, sys, time
from overlay.host.process.privileges import _prctl
from overlay.host.process.seccomp import confine
_prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
"""


def run(code, before=""):
    """Return how a process ended that ran *code* under the filter, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"{PROLOGUE}\n{before}\nassert confine() == []\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


FORBIDDEN = {
    "type into a terminal": ("fcntl.ioctl(terminal, 0x5412, b'x')", "terminal = pty.openpty()[1]"),
    "open a file": ("open('/etc/hostname')", ""),
    "look at a file": ("os.stat('/etc/hostname')", ""),
    "list a directory": ("os.listdir('/')", ""),
    "open a socket": ("socket.socket()", ""),
    "open a pair of sockets": ("socket.socketpair()", ""),
    "bind a socket": ("udp.bind(('127.0.0.1', 0))", "udp = socket.socket(type=socket.SOCK_DGRAM)"),
    "listen": ("tcp.listen()", "tcp = socket.socket()"),
    "connect a socket": ("udp.connect(('127.0.0.1', 9))", "udp = socket.socket(type=socket.SOCK_DGRAM)"),
    "ask whether a file is there": (
        "link.connect('/etc/hostname')",
        "link, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
    ),
    "have a socket block": ("udp.setblocking(True)", "udp = socket.socket(type=socket.SOCK_DGRAM)"),
    "have a tun block": ("os.set_blocking(end, False)", "end = os.open('/dev/null', os.O_RDWR)"),
    "shut a socket down": ("tcp.shutdown(socket.SHUT_RDWR)", "tcp = socket.socket()"),
    "pass a descriptor on twice": ("os.dup(0)", ""),
    "move data aside": ("os.splice(end, end, 1)", "end = os.open('/dev/null', os.O_RDWR)"),
    "mark": ("tcp.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)", "tcp = socket.socket()"),
    "reuse an address": (
        "tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)",
        "tcp = socket.socket()",
    ),
    "be signalled by a socket": ("fcntl.fcntl(tcp, fcntl.F_SETOWN, 1)", "tcp = socket.socket()"),
    "start a process": ("os.fork()", ""),
    "run a program": ("os.execv('/bin/true', ['true'])", ""),
    "spawn a program": ("os.posix_spawn('/bin/true', ['true'], {})", ""),
    "signal another": ("os.kill(os.getppid(), 0)", ""),
    "execute what it wrote": (
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "",
    ),
    "become somebody else": ("os.setuid(1)", ""),
    "change a limit": (
        "raise OSError if ctypes.CDLL(None).setrlimit(resource.RLIMIT_CORE, bytes(16)) else None",
        "",
    ),
    "enter a namespace": ("raise OSError if ctypes.CDLL(None).unshare(0x10000000) else None", ""),
    "trace": ("raise OSError if ctypes.CDLL(None).ptrace(0, 0, 0, 0) else None", ""),
}


@needs_filter
@pytest.mark.parametrize("what", FORBIDDEN)
def test_confined_process_cannot(what):
    code, before = FORBIDDEN[what]
    if code.startswith("raise"):
        code = (
            code.replace("raise OSError if ", "result = ").replace(" else None", "")
            + "\nif result: raise OSError"
        )
    indented = code.replace("\n", "\n    ")

    ended = run(f"try:\n    {indented}\nexcept OSError: print('refused')\nelse: print('done')", before)

    assert ended == (0, "refused\n", "")


@needs_filter
def test_confined_process_goes_on_with_what_it_has():
    before = (
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.setblocking(False)\n"
        "udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))"
    )
    code = (
        "a.send(b'x'); assert b.recv(9) == b'x'\n"
        "udp.setsockopt(socket.IPPROTO_IP, 10, 2); udp.sendto(b'y', udp.getsockname()); assert udp.recv(9) == b'y'\n"
        "kept = [bytes(n) for n in range(0, 1 << 22, 4099)]; del kept; gc.collect(); os.urandom(32); "
        "time.sleep(0.001)\nkept = bytearray(1 << 26); kept += bytes(1 << 26); del kept; a.close(); print('well')"
    )

    assert run(code, before) == (0, "well\n", "")


@needs_filter
@pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
def test_compiled_path_makes_its_first_keys_under_the_filter_and_calls_nothing_else():
    before = (
        "from overlay.forwarding import state\n"
        "class Keypair(state.KeypairState): pass\n"
        "class UnitKey(state.UnitKeyState): pass\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "calls = {'open': (2, b'/etc/hostname', 0), 'openat': (257, -100, b'/etc/hostname', 0), 'socket': (41, 2, 2, 0),\n"
        "  'connect': (42, 0, b'', 0), 'execve': (59, b'/bin/true', 0, 0), 'execveat': (322, -100, b'/bin/true', 0, "
        "0, 0),\n  'ptrace': (101, 0, 0, 0, 0), 'fork': (57,), 'vfork': (58,), 'clone3': (435, 0, 0), "
        "'io_uring_setup': (425, 1, 0),\n  'bpf': (321, 0, 0, 0), 'process_vm_writev': (311, 1, 0, 0, 0, 0, 0), "
        "'userfaultfd': (323, 0), 'kill': (62, 1, 0)}"
    )
    code = (
        "Keypair()._keys(1, 2, bytes(32), bytes(32)); UnitKey()._seals(1, bytes(32), None); UnitKey()._seals(2, "
        "bytes(32), None)\nrefused = {name: libc.syscall(*call) for name, call in calls.items()}\n"
        "print({name: got for name, got in refused.items() if got != -1})"
    )

    assert run(code, before) == (0, "{}\n", "")


@needs_filter
def test_error_of_a_confined_process_has_its_traceback():
    code, _, said = run("raise KeyError('nothing')")

    assert code == 1
    assert "Traceback" in said
    assert said.endswith("KeyError: 'nothing'\n")


@needs_filter
def test_confined_process_can_abort():
    assert run("os.abort()")[0] == -6


@needs_filter
def test_filter_cannot_be_taken_off_or_weakened():
    code = "print(ctypes.CDLL(None).prctl(22, 0, 0, 0, 0), ctypes.CDLL(None).syscall(317, 1, 0, None))"

    assert run(code)[1] == "-1 -1\n"


def test_without_a_filter_there_is_a_sentence_that_says_so():
    code = "import platform; platform.machine = lambda: 'riscv64'\n"
    code += "from overlay.host.process.seccomp import confine; print(*confine())"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "every system call stays allowed: there is no list of those that riscv64 needs\n"
