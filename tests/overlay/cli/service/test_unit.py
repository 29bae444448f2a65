"""The unit: what systemd reads of it, and what it says of how much the agent may do."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from overlay.cli.service.unit import MARK, build, name_of, quote

MOST = 4.0  # of 10, as systemd-analyze security rates it

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def unit(tmp_path):
    path = tmp_path / name_of("overlay0")
    path.write_text(
        build("overlay0", ["/bin/true", "up", "--peers", "/etc/peers of %all.toml"], uses_tmp=False)
    )
    return path


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("--peers", "--peers"),
        ("etcd://192.0.2.1:2379/net", "etcd://192.0.2.1:2379/net"),
        ("a b", '"a b"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "\\"', '"say \\"\\\\\\""'),
        ("", '""'),
        (";", '";"'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word, quoted):
    assert quote(word) == quoted


@pytest.mark.parametrize("word", ["a\nExecStartPre=/bin/sh", "\0", "\x1b"])
def test_word_that_would_begin_another_line_is_refused(word):
    with pytest.raises(ValueError, match=re.escape(word)):
        quote(word)


def test_unit_begins_with_its_mark_and_each_exception_has_its_reason(unit):
    text = unit.read_text()

    assert text.startswith(MARK)
    for name in ("PrivateDevices", "ProtectKernelTunables", "PrivateNetwork", "DAC_READ_SEARCH"):
        assert name in text


def test_temporary_files_of_the_host_are_there_if_they_are_used():
    assert "PrivateTmp=yes" in build("a", ["/b"], uses_tmp=False)
    assert "PrivateTmp=no" in build("a", ["/b"], uses_tmp=True)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_it(unit):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert unit.name not in done.stdout + done.stderr
    assert done.returncode == 0


@needs_systemd
def test_systemd_finds_it_well_confined(unit):
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST
