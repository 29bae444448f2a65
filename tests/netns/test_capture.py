"""``overlay capture`` between two hosts with a container each: tshark reads what it writes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.netns.network import PATIENCE, PYTHON, Container, Host, Network, connect, transfer
from tests.netns.topology import ROOT, wait_until

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = ("frame.interface_name", "frame.comment", "frame.protocols", "ip.src", "ip.dst", "ip.len", "tcp.checksum.status",
    "udp.checksum.status", "frame.len",
    "frame.cap_len", "udp.srcport", "frame.time_epoch")  # fmt: skip


@dataclass
class Site:
    paris: Host
    tokyo: Host
    web: Container  # in Paris
    shop: Container  # in Tokyo
    directory: Path
    count: int = field(default=0)


@pytest.fixture(scope="module")
def site(module_lab, tmp_path_factory):
    for program in ("tshark", "tcpdump"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    directory = tmp_path_factory.mktemp("site")
    network = Network(module_lab, directory)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    network.host("lima", endpoint=None)
    web, shop = paris.container("web"), tokyo.container("shop")
    network.start()
    paris.ping(tokyo.address)
    paris.wait_up(tokyo)
    yield Site(paris, tokyo, web, shop, directory)
    network.close()


class Running:
    """A running capture, and what it has written."""

    def __init__(self, site, *options):
        site.count += 1
        self.path = site.directory / f"{site.count}.pcapng"
        command = (PYTHON, "-m", "overlay", "capture", *options, "-w", str(self.path))
        self.process = site.paris.namespace.popen(*command, stderr=subprocess.PIPE)
        wait_until(self.has_begun, PATIENCE, "the capture")

    def has_begun(self):
        return (self.path.exists() and self.path.stat().st_size > 0) or self.process.poll() is not None

    def end(self, number=signal.SIGINT):
        """Stop it with Ctrl-C, and return its output."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        said = self.process.communicate(timeout=PATIENCE)[1]
        assert "Traceback" not in said
        return said

    def rows(self, *options):
        """Return the packets as tshark reads them."""
        return dissect(self.path, *options)


def dissect(path, *options, is_cut=False):
    command = ["tshark", "-n", "-r", str(path), "-T", "json", "-o", "ip.check_checksum:TRUE"]
    command += ["-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", *options]
    for name in FIELDS:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=not is_cut, timeout=60)
    rows = [each["_source"].get("layers", {}) for each in json.loads(done.stdout)]
    rows = [{name: values[0] for name, values in row.items()} for row in rows]
    # Packets captured at two places are read in turns.
    return sorted(rows, key=lambda row: row["frame.time_epoch"])


def test_both_directions_have_an_interface_and_each_packet_the_name_of_its_peer(site):
    capture = Running(site)
    site.web.ping(site.shop.address, 2)
    said = capture.end()

    ends = {site.web.address, site.shop.address}  # an error caused by an earlier test may still arrive
    rows = [row for row in capture.rows() if {row.get("ip.src"), row.get("ip.dst")} == ends]
    assert {(row["frame.interface_name"], row["ip.src"]) for row in rows} == {
        ("overlay0:out", site.web.address),
        ("overlay0:in", site.shop.address),
    }
    assert {row["frame.comment"] for row in rows} == {"peer=tokyo"}
    assert re.fullmatch(r"capturing on overlay0\n\d+ packets captured, none missed\n", said)
    assert capture.process.returncode == 0


def test_what_passes_after_the_first_line_is_in_the_capture(site):
    process = site.paris.namespace.popen(
        *(PYTHON, "-m", "overlay", "capture", "-f", "icmp", "-c", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr.readline() == "capturing on overlay0\n"
    site.web.ping(site.shop.address, 1)

    shown, said = process.communicate(timeout=PATIENCE)
    assert len(shown.splitlines()) == 2
    assert said == "2 packets captured, none missed\n"


def test_filter_in_the_language_of_tcpdump_and_the_name_of_a_peer_choose_packets(site):
    capture = Running(site, "tokyo", "-f", "icmp[icmptype] == icmp-echo and len > 1000")
    site.web.ping(site.shop.address, 2)
    site.web.run("ping", "-n", "-c2", "-i0.1", "-s1200", site.shop.address)
    capture.end()

    assert {row["ip.len"] for row in capture.rows()} == {"1228"}


def test_packets_of_another_peer_are_left_out(site):
    capture = Running(site, "lima")
    site.web.ping(site.shop.address, 2)
    capture.end()

    assert capture.rows() == []


def test_super_packets_are_whole_and_checksums_of_ordinary_packets_right(site):
    capture = Running(site, "-f", "tcp")
    with contextlib.ExitStack() as stack:
        sender, receiver = map(
            stack.enter_context, connect(site.web.namespace, site.shop.namespace, site.shop.address)
        )
        transfer(sender, receiver, 1 << 20)
    capture.end()

    rows = capture.rows()
    assert max(int(row["ip.len"]) for row in rows) > 10_000
    large = [row for row in rows if "segments=" in row["frame.comment"]]
    assert large
    assert all("checksum=partial" in row["frame.comment"] for row in large)
    assert {row["tcp.checksum.status"] for row in rows if row not in large} == {"1"}  # good


def test_datagrams_on_the_wire_are_captured_beside_the_packets_inside(site):
    capture = Running(site, "--outside")
    site.web.ping(site.shop.address, 2)
    capture.end()

    rows = [row for row in capture.rows() if row["frame.interface_name"].startswith("overlay0:outside")]
    assert {row["frame.interface_name"] for row in rows} == {"overlay0:outside-out", "overlay0:outside-in"}
    assert {row["frame.comment"] for row in rows} == {"peer=tokyo"}
    assert all("wg" in row["frame.protocols"] for row in rows)
    assert {row["udp.srcport"] for row in rows} == {"51820"}


def call_nobody(site, *options):
    """Make Paris drop a packet that no peer has a prefix for; return once it has."""
    before = site.paris.drops().get("no_peer", 0)
    site.web.run("ping", "-n", "-c1", "-W0.2", *options, "10.244.99.1", check=False)
    wait_until(lambda: site.paris.drops().get("no_peer", 0) > before, PATIENCE, "a drop")


def drop_some(site):
    """Have Paris drop packets that no peer has, one that Tokyo may not send, and one that is for another key.

    Return when it has.
    """

    def dropped():
        return site.paris.drops(site.tokyo).get("source", 0), site.paris.drops().get("mac1", 0)

    before = dropped()
    call_nobody(site)
    site.tokyo.namespace.run("ip", "addr", "add", "203.0.113.7/32", "dev", "lo", check=False)
    site.tokyo.namespace.run(
        "ping", "-n", "-c1", "-W0.2", "-I", "203.0.113.7", site.paris.address, check=False
    )
    code = (
        "import socket, sys; udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        r"udp.sendto(b'\x02\0\0\0'.ljust(92, b'x'), (sys.argv[1], 51820))"
    )
    site.tokyo.namespace.python(code, site.paris.outside)
    wait_until(
        lambda: all(now > then for now, then in zip(dropped(), before, strict=True)), PATIENCE, "the drops"
    )


def test_dropped_packets_are_shown_with_their_reason_and_their_peer(site):
    capture = Running(site, "--dropped")
    drop_some(site)
    capture.end()

    rows = capture.rows()
    told = {
        (row["frame.interface_name"], row["frame.comment"].partition(" (")[0], row.get("ip.src"))
        for row in rows
    }
    assert told >= {
        ("overlay0:dropped", "drop=no_peer", site.web.address),
        ("overlay0:dropped", "peer=tokyo drop=source", "203.0.113.7"),
    }
    refused = next(row for row in rows if row["frame.interface_name"] == "overlay0:refused")
    assert refused["ip.src"] == site.tokyo.outside
    assert refused["frame.comment"].startswith("drop=mac1")
    assert "wg" in refused["frame.protocols"]


def test_only_packets_of_one_reason_that_match_a_filter_are_shown(site):
    capture = Running(site, "--dropped=no_peer", "-f", "icmp and len == 84")
    drop_some(site)
    call_nobody(site, "-s10")
    capture.end()

    assert {(row["ip.dst"], row["ip.len"]) for row in capture.rows()} == {("10.244.99.1", "84")}


def test_captures_go_on_when_the_forwarder_dies_and_two_do_not_disturb_each_other(site):
    one, other = Running(site, "--dropped=no_peer"), Running(site)
    os.kill(site.paris.status()["forwarder_pid"], signal.SIGKILL)
    wait_until(lambda: "forwarder restarted" in site.paris.log, PATIENCE, "another forwarder")
    wait_until(lambda: site.paris.drops() is not None, PATIENCE, "it to count")
    call_nobody(site)
    one.end()
    call_nobody(site)
    other.end(signal.SIGTERM)

    assert [row["frame.comment"].partition(" (")[0] for row in one.rows()] == ["drop=no_peer"]
    assert [row["frame.interface_name"] for row in other.rows() if row.get("ip.dst") == "10.244.99.1"] == [
        "overlay0:out", "overlay0:dropped", "overlay0:out", "overlay0:dropped",
    ]  # fmt: skip


SERVICE = """
[services.web]
address = "198.51.100.1"
ports = [80]
directors = ["paris"]
servers = [{ peer = "osaka" }]
"""


def test_names_are_those_of_the_peers_file_in_force_and_services_have_theirs(site):
    capture = Running(site)
    site.web.ping(site.shop.address, 1)
    text = site.paris.peers_path.read_text()
    site.paris.reload(text.replace("[peers.tokyo]", "[peers.osaka]") + SERVICE)

    def is_named(*names):
        site.web.namespace.completed("ping", "-n", "-c1", "-W0.2", site.shop.address)
        site.web.namespace.completed("ping", "-n", "-c1", "-W0.2", "198.51.100.1")
        return set(names) <= {row.get("frame.comment") for row in capture.rows()}

    try:
        wait_until(lambda: is_named("peer=tokyo", "peer=osaka", "service=web"), PATIENCE, "the new names")
    finally:
        capture.end()
        site.paris.reload(text)
        site.paris.wait_up(site.tokyo)


def test_count_and_snaplen_limit_a_capture(site):
    # Errors caused by earlier tests may still arrive.
    capture = Running(site, "-f", "icmp[icmptype] = icmp-echo", "-c", "3", "-s", "40")
    site.web.ping(site.shop.address, 3)
    said = capture.process.communicate(timeout=PATIENCE)[1]

    rows = dissect(capture.path)
    assert "3 packets captured" in said
    assert [row["frame.len"] for row in rows] == ["84"] * 3
    assert {row["frame.cap_len"] for row in rows} == {"40"}


def test_lines_are_shown_where_no_file_is_named(site):
    process = site.paris.namespace.popen(
        PYTHON,
        "-m",
        "overlay",
        "capture",
        "-f",
        "icmp[icmptype] = icmp-echo",  # errors caused by earlier tests may still arrive
        "-c",
        "2",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None:
        site.web.namespace.completed("ping", "-n", "-c1", "-W0.2", site.shop.address)
    lines = process.communicate(timeout=PATIENCE)[0].splitlines()

    assert len(lines) == 2
    assert (
        f"out     tokyo  {site.web.address} > {site.shop.address}: ICMP echo request, length 64" in lines[0]
    )


def without_numbers(line):
    """Return *line* without the parts that differ from run to run: the time, and the source port of a datagram."""
    return re.sub(r"\.\d+ > 0\.0\.0\.0", " > 0.0.0.0", re.sub(r"^[\d:.]{15} ", "", line))


def test_outputs_in_the_documentation_are_what_captures_show(site):
    page = (ROOT / "docs/capture.md").read_text()
    documented = re.findall(
        r"^# overlay (capture .*)\ncapturing on overlay0\n((?:\d.*\n)+)", page, re.MULTILINE
    )
    assert len(documented) == 3
    with contextlib.ExitStack() as stack:
        missing = {}  # lines, by the file in which they are to appear
        for number, (command, text) in enumerate(documented):
            path, words = site.directory / f"lines{number}", re.sub(r" -c \d+", "", command).split()
            lines = stack.enter_context(path.open("w"))
            process = site.paris.namespace.popen(PYTHON, "-m", "overlay", *words, stdout=lines)
            stack.callback(site.paris.namespace.lab.end_process, process)
            missing[path] = {without_numbers(line) for line in text.splitlines() if " captured" not in line}

        def have_appeared():
            site.web.namespace.completed("ping", "-n", "-c1", "-W0.2", site.shop.address)
            drop_some(site)
            for path, lines in missing.items():
                lines -= set(map(without_numbers, path.read_text().splitlines()))
            return not any(missing.values())

        wait_until(have_appeared, PATIENCE, "the documented lines")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-f", "tcp prot 80"), "--filter: tcpdump does not accept the filter"),
        (("tokio",), "did you mean tokyo?"),
        (("-w", "/proc/nothing/x"), "cannot be written"),
        (("--dropped=sourc",), "--dropped: no packet is dropped for the reason sourc: did you mean source"),
        (("-w", "/dev/full", "-c", "1"), "No space left on device"),
        (("--interface", "nothing0"), "no overlay agent runs"),
    ],
)
def test_what_is_wrong_is_one_sentence(site, options, said):
    done = site.paris.overlay("capture", *options)

    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_capture_whose_last_packets_cannot_be_written_has_failed(site):
    capture = Running(site, "-f", "icmp", "-c", "1")
    size = capture.path.stat().st_size
    resource.prlimit(capture.process.pid, resource.RLIMIT_FSIZE, (size, size))
    site.web.ping(site.shop.address, 1)
    said = capture.process.communicate(timeout=PATIENCE)[1].splitlines()

    assert capture.process.returncode == 1
    assert re.fullmatch(r"0 packets captured, (at least )?1 missed", said[-2])
    assert said[-1] == (
        f"Error: the capture cannot be written to {capture.path}: File too large; name another file after -w"
    )


def test_reader_that_leaves_ends_the_capture_and_nothing_else(site):
    process = site.paris.namespace.popen(
        "sh", "-c", f"{PYTHON} -m overlay capture -w - | head -c 400 >/dev/null", stderr=subprocess.PIPE
    )
    while process.poll() is None:
        site.web.namespace.completed("ping", "-n", "-c1", "-W0.2", site.shop.address)
    said = process.communicate(timeout=PATIENCE)[1]

    assert process.returncode == 0
    assert "Traceback" not in said
    assert "captured" in said


def test_capture_whose_reader_has_stalled_ends_at_a_signal_and_says_what_it_missed(site):
    (read, write), stalled = os.pipe(), site.directory / "stalled.pcapng"
    # Not what earlier tests sent, some of which may still be under way
    command = (PYTHON, "-m", "overlay", "capture", "-f", "icmp and len == 1328", "-w", "-")
    process = site.paris.namespace.popen(*command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    os.read(read, 1)  # the capture has started
    said = site.web.run("ping", "-n", "-q", "-c100", "-i0.002", "-s1300", site.shop.address)
    passed = sum(map(int, re.search(r"(\d+) packets transmitted, (\d+) received", said).groups()))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[1]
    with os.fdopen(read, "rb") as file:
        stalled.write_bytes(b"\x0a" + file.read())  # except for a truncated packet

    assert process.returncode == 0
    assert "Traceback" not in said
    counts = re.search(r"(\d+) packets captured, (\d+) missed: they came faster than they were read", said)
    assert counts, said
    captured, missed = map(int, counts.groups())
    assert captured + missed == passed
    assert len(dissect(stalled, is_cut=True)) == captured


def test_capture_ends_with_its_agent(site):
    capture = Running(site)
    site.paris.stop()
    said = capture.process.communicate(timeout=PATIENCE)[1]  # a signal might arrive while it exits
    site.paris.start()
    site.paris.ping(site.tokyo.address)

    assert "Traceback" not in said
    assert "overlay0" in said
    assert "stopped" in said
    assert capture.process.returncode == 1
    assert capture.rows() is not None
