from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import pytest
import trio

import overlay.supervision.forwarder
from overlay.crypto.keys import PrivateKey
from overlay.errors import HostError
from overlay.host.process.user_ids import USER_IDS
from overlay.link.codec import MESSAGE_BYTES, MESSAGES, VERSION
from overlay.link.messages import AskCounters, Begin, Counters, Handled, Ready, SessionWanted, SetPeer, Start
from overlay.records.process_output import BURST
from overlay.session.constants import Timing
from overlay.supervision.forwarder import (
    EARLY_REPORTS,
    STOP_TIME,
    Forwarder,
    ForwarderGoneError,
    OtherReleaseError,
    forwarders,
)
from tests.netns.topology import wait_until
from tests.overlay.host.process.test_seccomp import needs_filter

ROOT = Path(__file__).parents[3]
PUBLIC = PrivateKey(bytes(range(32))).public
TIMES = [float(getattr(Timing(), name)) for name in Timing.__slots__]
START = Start(PUBLIC, 1420, True, True, TIMES)
PATIENCE = 60.0  # seconds; a forwarder starts in 0.3 on an idle machine


def program(code):
    """Return a program for the other end of the link, which it has as ``link``."""
    prelude = "import os, signal, socket, sys, time; link = socket.socket(fileno=int(sys.argv[1]))\n"
    return [sys.executable, "-c", prelude + code]


def story(tell):
    """Run ``async def tell()`` with a time limit."""

    async def main():
        with trio.fail_after(PATIENCE):
            await tell()

    trio.run(main, strict_exception_groups=True)


@pytest.fixture
def tun():
    """Something that can be polled in the place of a tun: nothing ever comes from it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield theirs.fileno()
    ours.close()
    theirs.close()


@pytest.fixture
def unhurried(monkeypatch):
    """Give a forwarder that ends by itself enough time on a busy machine, where it may not even have started yet."""
    monkeypatch.setattr(overlay.supervision.forwarder, "STOP_TIME", PATIENCE)


@contextlib.asynccontextmanager
async def running(tun):
    """Have a forwarder that has said that it is ready."""
    forwarder = Forwarder()
    try:
        await forwarder.send(START, [tun])
        await forwarder.send(Begin())
        await forwarder.get_ready()
        yield forwarder
    finally:
        await forwarder.stop()


async def drops(forwarder, serial=1):
    await forwarder.send(AskCounters(serial))
    (counters,) = await forwarder.receive()
    assert isinstance(counters, Counters)
    return counters.drops


def process_status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def is_alive(pid):
    try:
        return process_status(pid)["State"][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.usefixtures("unhurried")
def test_forwarder_says_that_it_is_ready_and_ends_when_the_link_closes(tun):
    async def tell():
        async with running(tun) as forwarder:
            assert await forwarder.stop() == "exit code 0"
            assert not is_alive(forwarder.pid)

    story(tell)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_forwarder_that_has_not_started_yet_ends_as_well_when_the_link_closes():
    async def tell():
        forwarder = Forwarder()

        assert await forwarder.stop() == "exit code 0"

    story(tell)


@pytest.mark.slow
def test_second_stop_does_nothing(tun):
    async def tell():
        async with running(tun) as forwarder:
            first = await forwarder.stop()

            assert await forwarder.stop() == first

    story(tell)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_forwarder_is_gone_for_who_waits_and_who_sends(tun, number):
    async def tell():
        async with running(tun) as forwarder:
            os.kill(forwarder.pid, number)

            with pytest.raises(ForwarderGoneError):
                await forwarder.receive()
            with pytest.raises(ForwarderGoneError):
                await forwarder.send(Handled(1))
            assert await forwarder.stop() == f"killed by signal {number}"

    story(tell)


@pytest.mark.slow
def test_forwarder_leaves_stopping_to_the_agent(tun):
    async def tell():
        async with running(tun) as forwarder:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(forwarder.pid, number)

                assert await drops(forwarder) == {}, number

    story(tell)


def test_keys_of_a_terminal_reach_the_agent_alone(tun):
    async def tell():
        async with running(tun) as forwarder:
            assert os.getpgid(forwarder.pid) == forwarder.pid != os.getpgid(0)

    story(tell)


IN_A_TERMINAL = """
import fcntl, os, sys, termios, trio
from overlay.supervision.forwarder import Forwarder
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
assert os.isatty(0) and os.isatty(1) and os.isatty(2) and open("/dev/tty")
code = '''
import os, socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
found = [name for name in os.listdir("/proc/self/fd") if os.isatty(int(name))]
try: found.append(open("/dev/tty"))
except OSError: pass
link.send(repr((found, os.getsid(0) == os.getpid())).encode())
'''
async def main():
    forwarder = Forwarder([sys.executable, "-c", code])
    await trio.lowlevel.wait_readable(forwarder._link)
    said = forwarder._link.recv(1000)
    await forwarder.stop()
    return said
with open(sys.argv[1], "wb") as file:
    file.write(trio.run(main))
"""


def test_forwarder_has_no_terminal_and_cannot_open_the_agents(tmp_path):
    """Before, it could type into it (TIOCSTI), and root's shell would read that."""
    controller, terminal = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", IN_A_TERMINAL, str(tmp_path / "said")],
            cwd=ROOT,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            check=True,
            timeout=PATIENCE,
        )
    finally:
        os.close(controller)
        os.close(terminal)

    assert (tmp_path / "said").read_text() == "([], True)"


def hearing(forwarder, caplog):
    """Return what the agent logs of the output of *forwarder* until it ends."""

    async def tell():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forwarder.hear)
            with pytest.raises(ForwarderGoneError):
                await forwarder.receive()
            await forwarder.stop()

    story(tell)
    return [record.getMessage().partition(": ")[2] for record in caplog.records]


def test_what_the_forwarder_prints_is_logged_a_line_at_a_time_in_printable_characters(caplog):
    code = "print('one'); print('\\x1b[2Jtwo', file=sys.stderr)"

    assert hearing(Forwarder(program(code)), caplog) == ["one", "\\x1b[2Jtwo"]


@pytest.mark.usefixtures("unhurried")
def test_why_a_forwarder_ended_is_logged_though_nobody_listened(caplog):
    async def tell():
        forwarder = Forwarder(program("link.close(); raise KeyError('why')"))
        with pytest.raises(ForwarderGoneError):
            await forwarder.receive()
        assert await forwarder.stop() == "exit code 1"

    story(tell)
    assert caplog.records[-1].getMessage().endswith("KeyError: 'why'")


@pytest.mark.slow
def test_forwarder_that_prints_without_end_fills_no_log_and_is_stopped(caplog):
    async def tell():
        forwarder = Forwarder(program("while True: os.write(1, b'noise\\n' * 1000)"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forwarder.hear)
            while len(caplog.records) < BURST:
                await trio.sleep(0.01)
            assert await forwarder.stop() == "killed by signal 9"

    story(tell)
    assert len(caplog.records) < 2 * BURST  # a line more every ten seconds
    assert "lines that were not shown" in caplog.records[-1].getMessage()


def test_forwarders_that_follow_one_another_print_no_more_than_one(tmp_path, caplog):
    async def tell():
        with forwarders(tmp_path) as start:
            for _ in range(3):
                forwarder = start(program("os.write(1, b'noise\\n' * 1000)"))
                await forwarder.hear()
                await forwarder.stop()

    story(tell)
    noise = [record for record in caplog.records if record.getMessage().endswith(": noise")]
    assert BURST <= len(noise) < 2 * BURST  # a line more every ten seconds
    assert "lines that were not shown" in caplog.records[-1].getMessage()


@pytest.mark.slow
def test_garbage_from_the_agent_and_a_message_at_the_wrong_time_are_counted_and_not_fatal(tun):
    garbage = (b"\x00", b"\xc1", os.urandom(1000), b"\x91\xcc\xff", b"x" * 100_000)

    async def tell():
        async with running(tun) as forwarder:
            for count, each in enumerate(garbage, 1):
                forwarder._link.send(each)

                assert await drops(forwarder) == {"link": count}, each
            await forwarder.send(START)

            assert await drops(forwarder) == {"link": len(garbage) + 1}

    story(tell)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_forwarder_that_hears_garbage_first_ends_by_itself(tun):
    async def tell():
        forwarder = Forwarder()
        forwarder._link.send(b"garbage")

        with pytest.raises(ForwarderGoneError):
            await forwarder.receive()
        assert await forwarder.stop() == "exit code 0"

    story(tell)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_forwarder_tells_an_agent_of_another_version_its_own_and_waits_for_the_end_of_the_link():
    async def tell():
        forwarder = Forwarder()
        forwarder._link.send(msgpack.packb([MESSAGES.index(Start), VERSION + 1, {"another": "layout"}]))
        for _ in range(100):
            await forwarder.send(Handled(1))

        await trio.lowlevel.wait_readable(forwarder._link)
        greeting = msgpack.unpackb(forwarder._link.recv(MESSAGE_BYTES))
        assert greeting[:2] == [MESSAGES.index(Ready), VERSION]
        assert is_alive(forwarder.pid)
        assert await forwarder.stop() == "exit code 0"

    story(tell)


def test_forwarder_of_another_version_is_refused_in_a_sentence_with_the_remedy():
    async def tell():
        code = f"link.send({msgpack.packb([MESSAGES.index(Ready), 99, None])!r}); time.sleep(100)"
        forwarder = Forwarder(program(code))

        with pytest.raises(OtherReleaseError, match=r"version 99 of the link.*restart the agent$"):
            await forwarder.get_ready()
        forwarder._process.kill()
        await forwarder.stop()

    story(tell)


def test_garbage_from_the_forwarder_is_none_among_its_reports():
    async def tell():
        forwarder = Forwarder(
            program(
                "from overlay.link.codec import encode\nfrom overlay.link.messages import Handled, Ready, SessionWanted\n"
                "for data in (encode(Ready(['note'])), b'garbage', encode(Handled(1)), encode(SessionWanted(7))):\n"
                "    link.send(data)\n"
            )
        )
        with contextlib.suppress(ForwarderGoneError):
            while True:
                reports.extend(await forwarder.receive(3))
        await forwarder.stop()

    reports = []
    story(tell)
    assert [type(report).__name__ for report in reports] == ["Ready", "NoneType", "NoneType", "SessionWanted"]


def test_what_is_reported_before_the_forwarder_is_ready_is_kept():
    async def tell():
        code = (
            "from overlay.link.codec import encode\nfrom overlay.link.messages import Ready, SessionWanted\n"
            "for message in (SessionWanted(1), SessionWanted(2), Ready(['note']), SessionWanted(3)): link.send(encode(message))\n"
        )
        forwarder = Forwarder(program(code + "time.sleep(100)"))

        assert await forwarder.get_ready() == ["note"]
        reports = [report for _ in range(3) for report in await forwarder.receive()]
        assert reports == [SessionWanted(1), SessionWanted(2), SessionWanted(3)]
        forwarder._process.kill()
        await forwarder.stop()

    story(tell)


@pytest.mark.slow
def test_one_that_reports_without_end_before_it_is_ready_is_ended_and_holds_nobody_up():
    async def tell():
        code = "from overlay.link.codec import encode\nfrom overlay.link.messages import SessionWanted\nwhile True: link.send(encode(SessionWanted(1)))\n"
        forwarder, turns = Forwarder(program(code)), 0

        async def count():
            nonlocal turns
            while True:
                await trio.sleep(0)
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            with pytest.raises(ForwarderGoneError):
                await forwarder.get_ready()
            nursery.cancel_scope.cancel()
        await forwarder.stop()

        assert turns >= EARLY_REPORTS // 2

    story(tell)


def test_reports_come_in_batches_of_at_most_what_was_asked_for():
    async def tell():
        code = "from overlay.link.codec import encode\nfrom overlay.link.messages import SessionWanted\nfor n in range(5): link.send(encode(SessionWanted(n)))\n"
        forwarder = Forwarder(program(code))
        assert [report.peer for report in await forwarder.receive(1)] == [0]
        forwarder._process.wait(PATIENCE)  # it has sent all

        assert [report.peer for report in await forwarder.receive(2)] == [1, 2]
        assert [report.peer for report in await forwarder.receive(9)] == [3, 4]
        await forwarder.stop()

    story(tell)


@pytest.mark.slow
def test_full_link_holds_the_sender_until_the_forwarder_reads():
    async def tell():
        forwarder = Forwarder(program("time.sleep(0.5)\nwhile link.recv(1 << 17): pass"))
        most = 200_000
        began = time.monotonic()

        for number in range(most):
            await forwarder.send(SetPeer(number + 1, 0.0))
            if time.monotonic() - began > 0.5:
                break

        assert number < most - 1
        await forwarder.stop()

    story(tell)


@pytest.mark.slow
def test_sender_at_a_full_link_is_released_when_the_forwarder_is_stopped():
    async def send():
        with contextlib.suppress(ForwarderGoneError):
            while True:
                await forwarder.send(SetPeer(1, 0.0))
        released.append(True)

    async def tell():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)
            await trio.sleep(0.5)
            forwarder._process.kill()
            await forwarder.stop()

    released = []
    forwarder = Forwarder(program("time.sleep(100)"))
    story(tell)
    assert released == [True, True]


def test_reader_is_released_when_the_forwarder_is_stopped():
    async def receive():
        with pytest.raises(ForwarderGoneError):
            await forwarder.receive()

    async def tell():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.sleep(0.1)
            await forwarder.stop()

    forwarder = Forwarder(program("link.recv(1)"))
    story(tell)


@pytest.mark.slow
def test_forwarder_that_does_not_end_by_itself_is_killed():
    async def tell():
        forwarder = Forwarder(program("time.sleep(100)"))
        began = time.monotonic()

        assert await forwarder.stop() == "killed by signal 9"
        assert time.monotonic() - began >= STOP_TIME

    story(tell)


def test_forwarder_that_cannot_be_started_is_a_sentence_with_its_program(tmp_path):
    missing, refused = tmp_path / "nothing", tmp_path / "refused"
    refused.touch(mode=0o600)

    with pytest.raises(HostError) as caught:
        Forwarder([str(missing)])
    assert str(caught.value).startswith(
        f"the forwarder could not be started: {missing}: No such file or directory; see what is in its place"
    )
    with pytest.raises(HostError) as caught:
        Forwarder([str(refused)])
    assert str(caught.value).startswith(f"the forwarder could not be started: {refused}: Permission denied; ")


AGENT = """
import sys, time, trio
from overlay.supervision.forwarder import Forwarder
from tests.overlay.supervision.test_forwarder import START
from overlay.link.messages import Begin

async def main():
    import socket
    global kept
    kept = forwarder, *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if sys.argv[1] == "ready":
        await forwarder.send(START, [kept[1].fileno()])
        await forwarder.send(Begin())
        await forwarder.get_ready()

forwarder = Forwarder()
trio.run(main)
print(forwarder.pid, flush=True)
time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting", "ready"])
def test_forwarder_dies_with_its_agent(moment):
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, moment],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with agent:
        pid = int(agent.stdout.readline())
        assert is_alive(pid)
        agent.kill()

    wait_until(lambda: not is_alive(pid), PATIENCE, "the forwarder to end")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="privileges are dropped by root")


@needs_root
def test_one_agents_forwarder_cannot_signal_anothers(tmp_path):
    code = (
        "from overlay.host.process.privileges import drop_all\n"
        "drop_all(int(sys.argv[2]))\n"
        "try: os.kill(int(link.recv(99)), signal.SIGKILL)\n"
        "except PermissionError: link.send(b'refused')\n"
    )

    async def tell():
        with forwarders(tmp_path) as one, forwarders(tmp_path) as other:
            victim, attacker = one(program("time.sleep(100)")), other(program(code))
            attacker._link.send(str(victim.pid).encode())
            await trio.lowlevel.wait_readable(attacker._link)
            assert attacker._link.recv(99) == b"refused"
            victim._process.kill()
            await victim.stop()
            await attacker.stop()

    story(tell)


@pytest.mark.slow
@needs_filter
def test_forwarder_runs_under_a_filter_of_system_calls(tun):
    async def tell():
        async with running(tun) as forwarder:
            assert process_status(forwarder.pid)["Seccomp"] == "2"

    story(tell)


@needs_root
def test_forwarder_of_root_has_no_privilege_left_when_it_is_ready(tun):
    async def tell():
        async with running(tun) as forwarder:
            status = process_status(forwarder.pid)

            assert status["Uid"].split() == status["Gid"].split() == [str(USER_IDS[0])] * 4
            assert status["Groups"] == ""
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[name], 16) == 0
            assert status["NoNewPrivs"] == "1"
            assert status["Threads"] == "1"

    story(tell)


@pytest.mark.slow
@needs_root
def test_forwarder_is_not_dumpable(tun):
    async def tell():
        async with running(tun) as forwarder:
            # The kernel makes root the owner of a process that must not be dumped.
            assert Path(f"/proc/{forwarder.pid}/mem").stat().st_uid == 0

    story(tell)


@pytest.mark.slow
@needs_root
def test_forwarder_has_no_descriptor_but_its_own(tun):
    def kinds(pid):
        return sorted(os.readlink(path).split(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir())

    async def tell():
        leak = os.open("/etc/hostname", os.O_RDONLY)
        try:
            os.set_inheritable(leak, True)
            async with running(tun) as forwarder:
                await drops(forwarder)
                names = kinds(forwarder.pid)
        finally:
            os.close(leak)
        # standard input, two outputs, the link, the tun, the poll
        assert "/etc/hostname" not in names
        assert len(names) == 6

    story(tell)


WITHOUT_CAPABILITIES = """
import os, socket, trio
from overlay.supervision.forwarder import Forwarder
from overlay.host.process import privileges
from overlay.link.messages import Begin
from tests.overlay.supervision.test_forwarder import START

async def main():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    forwarder = Forwarder()
    await forwarder.send(START, [theirs.fileno()])
    await forwarder.send(Begin())
    print(*await forwarder.get_ready(), sep="\\n")
    await forwarder.stop()

privileges.keep_only([])
trio.run(main)
"""


@pytest.mark.slow
@needs_root
def test_forwarder_that_may_not_change_its_user_says_so_and_runs():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CAPABILITIES],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )

    assert done.stdout.splitlines() == [
        "the forwarder keeps privileges: the groups stay as they were: Operation not permitted",
        "the forwarder keeps privileges: the group id stays 0: Operation not permitted",
        "the forwarder keeps privileges: the user id stays 0: Operation not permitted",
    ]


@pytest.mark.slow
def test_forwarder_that_hangs_is_gone_once_it_is_disconnected_and_killed_by_stop(tun):
    async def tell():
        async with running(tun) as forwarder:
            os.kill(forwarder.pid, signal.SIGSTOP)

            forwarder.disconnect()

            with pytest.raises(ForwarderGoneError):
                await forwarder.receive()
            assert await forwarder.stop() == "killed by signal 9"

    story(tell)
