from __future__ import annotations

import re

import pytest

from overlay.diagnosis.finding import Finding
from overlay.diagnosis.kinds import KINDS, Severity, as_markdown, describe
from tests.test_imports import ROOT

DOCUMENT = ROOT / "docs" / "doctor.md"
MAKE = "from overlay.diagnosis.kinds import as_markdown; print(as_markdown(), end='')"
# Functions that take the name of a finding as their first argument
MAKER = re.compile(r'\b(?:Finding|found)\(\s*"([^"]*)"')


def found(pattern):
    """Return the matches of *pattern* in the code of all modules except the registry."""
    paths = (path for path in (ROOT / "overlay").rglob("*.py") if path.name != "kinds.py")
    return {text for path in paths for text in re.findall(pattern, path.read_text())}


def test_every_finding_is_of_a_kind_that_is_registered():
    assert found(MAKER) <= set(KINDS)


def test_every_kind_is_one_that_may_be_found():
    assert set(KINDS) <= found(r'"([a-z][a-z0-9_]*)"')


def test_names_and_sentences_are_of_one_kind():
    for name, kind in KINDS.items():
        assert kind.name == name
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name)
        assert isinstance(kind.severity, Severity)
        for sentence in (kind.meaning, kind.remedy):
            assert sentence
            assert not sentence.endswith(".")
            assert "|" not in sentence


def test_the_document_has_the_registry_s_table():
    assert as_markdown() in DOCUMENT.read_text(), f"write the table that this prints: python -c {MAKE!r}"


def test_a_finding_is_described_with_how_bad_it_is():
    assert describe(Finding("forwarding", "it rains", "run `umbrella`")) == {
        "name": "forwarding",
        "severity": "error",
        "peer": None,
        "problem": "it rains",
        "remedy": "run `umbrella`",
    }
    assert describe(Finding("silent", "it is quiet", peer="tokyo"))["remedy"] is None


def test_describing_a_finding_of_no_kind_fails():
    with pytest.raises(AssertionError, match="nonsense"):
        describe(Finding("nonsense", "it rains"))
