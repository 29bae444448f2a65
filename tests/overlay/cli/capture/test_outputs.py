"""Where a capture goes: files, pipes and lines."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from overlay.capturing.entry import Entry, Place
from overlay.cli.capture.outputs import (
    LinesOutput,
    PcapngOutput,
    ReaderGoneError,
    open_file,
    open_stdout,
)
from overlay.cli.exits import Failure, Misuse
from tests.overlay.capturing.datagrams import udp

PACKET = udp("10.0.0.1", "10.0.0.2", 5, 53, b"abcd")
ENTRY = Entry(Place.IN, 1_700_000_000_123_456_789, PACKET, len(PACKET), "tokyo", ("drop=source",))


def begin(output):
    output.begin("overlay", [Place.OUT, Place.IN], "overlay0", 96, "", is_tap=False)


def test_file_is_whole_after_every_flush():
    file = io.BytesIO()
    output = PcapngOutput(file, "x.pcapng")
    begin(output)
    output.take(ENTRY)
    output.end({Place.IN: (3, 1)})

    data, kinds = file.getvalue(), []
    while data:
        size = int.from_bytes(data[4:8], "little")
        assert data[size - 4 : size] == data[4:8]
        kinds.append(data[0])
        data = data[size:]
    assert kinds == [10, 1, 1, 6, 5]


def test_new_file_is_of_its_owner_alone(tmp_path):
    open_file(tmp_path / "x").close()

    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_file_that_cannot_be_made_is_named():
    with pytest.raises(Failure, match="/proc/none/x cannot be written"):
        open_file(Path("/proc/none/x"))


def test_full_disk_is_named():
    output = PcapngOutput(open_file(Path("/dev/full")), "x.pcapng")

    with pytest.raises(Failure, match=r"x\.pcapng: No space left"):
        begin(output)
    output.close()


def test_reader_that_left_is_no_failure():
    reads, writes = os.pipe()
    os.close(reads)
    output = PcapngOutput(os.fdopen(writes, "wb"), "standard output")

    with pytest.raises(ReaderGoneError):
        begin(output)
    output.close()


def test_terminal_gets_no_bytes():
    with pytest.raises(Misuse, match="wireshark -k -i -"):
        open_stdout(is_terminal=True)


def test_line_has_time_direction_peer_and_what_was_noted(capsys):
    LinesOutput(is_tap=False).take(ENTRY)

    said = capsys.readouterr().out
    assert said.endswith(".123456 in      tokyo  10.0.0.1.5 > 10.0.0.2.53: UDP, length 4  drop=source\n")


def test_line_of_a_hostile_name_is_printable(capsys):
    LinesOutput(is_tap=False).take(Entry(Place.IN, 0, PACKET, 32, "\x1b]0;x\x07", ("drop=\x9b1m",)))

    assert capsys.readouterr().out.strip().isprintable()
