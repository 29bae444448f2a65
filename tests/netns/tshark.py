"""Frames as Wireshark's dissectors, an independent implementation of the formats, read them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Specification (draft-ietf-opsawg-pcap sections 4 and 5), in the order of this machine's bytes
_FILE = struct.Struct("=IHHiIII")  # magic, version 2.4, two unused, longest capture, link type
_RECORD = struct.Struct("=IIII")  # seconds, microseconds, bytes captured, bytes on the wire
MAGIC, LINKTYPE_ETHERNET = 0xA1B2C3D4, 1
FIELDS = (
    "frame.protocols",
    "_ws.malformed",
    "_ws.expert.message",
    "ip.checksum.status",
    "tcp.checksum.status",
)


def dissect(
    frames: Iterable[bytes], directory: Path, *options: str, fields: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Return the fields of each of *frames*, FIELDS and *fields*, as lists of texts by name.

    The test is skipped where there is no tshark.
    """
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    path = directory / "frames.pcap"
    with path.open("wb") as file:
        file.write(_FILE.pack(MAGIC, 2, 4, 0, 0, 1 << 18, LINKTYPE_ETHERNET))
        for frame in frames:
            file.write(_RECORD.pack(0, 0, len(frame), len(frame)) + frame)
    command = ["tshark", "-n", "-r", str(path), "-T", "json", "-o", "ip.check_checksum:TRUE"]
    command += ["-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", *options]
    for name in (*FIELDS, *fields):
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [each["_source"].get("layers", {}) for each in json.loads(done.stdout)]
