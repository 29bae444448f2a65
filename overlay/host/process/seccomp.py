"""The system calls that the forwarder may make once it runs: a filter that cannot be removed.

The forwarder has all its descriptors from the agent.  It reads, writes, sends, receives, waits, and asks for memory,
the time and randomness; it opens and connects nothing, starts nothing but threads of its own and signals nobody.  An
attacker who takes it over cannot do more than that: open another socket, call an ioctl of the tun, or have memory that
is both writable and executable.

The descriptors lead to what the agent shares with this forwarder and the next, so what these calls can change matters:
nothing about the tun, not even whether it blocks, and little about a socket (see `overlay.host.sockets.renewal`).

A refused call fails, and the process goes on.  Killing it would alert an operator, but a new C library or allocator
that tries a new call would then end a working forwarder every few seconds.  A call that is not listed fails with
ENOSYS, as on a kernel too old for it: a library then falls back.  A call that is listed for other arguments fails with
EPERM.  Only call numbers of another architecture, which no honest program mixes with its own, end the process.

The program is classic BPF, as the kernel documents it (Documentation/userspace-api/seccomp_filter.rst).  From Linux
5.11 on, calls that are allowed with any arguments are looked up in a bitmap, which costs nothing measurable.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import resource
import socket
import struct
from dataclasses import dataclass

from overlay.host.sockets.queues import SIOCOUTQ, SO_TIMESTAMPING
from overlay.linux import (
    INSTRUCTION,
    IP_MTU_DISCOVER,
    IPV6_MTU,
    IPV6_MTU_DISCOVER,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    RETURN,
)

# Specification: linux/seccomp.h, linux/filter.h, linux/bpf_common.h, linux/audit.h, linux/prctl.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_ALLOW = 0x7FFF0000
JUMP_IF_ANY_BIT = 0x45  # if the operand shares any bit
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
ARGUMENT_SIZE = 8  # bytes; the lower half comes first on the little-endian machines listed here

# Specification: fcntl.h, linux/in.h
F_GETFD, F_SETFD, F_GETFL = 1, 2, 3
# Of clone(2), as the C libraries make a thread of their own process: everything that can be shared is (linux/sched.h)
THREAD = 0x003D0F00  # glibc: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID
DETACHED_THREAD = 0x007D0F00  # musl: also DETACHED, which no longer has a meaning
IPPROTO_IP, IPPROTO_IPV6 = 0, 41


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one kind of machine calls its kernel: its number in linux/audit.h, and the number of seccomp(2)."""

    audit: int
    column: int  # in CALLS
    seccomp: int


ARCHITECTURES = {"x86_64": Architecture(0xC000003E, 0, 317), "aarch64": Architecture(0xC00000B7, 1, 277)}

# Allowed with any arguments: the numbers on x86_64 and on aarch64, None where there is none (asm/unistd_64.h,
# asm-generic/unistd.h).  Calls that each packet needs come first: older kernels search from the top.
CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "writev": (20, 66),
    "sendmmsg": (307, 269),
    "recvmmsg": (299, 243),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "write": (1, 64),
    "readv": (19, 65),
    # Waiting, and existing sockets and descriptors
    "epoll_pwait2": (441, 441),
    "epoll_ctl": (233, 21),
    "epoll_create1": (291, 20),
    "eventfd2": (290, 19),
    "poll": (7, None),
    "ppoll": (271, 73),
    "getsockopt": (55, 209),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    # Memory: any allocator
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    # Time, randomness, itself
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getrandom": (318, 278),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "rseq": (334, 293),  # of each thread: the C library ends the process without it
    "set_robust_list": (273, 99),
    # Signals of its own, and the end
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A call that is allowed for some arguments: at least one of *ways* must apply.

    Each way names arguments, by position, and the value that the lower 32 bits must have.  In addition, the argument at
    a position in *without* must have none of these bits.
    """

    numbers: tuple[int, int]
    ways: tuple[dict[int, int], ...]
    without: tuple[int, int] | None = None


def _rules(process: int) -> dict[str, Rule]:
    """Return the calls that *process* may make with some arguments."""
    return {
        "mmap": Rule((9, 222), ({},), (2, mmap.PROT_EXEC)),
        "mprotect": Rule((10, 226), ({},), (2, mmap.PROT_EXEC)),
        "setsockopt": Rule(
            (54, 208),
            (
                {1: IPPROTO_IP, 2: IP_MTU_DISCOVER},
                {1: IPPROTO_IPV6, 2: IPV6_MTU_DISCOVER},
                {1: IPPROTO_IPV6, 2: IPV6_MTU},
                {1: socket.SOL_SOCKET, 2: SO_TIMESTAMPING},  # how the kernel reports what has left a socket
            ),
        ),
        "ioctl": Rule((16, 29), ({1: SIOCOUTQ},)),  # how much waits in a socket
        # Not F_SETFL: the flags belong to a descriptor that the next forwarder gets, too.
        "fcntl": Rule((72, 25), tuple({1: command} for command in (F_GETFD, F_SETFD, F_GETFL))),
        "clone": Rule((56, 220), ({0: THREAD}, {0: DETACHED_THREAD})),  # lanes; they get this filter, too
        "prlimit64": Rule(
            (302, 261), ({0: 0, 1: resource.RLIMIT_NPROC},)
        ),  # its own; an unprivileged process can only lower it
        "tgkill": Rule((234, 131), ({0: process},)),  # abort() and raise() signal their own process
    }


_libc = ctypes.CDLL(None, use_errno=True)


def confine() -> list[str]:
    """Restrict this process to the calls listed here, for good; it must have set no_new_privs.

    Call it last, from the only thread.  Returns a sentence if there is no filter, as on another architecture.
    """
    machine = platform.machine()
    architecture = ARCHITECTURES.get(machine)
    if architecture is None or struct.calcsize("P") != 8:
        return [f"every system call stays allowed: there is no list of those that {machine} needs"]
    program = build(architecture, os.getpid())
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog; the flag keeps older kernels from slowing down the process, which runs no code of others.
    filter_program = struct.pack("H6xP", len(program) // INSTRUCTION.size, ctypes.addressof(instructions))
    number, mode, flags = (
        ctypes.c_long(value)
        for value in (architecture.seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW)
    )
    if _libc.syscall(number, mode, flags, filter_program) != 0:
        return [f"every system call stays allowed: {os.strerror(ctypes.get_errno())}"]
    return []


def build(architecture: Architecture, process: int) -> bytes:
    """Return the filter for *process*, a classic BPF program."""
    code = [
        _load(ARCHITECTURE),
        _jump(JUMP_IF_EQUAL, architecture.audit, 1, 0),
        _return(RET_KILL_PROCESS),
        _load(NUMBER),
    ]
    for numbers in CALLS.values():
        number = numbers[architecture.column]
        if number is not None:
            code += [_jump(JUMP_IF_EQUAL, number, 0, 1), _return(RET_ALLOW)]
    for rule in _rules(process).values():
        checked = _checked(rule)
        code.append(_jump(JUMP_IF_EQUAL, rule.numbers[architecture.column], 0, len(checked)))
        code += checked
    code.append(_return(RET_ERRNO | errno.ENOSYS))
    return b"".join(code)


def _checked(rule: Rule) -> list[bytes]:
    """Return the instructions that allow or refuse a call of *rule*, depending on its arguments."""
    code: list[bytes] = []
    if rule.without is not None:
        place, bits = rule.without
        code += [
            _load(_argument(place)),
            _jump(JUMP_IF_ANY_BIT, bits, 0, 1),
            _return(RET_ERRNO | errno.EPERM),
        ]
    for way in rule.ways:
        rest = 2 * len(way)
        for place, value in way.items():
            rest -= 2
            code += [_load(_argument(place)), _jump(JUMP_IF_EQUAL, value, 0, rest + 1)]
        code.append(_return(RET_ALLOW))
    code.append(_return(RET_ERRNO | errno.EPERM))
    return code


def _argument(place: int) -> int:
    return ARGUMENTS + place * ARGUMENT_SIZE


def _load(offset: int) -> bytes:
    return INSTRUCTION.pack(LOAD_WORD, 0, 0, offset)


def _jump(kind: int, constant: int, if_true: int, if_false: int) -> bytes:
    return INSTRUCTION.pack(kind, if_true, if_false, constant)


def _return(action: int) -> bytes:
    return INSTRUCTION.pack(RETURN, 0, 0, action)
