from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns import topology
from tests.netns.topology import NAMESPACES, PREFIX, ROOT, CommandError, Lab, sweep_leftovers, wait_until


def test_hosts_on_a_switch_reach_each_other(lab):
    internet = lab.switch("internet")
    paris, tokyo = lab.namespace("paris"), lab.namespace("tokyo")
    lab.plug(internet, paris.end("eth0", "192.0.2.1/24", "2001:db8::1/64"))
    lab.plug(internet, tokyo.end("eth0", "192.0.2.2/24", "2001:db8::2/64"))

    assert "1 received" in paris.run("ping", "-c1", "-W30", "192.0.2.2")
    wait_until(lambda: "1 received" in paris.run("ping", "-c1", "-W1", "2001:db8::2", check=False))


def test_container_reaches_the_host_by_its_bridge(lab):
    host = lab.namespace("paris")
    web = lab.container(
        host, "web", "10.244.1.2/24", "fd00:244:1::2/64", gateways=("10.244.1.1", "fd00:244:1::1")
    )
    db = lab.container(host, "db", "10.244.1.3/24", gateways=("10.244.1.1",))

    assert "1 received" in web.run("ping", "-c1", "-W30", "10.244.1.1")
    assert "1 received" in web.run("ping", "-c1", "-W30", "10.244.1.3")
    assert "default via 10.244.1.1" in db.run("ip", "route")


def test_sniffer_sees_frames_of_wire_size_without_offloads(lab):
    one, other = lab.namespace("one"), lab.namespace("other")
    lab.veth(one.end("eth0", "192.0.2.1/24"), other.end("eth0", "192.0.2.2/24"), mtu=1400, offloads=False)
    sniffer = other.sniff("eth0")

    one.run("ping", "-c1", "-W30", "-s", "5000", "192.0.2.2")

    assert max(map(len, sniffer.frames())) == 1400 + 14 - 4  # a fragment's payload is a multiple of 8 bytes


def test_failed_command_shows_what_it_said(lab):
    host = lab.namespace("paris")

    with pytest.raises(CommandError, match="does not exist"):
        host.run("ip", "link", "show", "nosuch")


@pytest.mark.usefixtures("lab")  # which skips where there are no namespaces
def test_nothing_is_left_after_an_error():
    lab = Lab()

    with pytest.raises(CommandError), lab:  # noqa: PT012  the error comes from inside
        process = lab.namespace("paris").popen("sleep", "100")
        lab.namespace("tokyo").run("false")

    assert process.returncode is not None
    assert not list(NAMESPACES.glob(f"{PREFIX}{os.getpid()}-*"))


@pytest.mark.usefixtures("lab")
def test_nothing_is_left_of_a_process_that_left_its_group():
    code = "import subprocess; print(subprocess.Popen(['sleep', '100'], start_new_session=True, stdout=-3, stderr=-3).pid)"
    with Lab() as lab:
        pid = int(lab.namespace("paris").python(code))

    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("lab")
def test_namespaces_of_a_killed_run_are_swept(monkeypatch):
    prefix = "swept"  # of its own: tests that run beside this one sweep, too
    monkeypatch.setattr(topology, "PREFIX", prefix)
    code = "import os, signal; from tests.netns.topology import Lab\nwith Lab() as lab: lab.namespace('x'); os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "LAB_PREFIX": prefix}
    )
    killed.wait()
    left = NAMESPACES / f"{prefix}{killed.pid}-x"
    assert left.exists()

    sweep_leftovers()

    assert not left.exists()
