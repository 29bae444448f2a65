from __future__ import annotations

import pytest
import trio

from overlay import answers
from overlay.answers import QUESTIONS
from tests.test_imports import ROOT

SHARED = {
    "__init__",
    "asked_container",
    "elsewhere",
    "readiness",
    "running",
}  # what several questions or their answers use


def test_every_question_has_a_file_of_its_name_and_every_file_is_a_question():
    files = {path.stem for path in (ROOT / "overlay" / "answers").glob("*.py")} - SHARED

    assert set(QUESTIONS) == files
    assert all(question.__module__ == f"overlay.answers.{name}" for name, question in QUESTIONS.items())


@pytest.mark.parametrize(
    "request_", [{}, {"op": "fly"}, {"op": None}, {"op": ["status"]}, {"op": {}}, {"op": 7}]
)
def test_what_nobody_knows_is_refused_in_one_sentence(request_):
    reply = trio.run(answers.answer, None, request_, None)

    assert reply == {"ok": False, "kind": "failed", "error": "this agent does not know that request"}
