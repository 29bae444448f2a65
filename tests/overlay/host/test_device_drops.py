from __future__ import annotations

from pathlib import Path

import pytest

from overlay.host import device_drops
from overlay.host.device_drops import overruns

# From Linux 6.18, with a tun that nothing read
NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 122531582 1119749    0    1    0     0          0         0 122531582 1119749    0    2    0     0       0          0
overlay0: 848 12    0    7    0     0          0         0 4118328817 148387    0 41969    0     0       0          0
overlay1:848 12 0 0 0 0 0 0 9 9 0 3
"""


@pytest.fixture
def statistics(tmp_path, monkeypatch):
    path = tmp_path / "dev"
    path.write_text(NET_DEV)
    monkeypatch.setattr(device_drops, "STATISTICS", path)
    return path


@pytest.mark.parametrize(
    ("name", "dropped"), [("overlay0", 41969), ("overlay1", 3), ("lo", 2), ("overlay", 0), ("eth0", 0)]
)
def test_what_was_to_leave_and_was_dropped_is_told_by_interface(statistics, name, dropped):
    assert overruns(name) == dropped


@pytest.mark.parametrize("text", ["", "overlay0", "overlay0:", "overlay0: 1 2 3"])
def test_a_kernel_that_says_it_otherwise_is_no_error(statistics, text):
    statistics.write_text(text)

    assert overruns("overlay0") == 0


def test_without_the_file_nothing_is_known(statistics):
    statistics.unlink()

    assert overruns("overlay0") == 0


def test_the_kernel_of_this_host_says_it_so():
    heading = Path("/proc/net/dev").read_text().splitlines()[1].replace("|", " ").split()

    assert heading[1:][device_drops._TX_DROPPED] == "drop"
    assert heading[1:][device_drops._TX_DROPPED - 3] == "bytes"
