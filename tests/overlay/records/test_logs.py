"""The form of log lines."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import sys

import pytest

from overlay.records.events import Events
from overlay.records.logs import JournalFormatter, Log, TerminalFormatter, current, is_journal, to_syslog


def record(level=logging.INFO, text="ready node=%s", error=None):
    return logging.LogRecord("overlay", level, __file__, 1, text, ("paris",), error)


def test_line_for_people_has_the_time_with_its_zone():
    line = TerminalFormatter().format(record())

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d INFO ready node=paris", line)


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_line_for_the_journal_begins_with_its_priority(level, priority):
    assert JournalFormatter().format(record(level)) == f"<{priority}>ready node=paris"


def test_each_line_of_a_traceback_has_the_priority():
    try:
        raise ValueError("a bug")
    except ValueError:
        lines = JournalFormatter().format(record(logging.ERROR, error=sys.exc_info())).splitlines()

    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_the_journal_is_where_systemd_says(tmp_path):
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

        assert is_journal(stream, environment)
        assert not is_journal(other, environment)
        assert not is_journal(stream, {})
        assert not is_journal(stream, {"JOURNAL_STREAM": "nonsense"})
        assert not is_journal(io.StringIO(), environment)


@pytest.mark.parametrize("formatter", [TerminalFormatter(), JournalFormatter()])
def test_what_others_wrote_stays_on_its_line_and_moves_no_cursor(formatter):
    record = logging.LogRecord(
        "overlay", logging.INFO, __file__, 1, "peer=%s", ("\x1b[2J\nERROR forged\u202e",), None
    )

    assert formatter.format(record).endswith("peer=\\x1b[2J\\nERROR forged\\u202e")


def test_traceback_keeps_its_lines_and_shows_nothing_else():
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = logging.LogRecord("overlay", logging.ERROR, __file__, 1, "bug", (), sys.exc_info())

    lines = TerminalFormatter().format(record).splitlines()

    assert len(lines) >= 4
    assert lines[-1] == "ValueError: \\x1b[2J"
    assert all(line.isprintable() for line in lines)


@pytest.fixture
def log():
    """A log that is written to a text."""
    output, events, logger = logging.StreamHandler(io.StringIO()), Events(), logging.Logger("test")
    logger.addHandler(output)
    logger.addHandler(events)
    made = Log(logger, output, events)
    made.set_level("info")
    return made


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_are_written_from_the_level_on_that_is_set(log, level):
    log.set_level(level)
    for each in ("debug", "info", "warning", "error"):
        getattr(log.logger, each)(each)

    lines = log.output.stream.getvalue().split()
    assert lines[0] == log.level == level
    assert lines[-1] == "error"


def test_events_are_kept_from_info_on_whatever_is_written(log):
    log.set_level("error")
    log.logger.debug("debug")
    log.logger.info("info")

    assert log.output.stream.getvalue() == ""
    assert [event.text for event in log.events.tell(9, least="debug").events] == ["info"]


def test_a_process_that_logs_nothing_has_a_log_all_the_same():
    """For example a test that runs an agent in its own process."""
    log = current()
    log.set_level("debug")

    assert log.level == "debug"
    assert log.events.tell(9).events == []


def test_debugging_is_kept_once_it_is_written(log):
    log.set_level("debug")
    log.logger.debug("debug")

    assert [event.text for event in log.events.tell(9, least="debug").events] == ["debug"]


def test_syslog_gets_the_message_with_its_priority(tmp_path):
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        output = to_syslog("overlay-wg", path)

        output.emit(record(logging.WARNING, "two\nlines of %s"))
        output.close()

        # Facility 3 (daemon), severity 4 (warning)
        assert system.recv(1000).decode() == rf"<28>overlay-wg[{os.getpid()}]: two\nlines of paris"


def test_without_a_syslog_nothing_is_logged(tmp_path):
    assert isinstance(to_syslog("overlay-wg", str(tmp_path / "log")), logging.NullHandler)
