from __future__ import annotations

import os
import re
import socket
import time

import pytest

from overlay.host.process import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """The service manager's end of the protocol."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@overlay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(address.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield manager


def test_ready_comes_with_its_status(manager):
    notify.ready("3 peers")

    assert manager.recv(1000) == b"READY=1\nSTATUS=3 peers"


def test_reload_tells_the_monotonic_time_it_began(manager):
    before = time.monotonic_ns() // 1000

    notify.reloading()

    match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", manager.recv(1000))
    assert before <= int(match[1]) <= time.monotonic_ns() // 1000


def test_stop_is_told(manager):
    notify.stopping()

    assert manager.recv(1000) == b"STOPPING=1"


def test_status_is_one_line(manager):
    notify.status("waiting\nREADY=1")

    assert manager.recv(1000) == b"STATUS=waiting READY=1"


def test_nothing_happens_without_a_manager(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    notify.ready()


@pytest.mark.parametrize("address", ["/nonexistent/notify", "vsock:2:1234", ""])
def test_manager_out_of_reach_is_no_error(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify.ready()
