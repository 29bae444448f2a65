"""Filters in the language of pcap-filter(7), compiled by tcpdump into a program that the kernel runs.

tcpdump is used because people know its language; compiling costs nothing per packet.
"""

from __future__ import annotations

import array
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from overlay.errors import ConfigError, HostError
from overlay.host.sockets.bpf import LOAD_SIZE, program
from overlay.linux import LOAD_WORD, RETURN

if TYPE_CHECKING:
    from collections.abc import Iterable

Instruction = tuple[int, int, int, int]  # operation, jumps if true and if false, operand

# Specification: linux/bpf_common.h, linux/filter.h
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_CLASS, _MODE = 0x07, 0xE0
_LD, _LDX = 0x00, 0x01
_ABS, _IND, _LEN, _MSH = 0x20, 0x40, 0x80, 0xA0
LINK_RAW, LINK_ETHERNET = "RAW", "EN10MB"

# Ours
PROGRAM = "tcpdump"
TIMEOUT = 20.0  # seconds: a name in the expression may be looked up


def compile_expression(expression: str, link: str, snaplen: int) -> list[Instruction]:
    """Return the program that keeps the first *snaplen* bytes of packets that match *expression*; without one, of all.

    *link* is LINK_RAW if packets begin with the IP header.  Raises ConfigError for an expression that tcpdump refuses,
    HostError if tcpdump cannot run.
    """
    if not expression.strip():
        return [(RETURN, 0, 0, snaplen)]
    path = shutil.which(PROGRAM)
    if path is None:
        raise HostError(
            "a filter is compiled by tcpdump, which is not installed: run `apt-get install tcpdump`"
        )
    command = [path, "-ddd", "-y", link, "-s", str(snaplen), "--", expression]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"tcpdump did not compile the filter within {TIMEOUT:g} s") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise HostError(f"tcpdump could not be run to compile the filter: {error}") from error
    if done.returncode != 0:
        lines = [each for each in done.stderr.splitlines() if each.startswith("tcpdump:")] or ["it failed"]
        raise ConfigError(
            f"tcpdump does not accept the filter {expression!r}: {lines[-1].removeprefix('tcpdump:').strip()}; "
            "see `man pcap-filter`"
        )
    return parse(done.stdout)


def parse(text: str) -> list[Instruction]:
    """Return the program that ``tcpdump -ddd`` printed.  Raises HostError for anything else."""
    try:
        count, *rows = [[int(each) for each in line.split()] for line in text.splitlines()]
        made = [(row[0], row[1], row[2], row[3]) for row in rows]
        array.array("Q", (operand for *_, operand in made))
    except (ValueError, IndexError, OverflowError) as error:
        raise HostError("tcpdump compiled the filter to something that is not a program") from error
    if count != [len(made)] or not 0 < len(made) <= MOST_INSTRUCTIONS:
        raise HostError("tcpdump compiled the filter to something that is not a program")
    return made


def behind_header(instructions: Iterable[Instruction], size: int, length_at: int) -> list[Instruction]:
    """Return a program that does the same as *instructions* for a packet after a header of *size* bytes.

    The length of the packet is the big-endian word at *length_at* of that header; the header is kept, too.  Raises
    ConfigError for an operation that cannot be moved.
    """
    moved: list[Instruction] = []
    for code, if_true, if_false, operand in instructions:
        kind, mode = code & _CLASS, code & _MODE
        if code == LOAD_SIZE:
            moved.append((LOAD_WORD, if_true, if_false, length_at))
        elif (kind == _LD and mode in {_ABS, _IND}) or (kind == _LDX and mode == _MSH):
            moved.append((code, if_true, if_false, operand + size & 0xFFFFFFFF))
        elif kind == _LDX and mode == _LEN:
            raise ConfigError("this filter cannot be used for dropped packets: write it without `len`")
        elif code == RETURN and operand:
            moved.append((code, if_true, if_false, operand + size))
        else:
            moved.append((code, if_true, if_false, operand))
    return moved


def as_program(instructions: Iterable[Instruction]) -> array.array[int]:
    """Return *instructions* in the form that bpf.attach() takes."""
    return program(*instructions)
