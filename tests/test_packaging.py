"""What pyproject.toml says; scripts/package builds and tries the result."""

from __future__ import annotations

import re
import tomllib

from tests.test_imports import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_each_tool_of_development_has_one_version():
    tools = [tool for group in SETTINGS["dependency-groups"].values() for tool in group]

    assert [tool for tool in tools if not re.fullmatch(r"[\w-]+==[\w.]+", tool)] == []


def test_every_package_tells_type_checkers_that_it_has_types():
    packages = SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert [name for name in packages if not (ROOT / name / "py.typed").is_file()] == []


def test_no_index_takes_the_package_while_there_is_no_licence():
    licences = [
        path for path in ROOT.iterdir() if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING"))
    ]

    assert bool(licences) != ("Private :: Do Not Upload" in SETTINGS["project"]["classifiers"])
