"""The level of the log, set while the agent runs."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace

import pytest
import trio

from overlay.answers import log_level
from overlay.records.events import Events
from overlay.records.logs import Log


@pytest.fixture
def running():
    logger, output, events = logging.Logger("test"), logging.StreamHandler(io.StringIO()), Events()
    logger.addHandler(output)
    logger.addHandler(events)
    log = Log(logger, output, events)
    log.set_level("info")
    return SimpleNamespace(log=log)


def ask(running, **request):
    return trio.run(log_level.answer, running, {"op": "log_level"} | request, None)


def test_the_level_is_told(running):
    assert ask(running) == {"ok": True, "schema": 1, "level": "info", "former_level": "info"}


def test_the_level_is_set_and_the_former_one_told(running):
    assert ask(running, level="debug") == {"ok": True, "schema": 1, "level": "debug", "former_level": "info"}
    assert ask(running)["level"] == "debug"


@pytest.mark.parametrize("level", ["debug", "warning"])
def test_the_log_says_that_its_level_was_set(running, level):
    """Even if the new level hides lines of this kind."""
    ask(running, level=level)

    assert running.log.output.stream.getvalue() == f"log level set level={level} was=info\n"
    assert len(running.log.events.tell(9).events) == 1


def test_the_same_level_again_is_no_news(running):
    ask(running, level="info")

    assert running.log.events.tell(9).events == []


@pytest.mark.parametrize("level", ["loud", 7, ["debug"]])
def test_another_word_is_refused(running, level):
    answer = ask(running, level=level)

    assert (answer["ok"], answer["error"]) == (False, "the levels are debug, info, warning, error")
    assert running.log.level == "info"
