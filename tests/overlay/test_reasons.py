from __future__ import annotations

import re

import pytest

from overlay.errors import PacketError
from overlay.reasons import REASONS, Cause, Drops, as_markdown
from tests.test_imports import ROOT

DOCUMENT = ROOT / "docs" / "drops.md"
MAKE = "from overlay.reasons import as_markdown; print(as_markdown(), end='')"


def quoted():
    """Return all short lower-case strings in the code, except in the registry."""
    paths = (path for path in (ROOT / "overlay").rglob("*.py") if path.name != "reasons.py")
    return {text for path in paths for text in re.findall(r'"([a-z][a-z0-9_]*)"', path.read_text())}


def test_every_reason_is_one_that_the_code_counts():
    named = quoted() | {f"{encapsulation}_key" for encapsulation in ("gre",)}

    assert set(REASONS) <= named


def test_names_and_sentences_are_of_one_kind():
    for name, reason in REASONS.items():
        assert reason.name == name
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name)
        assert isinstance(reason.cause, Cause)
        assert reason.sentence
        assert reason.sentence[0].islower()
        assert not reason.sentence.endswith(".")
        assert "|" not in reason.sentence


def test_counting_for_a_reason_that_is_not_registered_fails():
    drops = Drops()
    drops["replay"] += 2

    with pytest.raises(AssertionError, match="nonsense"):
        drops["nonsense"] += 1
    with pytest.raises(AssertionError, match="nonsense"):
        PacketError("nonsense")

    assert drops == {"replay": 2}


def test_asking_for_a_reason_counts_nothing():
    drops = Drops()

    assert drops["replay"] == 0
    assert not drops


def test_the_document_has_the_registry_s_table():
    text = DOCUMENT.read_text()

    assert as_markdown() in text, f"write the table that this prints: python -c {MAKE!r}"
