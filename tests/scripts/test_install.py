"""scripts/install where it must not make its virtual environment; scripts/check and scripts/test run it otherwise."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

INSTALL = Path(__file__).parents[2] / "scripts" / "install"


def test_an_environment_behind_a_link_is_not_emptied(tmp_path):
    copy, shared = tmp_path / "copy", tmp_path / "shared"
    (copy / "scripts").mkdir(parents=True)
    shared.mkdir()
    (shared / "kept").touch()
    (copy / ".venv").symlink_to(shared)
    shutil.copy(INSTALL, copy / "scripts")

    done = subprocess.run(
        [copy / "scripts" / "install"], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert "is a link, and the directory that it leads to would be emptied: remove the link" in done.stderr
    assert (shared / "kept").exists()
