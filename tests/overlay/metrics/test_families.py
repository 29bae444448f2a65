from __future__ import annotations

import re

from overlay.metrics.families import COUNTER, FAMILIES, GAUGE, INFO, as_markdown
from tests.test_imports import ROOT

DOCUMENT = ROOT / "docs" / "metrics.md"
UNITS = ("bytes", "seconds", "ratio")
OTHER_UNITS = re.compile(r"_(ms|us|kb|mb|bits|percent|minutes|milliseconds)(_|$)")
MAKE = "from overlay.metrics.families import as_markdown; print(as_markdown(), end='')"


def test_names_follow_the_conventions_of_prometheus():
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"overlay_[a-z][a-z0-9_]*", name)
        assert name.endswith("_total") == (family.kind == COUNTER), name
        assert name.endswith("_info") == (family.kind == INFO), name
        assert not OTHER_UNITS.search(name), name
        assert family.kind in {COUNTER, GAUGE, INFO}


def test_help_is_a_sentence_and_labels_are_names():
    for name, family in FAMILIES.items():
        assert family.help.endswith("."), name
        assert not {"\n", '"', "|"} & set(family.help), name
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in family.labels), name


def test_document_has_the_table_of_the_registry():
    assert as_markdown() in DOCUMENT.read_text(), f'python -c "{MAKE}" makes it'
