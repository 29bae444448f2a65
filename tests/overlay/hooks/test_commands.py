"""Hooks: which files are run, with what input, and that the agent waits for none of them."""

from __future__ import annotations

import json
import logging
import os
import pwd
import tempfile
from pathlib import Path

import pytest
import trio

from overlay.hooks import commands as hooks
from overlay.hooks.commands import MOST_WAITING, Hook, Hooks, find
from overlay.hooks.happening import EVENTS, tell_nobody

SAVE = """#!/bin/sh
cat > {path}.$$ && id -u > {path}.user && echo "$OVERLAY_EVENT" > {path}.event && mv {path}.$$ {path}
"""


@pytest.fixture
def directory():
    """Return a directory for hooks, and beside it one that anybody may write to.

    That of pytest is closed to users without privileges.
    """
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        for each in ("hooks.d", "told"):
            (base / each).mkdir()
            (base / each).chmod(0o755)
        (base / "told").chmod(0o777)
        yield base / "hooks.d"


def put(directory, name, text, mode=0o755):
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def run(directory, *told, until=None):
    """Run hooks for the events *told* until *until* returns true, and end them as the agent does."""
    running = Hooks(directory, lambda: {"node": "paris", "interface": "overlay0"})

    async def main():
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.run)
                for event, fields in told:
                    running.tell(event, **fields)
                while until is not None and not until():
                    await trio.sleep(0.01)
                await trio.sleep(0)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_hook_gets_what_happened_as_json_and_has_no_privileges(directory):
    told = directory.parent / "told" / "x"
    put(directory, "peer-up", SAVE.format(path=told))

    run(directory, ("peer-up", {"peer": "to'ky\"o; $(id)", "endpoint": None}), until=told.exists)

    said = json.loads(told.read_text())
    assert said.pop("timestamp_seconds") > 1_600_000_000
    assert said == {
        "schema": 1,
        "event": "peer-up",
        "node": "paris",
        "interface": "overlay0",
        "peer": "to'ky\"o; $(id)",
        "endpoint": None,
    }
    assert told.with_suffix(".event").read_text() == "peer-up\n"
    if not os.geteuid():
        names = ("overlay_script", "keepalived_script", "nobody")
        known = {str(each.pw_uid) for each in pwd.getpwall() if each.pw_name in names}
        assert told.with_suffix(".user").read_text().strip() in known


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_hook_in_the_directory_for_root_runs_as_the_agent(directory):
    told = directory.parent / "told" / "x"
    put(directory, "root/up.mine", SAVE.format(path=told))

    run(directory, ("up", {}), until=told.exists)

    assert told.with_suffix(".user").read_text() == "0\n"


def test_files_are_meant_by_their_names_and_run_in_their_order(directory):
    for name in ("up", "up.b", "up.a", "uproar", "README", "down", "root/up.c"):
        put(directory, name, "#!/bin/sh\n")

    assert find(directory, "up") == [
        Hook(directory / "up", False),
        Hook(directory / "up.a", False),
        Hook(directory / "up.b", False),
        Hook(directory / "root" / "up.c", True),
    ]
    assert find(directory / "none", "up") == []


def test_copies_that_are_left_aside_are_neither_run_nor_told_of(directory, caplog):
    ends = ("~", ".bak", ".orig", ".old", ".disabled", ".swp", ".example", ".dpkg-old", ".rpmsave")
    for end in ends:
        put(directory, f"up.mine{end}", "#!/bin/sh\n", 0o644)
        put(directory, f"up{end}", "#!/bin/sh\n", 0o644)

    assert find(directory, "up") == []
    assert hooks.strangers(directory) == []
    assert caplog.text == ""


def test_file_whose_name_is_that_of_no_event_is_told_of_once(directory, caplog):
    told = directory.parent / "told" / "x"
    for name in ("peerdown", "root/peer_up.x", "else", "README.md", ".hidden"):
        put(directory, name, "#!/bin/sh\n")
    put(directory, "reload", SAVE.format(path=told))

    run(directory, ("up", {}), ("reload", {}), until=told.exists)

    lines = [
        record.getMessage()
        for record in caplog.records
        if "it is not named after an event" in record.getMessage()
    ]
    assert [line.partition("; ")[2] for line in lines] == [
        "events are up, down, peer-up, peer-down, reload, service",
        "did you mean peer-down?",
        "did you mean peer-up?",
    ]


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o777, "can be written by others"), (0o644, "is not a program"), (0o000, "is not a program")],
)
def test_hook_that_others_can_change_or_that_is_no_program_is_refused(directory, mode, said, caplog):
    put(directory, "up", "#!/bin/sh\n", mode)

    assert find(directory, "up") == []
    assert said in caplog.text


def test_hook_in_a_directory_that_others_can_write_is_refused(directory, caplog):
    put(directory, "up", "#!/bin/sh\n")
    directory.chmod(0o777)

    assert find(directory, "up") == []
    assert "whoever can change it can run programs here" in caplog.text


def test_link_to_a_file_that_others_can_change_is_refused(directory, caplog):
    put(directory.parent, "elsewhere", "#!/bin/sh\n", 0o777)
    (directory / "up").symlink_to(directory.parent / "elsewhere")
    (directory / "up.gone").symlink_to(directory.parent / "nothing")

    assert find(directory, "up") == []
    assert "can be written by others" in caplog.text
    assert "it is a link to a file that is missing: install that, or correct the link" in caplog.text


def test_directory_with_the_name_of_an_event_is_refused(directory, caplog):
    (directory / "up.d").mkdir()

    assert find(directory, "up") == []
    assert "up.d: it is not a file; move it out of the directory of hooks" in caplog.text


@pytest.mark.slow
def test_hook_that_hangs_is_ended_and_the_next_event_has_its_turn(directory, monkeypatch, caplog):
    monkeypatch.setattr(
        hooks, "TIMEOUT", 0.2
    )  # which the second hook may need as well: then it is ended, too
    caplog.set_level(logging.DEBUG)
    put(directory, "up", "#!/bin/sh\nsleep 1000 & sleep 1000\n")
    put(directory, "reload", "#!/bin/sh\n")

    run(directory, ("up", {}), ("reload", {}), until=lambda: "event=reload" in caplog.text)

    assert f"hook ended after 0.2 s path={directory}/up event=up" in caplog.text


def test_hook_that_fails_or_cannot_be_started_is_told_of(directory, caplog):
    told = directory.parent / "told" / "x"
    put(directory, "up.1", "#!/bin/sh\nexit 3\n")
    put(directory, "up.2", "#!/no/such/interpreter\n")
    put(directory, "up.4", "#!/bin/sh\r\n")
    put(directory, "up.3", "#!/bin/sh\n# reads nothing\n")
    put(directory, "reload", SAVE.format(path=told))

    run(directory, ("up", {"much": "x" * 200_000}), ("reload", {}), until=told.exists)

    assert "status=3" in caplog.text
    assert (
        "up.2 event=up: its first line names the interpreter /no/such/interpreter, which is missing"
        in caplog.text
    )
    assert "up.4 event=up: its lines end with CR LF" in caplog.text


def test_end_of_the_agent_runs_the_last_hook(directory, monkeypatch):
    monkeypatch.setattr(hooks, "LAST_TIMEOUT", 60.0)
    told = directory.parent / "told" / "x"
    put(directory, "down", SAVE.format(path=told))

    run(directory)

    assert json.loads(told.read_text())["event"] == "down"


@pytest.mark.slow
def test_end_of_the_agent_waits_for_no_hook_longer_than_its_time(directory, monkeypatch, caplog):
    monkeypatch.setattr(hooks, "LAST_TIMEOUT", 0.1)
    put(directory, "down", "#!/bin/sh\nsleep 1000\n")

    run(directory)

    assert "hook ended after 0.1 s" in caplog.text


def test_of_a_peer_that_comes_and_goes_the_last_event_counts(directory):
    running = Hooks(directory, dict)
    for turn in range(10):
        running.tell("peer-up", peer="tokyo", turn=turn)
        running.tell("peer-down", peer="tokyo", turn=turn)
        running.tell("peer-up", peer="lima")

    waiting = [(each.event, each.fields["peer"]) for each in running._waiting]
    assert waiting == [("peer-down", "tokyo"), ("peer-up", "lima")]


def test_too_many_events_are_left_out_and_counted(directory, caplog):
    caplog.set_level(logging.WARNING)
    running = Hooks(directory, dict)
    for number in range(MOST_WAITING + 5):
        running.tell("service", service=str(number))

    assert len(running._waiting) == MOST_WAITING
    assert running._left_out == 5


def test_every_event_is_one_that_is_known(directory):
    with pytest.raises(AssertionError):
        Hooks(directory, dict).tell("nothing")
    assert [tell_nobody(event) for event in EVENTS] == [None] * len(EVENTS)


def test_link_that_others_could_put_elsewhere_is_refused(directory, caplog):
    shared = directory.parent / "told"
    (shared / "program").symlink_to("/bin/true")
    (directory / "up").symlink_to(shared / "program")
    (directory / "up.true").symlink_to("/bin/true")
    directory.parent.joinpath("sticky").mkdir()
    directory.parent.joinpath("sticky").chmod(0o1777)
    theirs = directory.parent / "sticky" / "up"
    theirs.symlink_to("/bin/true")
    if os.geteuid() == 0:
        os.lchown(theirs, 65534, 65534)
        (directory / "up.theirs").symlink_to(theirs)

    assert [hook.path.name for hook in find(directory, "up")] == ["up.true"]
    assert f"{shared} can be written by others" in caplog.text


def test_directory_of_hooks_that_others_can_write_is_refused_though_it_leads_to_programs_of_root(directory):
    (directory / "up").symlink_to("/bin/true")
    assert len(find(directory, "up")) == 1

    directory.chmod(0o777)
    assert find(directory, "up") == []
