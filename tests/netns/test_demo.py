"""scripts/demo: it shows what it should, and leaves nothing behind however it ends."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.topology import NAMESPACES, ROOT

PATIENCE = 200


@pytest.fixture
def demo(_requirements, request):
    """Starts the demo of three hosts, or with the options in the parameter; whatever it leaves behind is removed."""
    if _requirements or not shutil.which("nft"):
        pytest.skip(_requirements or "nft is not installed")
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.demos", *getattr(request, "param", ())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    process.stdout.close()
    name = f"overlay-demo-{process.pid}"
    if left(name):
        subprocess.run(
            [sys.executable, "-m", "scripts.demos", "--stop", name], cwd=ROOT, timeout=PATIENCE, check=False
        )


def left(name):
    """Return what exists of the demo *name*."""
    return [path for folder in (NAMESPACES, Path("/tmp")) for path in folder.glob(f"{name}*")]


@pytest.mark.parametrize("demo", [["--services"]], indirect=True, ids=["services"])
def test_demo_of_services_shows_every_step_and_leaves_nothing(demo):
    shown, _ = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0, shown
    assert "the sha256 is right" in shown
    assert "✘" not in shown
    assert left(f"overlay-demo-{demo.pid}") == []


def test_demo_that_is_interrupted_leaves_nothing(demo):
    for line in demo.stdout:
        if "ready after" in line:
            break
    demo.send_signal(signal.SIGINT)
    shown, _ = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 130, shown
    assert left(f"overlay-demo-{demo.pid}") == []


def test_demo_that_fails_says_why_and_leaves_nothing(demo):
    for line in demo.stdout:
        if "ready after" in line:
            break
    # An agent ends during the demo
    for pid in subprocess.run(
        ["ip", "netns", "pids", f"overlay-demo-{demo.pid}-tokyo"], capture_output=True, text=True, check=True
    ).stdout.split():
        subprocess.run(["kill", "-9", pid], check=False)
    shown, _ = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 1, shown
    # whichever is noticed first: that the agent has ended, or that the current step does not finish
    assert "The demo failed: " in shown
    assert re.search("agent of tokyo (has )?ended with exit code -9", shown)
    assert "Traceback" not in shown
    assert left(f"overlay-demo-{demo.pid}") == []


@pytest.fixture
def _etcd(_requirements):
    if _requirements or not shutil.which("etcd"):
        pytest.skip(_requirements or "etcd is not installed (Debian: etcd-server)")


@pytest.mark.usefixtures("_etcd")
def test_demo_of_containers_shows_every_step_and_leaves_nothing():
    """With podman if it is installed, otherwise with the plugin called as a runtime calls it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.demos", "--containers"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        shown, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        shown, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, shown
    assert "no longer have a route to its containers" in shown
    assert left(f"overlay-demo-{process.pid}") == []
