"""Reading the packet filters of this host with the programs that administer them.

nftables has a binary interface, but iptables stores its own extensions there, which only iptables-save prints
completely.  If a program is missing, is not permitted, takes too long or prints too much, its part is unknown.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from pathlib import Path

from overlay.host.firewall import iptables, nft
from overlay.host.firewall.rules import Firewall, Table

# Specification: iptables(8): the tables of the kernel's old interface that are in use; none if the file is missing or
# empty
LEGACY = {
    "ip": (Path("/proc/net/ip_tables_names"), "iptables-legacy-save"),
    "ip6": (Path("/proc/net/ip6_tables_names"), "ip6tables-legacy-save"),
}
NFT = {"ip": "iptables-nft-save", "ip6": "ip6tables-nft-save"}

# Ours
FOLDERS = (
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
)  # not PATH: root runs them
LARGEST = (
    4 * 1024 * 1024
)  # bytes that a program may print; decoding them blocks the interpreter for about 40 ms
PATIENCE = 5.0  # seconds for a program; nft takes 10 ms, and 1 s for about 50,000 rules
PIECE = 256 * 1024  # bytes of one read
BUILTIN = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}


class UnreadError(Exception):
    """The output of a program could not be read; the text says why."""


def read_firewall() -> Firewall:
    """Return the packet filters of the network namespace of the calling thread.  Blocks; call it in a worker thread."""
    tables: list[Table] = []
    unread: list[str] = []
    try:
        ruleset = json.loads(run(["nft", "--json", "list", "ruleset"]))
        tables = nft.parse(ruleset)
        if nft.lacks_devices(tables):
            tables = nft.parse(ruleset, nft.parse_devices(_lines(run(["nft", "list", "chains"]))))
    except UnreadError as error:
        unread.append(str(error))
    except (ValueError, RecursionError):
        unread.append("the output of nft was not understood")
    for family, program in NFT.items():
        of_iptables = [each for each in tables if _is_of_iptables(each, family)]
        if not of_iptables and not unread:
            continue
        try:
            found = iptables.parse(_lines(run([program])), family, _command(program))
        except UnreadError as error:
            unread.append(str(error))
        else:
            names = {each.name for each in found}
            tables = [each for each in tables if each not in of_iptables or each.name not in names] + found
    for family, (names_in_use, program) in LEGACY.items():
        with contextlib.suppress(OSError):  # there is no such interface
            if names_in_use.read_text().strip():
                try:
                    tables += iptables.parse(_lines(run([program])), family, _command(program))
                except UnreadError as error:
                    unread.append(str(error))
    return Firewall(tuple(tables), tuple(unread))


def has_legacy_tables() -> bool:
    """Return whether the kernel's old interface has tables, whose changes are not announced."""
    for names_in_use, _ in LEGACY.values():
        with contextlib.suppress(OSError):  # there is no such interface
            if names_in_use.read_text().strip():
                return True
    return False


def run(command: list[str], patience: float = PATIENCE, largest: int = LARGEST) -> bytes:
    """Return the output of *command*.  Raises UnreadError if it fails, takes too long or prints too much; it is ended
    then.
    """
    name = command[0]
    path = next((each for folder in FOLDERS if os.access(each := f"{folder}/{name}", os.X_OK)), None)
    if path is None:
        raise UnreadError(f"{name} is not installed")
    environment = {"PATH": ":".join(FOLDERS), "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
    except OSError as error:
        raise UnreadError(f"{name} could not be started: {error.strerror}") from error
    with process:
        try:
            printed = _collect(process, time.monotonic() + patience, largest)
            code = process.wait(patience)
        except (UnreadError, subprocess.TimeoutExpired) as error:
            process.kill()
            why = error if isinstance(error, UnreadError) else "took too long"
            raise UnreadError(f"{name} {why}") from error
    if code != 0:
        raise UnreadError(f"{name} failed with exit code {code}, as without CAP_NET_ADMIN")
    return printed


def _collect(process: subprocess.Popen[bytes], deadline: float, largest: int) -> bytes:
    assert process.stdout is not None
    printed = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise UnreadError("took too long")
            piece = os.read(process.stdout.fileno(), PIECE)
            if not piece:
                return bytes(printed)
            printed += piece
            if len(printed) > largest:
                raise UnreadError(f"printed more than {largest} bytes")


def _lines(printed: bytes) -> list[str]:
    return printed.decode("utf-8", "replace").splitlines()


def _is_of_iptables(table: Table, family: str) -> bool:
    return table.family == family and any(
        chain.hook is not None and chain.name in BUILTIN for chain in table.chains.values()
    )


def _command(program: str) -> str:
    """Return the command that changes what *program* prints: its short name, if that is the same variant on this
    host.
    """
    long = program.removesuffix("-save")
    short = long.partition("-")[0]
    kind = "legacy" if "legacy" in long else "nft"
    for folder in FOLDERS:
        if os.access(f"{folder}/{short}", os.X_OK):
            return short if kind in os.path.realpath(f"{folder}/{short}") else long
    return long
