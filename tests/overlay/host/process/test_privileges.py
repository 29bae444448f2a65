from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlay.host.process.privileges import Capability
from overlay.host.process.user_ids import USER_IDS
from tests.netns.topology import ROOT, wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to drop")


def run(code, **options):
    """Return what a separate process printed after *code*."""
    prologue = "import os, socket, sys, resource\nfrom overlay.host.process.privileges import *\n"
    done = subprocess.run(
        [sys.executable, "-c", prologue + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_root
def test_all_is_dropped_and_nothing_kept():
    assert run("print(drop_all(65520))") == "[]\n"


@needs_root
def test_status_in_proc_shows_no_privilege():
    said = run("drop_all(65520); print(open('/proc/thread-self/status').read())", stdin=subprocess.DEVNULL)

    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    uid = str(USER_IDS[0])
    assert status["Uid"].split() == status["Gid"].split() == [uid] * 4
    assert status["Groups"].split() == []
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


FORBIDDEN = {
    "become root": "os.setuid(0)",
    "read what root may": "open('/etc/shadow')",
    "signal others": "os.kill(1, 0)",
    "start a process": "os.fork()",
    "open a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "mark": "socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)",
    "bind a low port": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(('127.0.0.1', 999))",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    "write where root may": "open('/run/overlay-test', 'w')",
    "look into itself by /proc": "open('/proc/self/mem')",  # not dumpable: root owns it
}


@needs_root
@pytest.mark.parametrize("what", FORBIDDEN)
def test_afterwards_one_cannot(what):
    code = f"drop_all(65520)\ntry: {FORBIDDEN[what]}\nexcept (OSError, ValueError): print('refused')\nelse: print('done')"

    assert run(code) == "refused\n"


@needs_root
def test_descriptors_go_on_to_work():
    code = (
        "a, b = socket.socketpair(); drop_all(65520)\n"
        "a.send(b'x'); print(b.recv(1)); socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(('127.0.0.1', 0))"
    )

    assert run(code) == "b'x'\n"


@needs_root
def test_what_cannot_be_dropped_without_root_is_told():
    said = run(
        "os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)\nprint(*drop_all(65520), "
        "sep='\\n')"
    )

    assert said.splitlines() == [
        "the groups stay as they were: Operation not permitted",
        "the group id stays 1000: Operation not permitted",
        "the user id stays 1000: Operation not permitted",
    ]


@needs_root
def test_user_id_stays_if_asked():
    assert run("print(drop_all(uid=None), os.getuid())") == "[] 0\n"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@needs_root
def test_forwarder_dies_with_its_parent():
    code = (
        "import os, sys, time; from overlay.host.process.privileges import drop_all\n"
        "parent = os.getpid(); child = os.fork()\n"
        "if child == 0: drop_all(65520, parent=parent); os.write(1, b'%d\\n' % os.getpid())\n"
        "time.sleep(100)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()

    wait_until(lambda: not is_running(child))


@needs_root
def test_forwarder_whose_parent_is_dead_already_ends_at_once():
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "from overlay.host.process.privileges import drop_all; drop_all(65520, parent=1 << 22)",
        ],
        cwd=ROOT,
        check=False,
    )

    assert process.returncode == -9


@needs_root
def test_agent_keeps_what_it_names_and_gives_no_more_to_children():
    code = (
        "import subprocess; print(keep_only({Capability.NET_ADMIN, Capability.KILL}))\n"
        "print(sorted(map(str, missing(Capability))))\n"
        "print(subprocess.run(['grep', 'Cap', '/proc/self/status'], capture_output=True, text=True).stdout)"
    )

    said = run(code).splitlines()

    assert said[0] == "[]"
    others = sorted(str(each) for each in set(Capability) - {Capability.NET_ADMIN, Capability.KILL})
    assert said[1] == str(others)
    held = f"{1 << Capability.NET_ADMIN | 1 << Capability.KILL:016x}"
    assert dict(line.split() for line in said[2:] if line) == {
        "CapInh:": "0" * 16,
        "CapPrm:": held,
        "CapEff:": held,
        "CapBnd:": held,
        "CapAmb:": "0" * 16,
    }


@needs_root
def test_user_without_root_gives_up_what_it_has_and_what_an_exec_could_give():
    code = (
        "os.setresuid(1000, 1000, 1000); print(keep_only({Capability.NET_ADMIN}))\n"
        "print(open('/proc/thread-self/status').read())"
    )

    first, *rest = run(code).splitlines()

    status = dict(line.split(":\t", 1) for line in rest if ":\t" in line)
    assert first == "[]"
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


@needs_root
def test_forwarder_of_a_user_without_root_keeps_nothing_that_is_worth_a_note():
    assert run("os.setresuid(1000, 1000, 1000); print(drop_all(None))") == "[]\n"


@needs_root
def test_forwarder_of_a_restricted_agent_still_drops_all():
    code = (
        "import subprocess\n"
        "keep_only({Capability.SETUID, Capability.SETGID, Capability.SETPCAP, Capability.NET_ADMIN})\n"
        "code = 'from overlay.host.process.privileges import *; print(drop_all(65520), missing(Capability) == "
        "set(Capability))'\nprint(subprocess.run([sys.executable, '-c', code], capture_output=True, "
        "text=True).stdout, end='')"
    )

    assert run(code) == "[] True\n"


def test_missing_names_what_an_ordinary_user_lacks():
    if os.geteuid() == 0:
        said = run("drop_all(65520); print(missing({Capability.NET_ADMIN, Capability.NET_RAW}) == {12, 13})")
    else:
        said = run("print(missing({Capability.NET_ADMIN, Capability.NET_RAW}) == {12, 13})")

    assert said == "True\n"


def test_capability_has_the_name_of_the_manuals():
    assert str(Capability.NET_ADMIN) == "CAP_NET_ADMIN"
