"""The extension is loaded only if it matches the sources next to it."""

from __future__ import annotations

import os

import pytest

from overlay.forwarding import native


@pytest.mark.parametrize(("source", "is_outdated"), [(100, False), (200, False), (201, True)])
@pytest.mark.parametrize("name", ["in.c", "native.h"])
def test_what_is_older_than_its_sources_is_not_loaded(tmp_path, name, source, is_outdated):
    """Before, the old extension met new Python after a pull, and the agent ended with a traceback."""
    (tmp_path / "pyproject.toml").touch()
    library = tmp_path / "_core.abi3.so"
    for path, time in ((library, 200), (tmp_path / name, source), (tmp_path / "out.c", 100)):
        path.touch()
        os.utime(path, (time, time))

    assert native.is_outdated(library, tmp_path) is is_outdated


def test_what_was_installed_is_never_outdated(tmp_path):
    """An installer writes the files of a package one after the other, with sources, if any, last."""
    library = tmp_path / "_core.abi3.so"
    for path, time in ((library, 200), (tmp_path / "in.c", 201)):
        path.touch()
        os.utime(path, (time, time))

    assert not native.is_outdated(library, tmp_path)
