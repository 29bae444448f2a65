"""Outputs of a capture: files, pipes and lines."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from overlay.capturing.entry import CapturePoint, Entry
from overlay.cli.capture.ending import Ending
from overlay.cli.capture.outputs import (
    LinesOutput,
    PcapngOutput,
    ReaderGoneError,
    open_file,
    open_stdout,
)
from overlay.cli.exits import Failure, Misuse
from tests.overlay.capturing.datagrams import udp
from tests.overlay.cli.capture.test_ending import interrupted_once_full

PACKET = udp("10.0.0.1", "10.0.0.2", 5, 53, b"abcd")
ENTRY = Entry(CapturePoint.IN, 1_700_000_000_123_456_789, PACKET, len(PACKET), "tokyo", ("drop=source",))


def begin(output):
    output.begin("overlay", [CapturePoint.OUT, CapturePoint.IN], "overlay0", 96, "", is_tap=False)


@pytest.fixture
def ending():
    return Ending()


def kinds_of(data):
    """Return the kinds of the blocks in *data*, all of which are complete."""
    kinds = []
    while data:
        size = int.from_bytes(data[4:8], "little")
        assert data[size - 4 : size] == data[4:8]
        kinds.append(data[0])
        data = data[size:]
    return kinds


def test_file_is_whole_after_every_flush(tmp_path, ending):
    output = PcapngOutput(open_file(tmp_path / "x", ending), "x.pcapng", ending)
    begin(output)
    output.take(ENTRY)
    assert output.written == 0
    output.flush()
    assert output.written == 1
    output.end({CapturePoint.IN: (3, 1)})
    output.close()

    assert kinds_of((tmp_path / "x").read_bytes()) == [10, 1, 1, 6, 5]


def test_more_than_is_collected_at_once_is_written_in_order(tmp_path, ending):
    output = PcapngOutput(open_file(tmp_path / "x", ending), "x.pcapng", ending)
    begin(output)
    for size in (60_000, 0, 1, 262_144) * 6:
        output.take(Entry(CapturePoint.IN, size, bytes(size), size, "tokyo"))
    output.end({})
    output.close()

    assert output.written == 24
    assert kinds_of((tmp_path / "x").read_bytes()) == [10, 1, 1] + [6] * 24


def test_packets_that_a_stalled_reader_does_not_read_are_not_written(ending):
    reads, writes = os.pipe()
    output = PcapngOutput(writes, "standard output", ending)
    begin(output)
    for _ in range(100):
        output.take(Entry(CapturePoint.IN, 1, bytes(10_000), 10_000))

    with ending.by_signals(), interrupted_once_full(writes), pytest.raises(KeyboardInterrupt):
        output.flush()

    got = os.read(reads, 1 << 20)
    assert 0 < output.written < 100
    assert len(got) // 10_036 == output.written
    output.close()
    os.close(reads)


def test_what_a_signal_interrupts_is_written_later_and_whole(ending):
    reads, writes = os.pipe()
    output = PcapngOutput(writes, "standard output", ending)
    begin(output)
    for _ in range(100):
        output.take(Entry(CapturePoint.IN, 1, bytes(10_000), 10_000))
    with ending.by_signals():
        for _ in range(3):
            ending.last(0.01)
            with pytest.raises(KeyboardInterrupt):
                output.flush()
        ending.is_asked = False
    got = []
    reader = Thread(target=lambda: got.extend(iter(lambda: os.read(reads, 1 << 16), b"")))
    reader.start()
    output.end({CapturePoint.IN: (100, 0)})
    output.close()
    reader.join()

    assert kinds_of(b"".join(got)) == [10, 1, 1] + [6] * 100 + [5]
    assert output.written == 100
    os.close(reads)


def test_new_file_is_of_its_owner_alone(tmp_path, ending):
    os.close(open_file(tmp_path / "x", ending))

    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_file_that_is_there_is_emptied_and_may_be_behind_a_link_of_ones_own(tmp_path, ending):
    (tmp_path / "x").write_text("old")
    (tmp_path / "link").symlink_to("x")

    os.close(open_file(tmp_path / "link", ending))

    assert (tmp_path / "x").read_bytes() == b""


def link(path, target):
    path.symlink_to(target)


def hard_link(path, target):
    path.hardlink_to(target)


@pytest.mark.parametrize(
    ("put", "said"),
    [(link, "it is a symbolic link, and everyone can write to"), (hard_link, "has another name")],
)
def test_file_that_another_user_has_led_to_is_not_overwritten(tmp_path, ending, put, said):
    (tmp_path / "precious").write_text("precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    put(shared / "x", tmp_path / "precious")

    with pytest.raises(Failure, match=said):
        open_file(shared / "x", ending)

    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away: run as root")
@pytest.mark.parametrize("make", [os.mknod, os.mkfifo])
def test_file_or_pipe_of_another_user_that_everyone_may_have_put_there_gets_no_packets(
    tmp_path, ending, make
):
    tmp_path.chmod(0o1777)
    make(tmp_path / "x")
    os.chown(tmp_path / "x", 65534, 65534)

    with ending.by_signals():
        ending.last(5.0)  # where a pipe was waited for
        with pytest.raises(Failure, match="belongs to another user"):
            open_file(tmp_path / "x", ending)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away: run as root")
def test_pipe_that_another_user_puts_in_place_of_a_file_of_ones_own_gets_no_packets(
    tmp_path, ending, monkeypatch
):
    tmp_path.chmod(0o1777)
    (tmp_path / "own").touch()
    os.mkfifo(tmp_path / "x")
    os.chown(tmp_path / "x", 65534, 65534)
    reads = os.open(tmp_path / "x", os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(Path, "lstat", lambda path: os.lstat(path.parent / "own"))  # a moment before

    with pytest.raises(Failure, match="belongs to another user"):
        open_file(tmp_path / "x", ending)
    os.close(reads)


def test_pipe_that_nobody_reads_is_waited_for_until_a_signal(tmp_path, ending):
    os.mkfifo(tmp_path / "x")

    with ending.by_signals():
        ending.last(0.01)
        with pytest.raises(KeyboardInterrupt):
            open_file(tmp_path / "x", ending)


def test_file_that_cannot_be_made_is_named(ending):
    with pytest.raises(Failure, match="/proc/none/x cannot be written"):
        open_file(Path("/proc/none/x"), ending)


def test_full_disk_is_named(ending):
    output = PcapngOutput(open_file(Path("/dev/full"), ending), "x.pcapng", ending)

    begin(output)
    with pytest.raises(Failure, match=r"x\.pcapng: No space left"):
        output.flush()
    output.close()


def test_disk_that_is_full_at_the_end_is_named(ending):
    """A network file system may report this only when the file is closed; a closed descriptor stands in for it."""
    output = PcapngOutput(full := open_file(Path("/dev/full"), ending), "x.pcapng", ending)
    begin(output)
    with pytest.raises(
        Failure, match=r"No space left on device; free space there, or name another file after -w"
    ):
        output.end({})
    os.close(full)

    reads, writes = os.pipe()
    output = PcapngOutput(os.dup(writes), "x.pcapng", ending)
    begin(output)
    output.flush()
    os.close(output._descriptor)
    with pytest.raises(Failure, match=r"x\.pcapng: Bad file descriptor; name another file after -w"):
        output.end({})
    output.close()
    for each in (reads, writes):
        os.close(each)


def test_reader_that_left_is_not_a_failure(ending):
    reads, writes = os.pipe()
    os.close(reads)
    output = PcapngOutput(writes, "standard output", ending)

    begin(output)
    with pytest.raises(ReaderGoneError):
        output.flush()
    output.close()


def test_terminal_gets_no_bytes():
    with pytest.raises(Misuse, match="wireshark -k -i -"):
        open_stdout(is_terminal=True)


def test_line_has_time_direction_peer_and_what_was_noted(capsys, ending):
    LinesOutput(ending, [CapturePoint.OUT, CapturePoint.IN, CapturePoint.DROPPED], is_tap=False).take(ENTRY)

    said = capsys.readouterr().out
    assert said.endswith(".123456 in      tokyo  10.0.0.1.5 > 10.0.0.2.53: UDP, length 4  drop=source\n")


def test_lines_of_all_places_have_their_columns_below_each_other(capsys, ending):
    places = [CapturePoint.OUT, CapturePoint.IN, CapturePoint.OUTSIDE_OUT, CapturePoint.OUTSIDE_IN]
    output = LinesOutput(ending, places, is_tap=False)
    for place in places:
        output.take(Entry(place, 1, PACKET, len(PACKET), "tokyo"))

    lines = capsys.readouterr().out.splitlines()
    assert len({line.index("tokyo") for line in lines}) == 1
    assert output.written == 4


def test_line_of_a_hostile_name_is_printable(capsys, ending):
    LinesOutput(ending, [CapturePoint.IN], is_tap=False).take(
        Entry(CapturePoint.IN, 0, PACKET, 32, "\x1b]0;x\x07", ("drop=\x9b1m",))
    )

    assert capsys.readouterr().out.strip().isprintable()
