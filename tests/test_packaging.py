"""The contents of pyproject.toml; scripts/package builds and tests the result."""

from __future__ import annotations

import re
import tomllib

from tests.test_imports import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_each_tool_of_development_has_one_version():
    tools = [tool for group in SETTINGS["dependency-groups"].values() for tool in group]

    assert [tool for tool in tools if not re.fullmatch(r"[\w-]+==[\w.]+(; .+)?", tool)] == []


def test_every_package_tells_type_checkers_that_it_has_types():
    packages = [name.rstrip("*") for name in SETTINGS["tool"]["setuptools"]["packages"]["find"]["include"]]

    assert [name for name in packages if not (ROOT / name / "py.typed").is_file()] == []


def test_no_index_takes_the_package_while_there_is_no_licence():
    licences = [
        path for path in ROOT.iterdir() if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING"))
    ]

    assert bool(licences) != ("Private :: Do Not Upload" in SETTINGS["project"]["classifiers"])


def test_every_file_of_the_compiled_path_is_built_and_a_header_is_known_to_be():
    (extension,) = SETTINGS["tool"]["setuptools"]["ext-modules"]
    folder = ROOT / "overlay/forwarding/native"

    assert [ROOT / name for name in extension["sources"]] == sorted(folder.glob("*.c"))
    assert [ROOT / name for name in extension["depends"]] == sorted(folder.glob("*.h"))
    assert extension["optional"]
