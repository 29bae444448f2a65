from __future__ import annotations

import platform
from importlib import metadata
from types import SimpleNamespace

import pytest

from overlay.forwarding import native
from overlay.forwarding.native.aes import choose_aes
from tests.test_imports import ROOT

PACKAGES = [
    "click",
    "cryptography",
    "dnspython",
    "h11",
    "msgpack",
    "numpy",
    "pyroute2",
    "regex",
    "segno",
    "textual",
    "trio",
]


def test_version_tells_what_the_command_is_and_runs_on(overlay):
    result = overlay("--version")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"overlay {metadata.version('overlay')}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"{platform.system()} {platform.release()} {platform.machine()}",
        *(f"{name} {metadata.version(name)}" for name in PACKAGES),
        f"packet path {native.describe()}",
        *([] if native.core is None else [f"AES of bulk units by {choose_aes(native.core)}"]),
    ]


@pytest.mark.parametrize(
    ("core", "missing", "told"),
    [
        (SimpleNamespace(LIBRARY="OpenSSL 3.0.19"), "", "compiled, with OpenSSL 3.0.19"),
        (None, native.NOT_BUILT, f"interpreted: {native.NOT_BUILT}"),
        (None, "OVERLAY_NATIVE=0", "interpreted: OVERLAY_NATIVE=0"),
    ],
)
def test_version_tells_which_packet_path_there_is_and_why(monkeypatch, core, missing, told):
    monkeypatch.setattr(native, "core", core)
    monkeypatch.setattr(native, "missing", missing)

    assert native.describe() == told


def test_everything_that_is_required_is_reported():
    text = (ROOT / "pyproject.toml").read_text()
    required = text.partition("\ndependencies = [\n")[2].partition("\n]\n")[0]

    assert [line.split('"')[1].partition(">")[0] for line in required.splitlines()] == PACKAGES


@pytest.fixture
def installed(monkeypatch):
    """The versions of installed packages; one without a version is not installed."""
    versions = {name: metadata.version(name) for name in ("overlay", *PACKAGES)}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    return versions


def test_a_missing_package_is_reported(overlay, installed):
    del installed["numpy"]

    assert "numpy is not installed" in overlay("--version").stdout.splitlines()


def test_a_source_tree_that_is_not_installed_is_reported(overlay, installed):
    del installed["overlay"]

    result = overlay("--version")

    assert result.exit_code == 0
    assert result.stdout.startswith("overlay from a source tree, not installed\n")
