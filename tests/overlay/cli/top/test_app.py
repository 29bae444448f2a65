"""The screen, controlled by keys."""

from __future__ import annotations

import asyncio
import html
import re
import threading

import pytest

from overlay.cli.exits import Failure
from overlay.cli.top.app import Top
from overlay.cli.top.model import Snapshot
from overlay.host.control import NoAgentError
from tests.hostile_names import NAMES
from tests.overlay.cli.top.test_model import counted, event, status


class Source:
    """Tells one snapshot after the other, as often as it is let; then the last again."""

    interface, pause = "overlay0", 0.2

    def __init__(self, *told):
        self.told, self.asked = list(told), []
        self.hangs = threading.Event()
        self.hangs.set()

    def read(self, visible):
        self.hangs.wait(30)
        self.asked.append(list(visible))
        told = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(told, Exception):
            raise told
        return told


def snapshot(*peers, at=1.0, events=(), services=None, **fields):
    return Snapshot(at, status(*peers, **fields), services, events)


def many(number):
    return [
        counted(f"peer{each:05d}", each, each, state="up" if each % 2 else "silent") for each in range(number)
    ]


def screen(app):
    """Return the lines of the terminal."""
    lines = {}
    for number, text in re.findall(r'<text[^>]*-line-(\d+)\)"[^>]*>(.*?)</text>', app.export_screenshot()):
        lines[int(number)] = lines.get(int(number), "") + html.unescape(text).replace("\xa0", " ")
    return [lines.get(number, "").rstrip() for number in range(app.size.height)]


def play(story, *told, size=(80, 24), **fields):
    """Run ``async def story(app, pilot)`` with a screen that shows the snapshots *told*."""
    source = Source(*told)
    app = Top(source, **fields)

    async def run():
        async with app.run_test(size=size) as pilot:
            await wait(pilot, lambda: source.asked)
            await pilot.pause()
            await story(app, pilot)

    asyncio.run(run())
    return app, source


async def wait(pilot, condition):
    for _ in range(1000):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.01)
    raise AssertionError("the screen does not come to that")


def shows(app, text):
    return lambda: text in "\n".join(screen(app))


def test_peers_services_and_events_are_on_the_screen():
    async def story(app, pilot):
        await wait(pilot, shows(app, "tokyo"))
        lines = screen(app)
        assert lines[0] == "paris overlay0  1 peer: 1 up  up 1 h 2 min  mtu 1420"
        assert lines[2].startswith("PEER")
        assert lines[3].startswith("tokyo    up")
        assert "service web  up  1 of 2 servers up  3.0 connections/s" in lines
        assert any(line.endswith("INFO ready") for line in lines)
        assert "q Quit" in lines[-1]
        assert "p Pause" in lines[-1]

    servers = [{"state": "up"}, {"state": "down"}]
    web = {
        "name": "web",
        "state": "up",
        "servers": servers,
        "connections_per_s": 3.0,
        "director": {"active": "paris"},
    }
    play(
        story,
        snapshot(counted("tokyo", 1, 1), events=[event(1)], services=[web]),
        snapshot(counted("tokyo", 1, 1)),
    )


@pytest.mark.parametrize(
    ("size", "services", "events"), [((80, 24), 4, 5), ((40, 15), 2, 2), ((20, 8), 0, 1)]
)
def test_what_is_long_is_bounded_and_cut_and_leaves_half_of_the_lines_to_peers(size, services, events):
    async def story(app, pilot):
        await wait(pilot, shows(app, "INFO"))
        lines = screen(app)
        assert all(len(line) <= size[0] for line in lines)
        assert lines[0].startswith("paris")
        assert sum(line.startswith("service") for line in lines) == services
        assert any(f"{8 - services}{' more' if services else ''} services" in line for line in lines)
        assert sum("INFO" in line for line in lines) == events
        assert sum(line.startswith("peer") for line in lines) >= (size[1] - 4) // 2
        assert "q Quit" in lines[-1]

    webs = [{"name": f"web{each}", "state": "down"} for each in range(8)]
    happened = [event(each, f"{each} " + "x" * 200) for each in range(50)]
    play(story, snapshot(*many(20), events=happened, services=webs), snapshot(*many(20)), size=size)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 10_000])
def test_any_number_of_peers_is_scrolled_through(number):
    async def story(app, pilot):
        if not number:
            await wait(pilot, shows(app, "no other peers"))
            await pilot.press("down", "end", "enter", "o", "pagedown")
            return
        await wait(pilot, shows(app, "peer00000"))
        await pilot.press("end")
        await wait(pilot, shows(app, f"peer{number - 1:05d}"))
        assert f"-{number} of {number}" in screen(app)[1]
        await pilot.press("home", "down", "pagedown", "up", "enter")
        await wait(pilot, shows(app, "path MTU"))
        await pilot.press("escape")
        assert max(map(len, source_of(app).asked)) <= 24

    play(story, snapshot(*many(number)))


def source_of(app):
    return app._source


def test_keys_sort_and_reverse_and_hide():
    async def story(app, pilot):
        await wait(pilot, shows(app, "sorted by traffic"))
        await pilot.press("o")
        await wait(pilot, shows(app, "sorted by name"))
        await pilot.press("r")
        await wait(pilot, lambda: screen(app)[3].startswith("peer00002"))
        await pilot.press("e")
        await wait(pilot, lambda: not any("INFO" in line for line in screen(app)))
        await pilot.press("e")
        await wait(pilot, shows(app, "INFO ready"))

    play(story, snapshot(*many(3), events=[event(1)]), snapshot(*many(3)))


@pytest.mark.slow
def test_a_filter_is_typed_kept_and_ended():
    async def story(app, pilot):
        await wait(pilot, shows(app, "peer00001"))
        await pilot.press("slash", *"00002")
        await wait(pilot, lambda: not shows(app, "peer00001")())
        assert "filter 00002 (1)" in screen(app)[1]
        await pilot.press("enter", "o")
        await wait(pilot, shows(app, "sorted by name"))
        assert "filter 00002 (1)" in screen(app)[1]
        await pilot.press("slash", "slash", "z")
        await wait(pilot, shows(app, "no peer matches the filter"))
        assert "filter 00002/z (0)" in screen(app)[1]
        await pilot.press("escape")
        await wait(pilot, shows(app, "peer00001"))

    play(story, snapshot(*many(3)))


@pytest.mark.slow
def test_500_peers_with_names_of_any_kind_are_sorted_filtered_and_looked_at():
    names = [f"{text}{number}" for number, text in enumerate(NAMES.values())]
    peers = [*(counted(name, 1, 1) for name in names), *many(500 - len(names))]

    async def story(app, pilot):
        await wait(pilot, lambda: " of 500" in screen(app)[1])
        for _ in range(8):  # each order
            await pilot.press("o", "r", "end", "home")
            assert_harmless(app)
        await pilot.press("slash", *"peer004")
        await wait(pilot, lambda: "filter peer004 (81)" in screen(app)[1])
        await pilot.press("escape")

    play(story, snapshot(*peers))


@pytest.mark.slow
def test_peers_with_names_of_any_kind_are_looked_at():
    async def story(app, pilot):
        await pilot.press("home")
        for _ in NAMES:
            await pilot.press("enter")
            await wait(pilot, shows(app, "path MTU"))
            assert_harmless(app)
            await pilot.press("escape", "down")

    peers = [counted(f"{text[:63]}{number}", 1, 1) for number, text in enumerate(NAMES.values())]
    play(story, snapshot(*peers), size=(100, 40))


def assert_harmless(app):
    assert all(line.isprintable() for line in screen(app))


def test_pausing_keeps_what_is_shown_but_for_events():
    async def story(app, pilot):
        await wait(pilot, shows(app, "tokyo"))
        await pilot.press("p")
        await wait(pilot, shows(app, "paused"))
        source_of(app).told = [
            snapshot(counted("rome", 1, 1), events=[event(2, "news")]),
            snapshot(counted("rome", 1, 1)),
        ]
        await wait(pilot, shows(app, "news"))
        assert shows(app, "tokyo")()
        await pilot.press("p")
        await wait(pilot, shows(app, "rome"))

    play(story, snapshot(counted("tokyo", 1, 1)))


@pytest.mark.slow
def test_help_is_over_the_screen_while_it_goes_on():
    async def story(app, pilot):
        await pilot.press("question_mark")
        await wait(pilot, shows(app, "escape end the filter"))
        asked = len(source_of(app).asked)
        await wait(pilot, lambda: len(source_of(app).asked) > asked + 3)
        await pilot.press("q")
        await wait(pilot, shows(app, "tokyo"))

    play(story, snapshot(counted("tokyo", 1, 1)))


@pytest.mark.slow
def test_an_agent_that_restarts_is_waited_for_and_reported(monkeypatch):
    monkeypatch.setattr("overlay.cli.top.app.RETRY", 0.01)

    async def story(app, pilot):
        await wait(pilot, shows(app, "tokyo"))
        source_of(app).told = [NoAgentError("no overlay agent runs for overlay0 here")]
        await wait(pilot, shows(app, "waiting: no overlay agent runs for overlay0 here"))
        assert shows(app, "tokyo")()
        source_of(app).told = [snapshot(counted("rome", 1, 1), pid=99)]
        await wait(pilot, shows(app, "rome"))
        assert not shows(app, "waiting: ")()

    play(story, snapshot(counted("tokyo", 1, 1)))


def test_a_refusal_ends_it_with_its_sentence():
    async def story(app, pilot):
        source_of(app).told = [Failure("the agent is of another version")]
        await wait(pilot, lambda: app.failure is not None)

    app, _ = play(story, snapshot(counted("tokyo", 1, 1)))

    assert app.failure == "the agent is of another version"


def test_a_bug_is_not_hidden():
    async def story(app, pilot):
        source_of(app).told = [ZeroDivisionError("a bug")]
        await pilot.pause(1)

    with pytest.raises(ZeroDivisionError):
        play(story, snapshot(counted("tokyo", 1, 1)))


def test_an_agent_that_hangs_keeps_nobody_from_quitting():
    async def story(app, pilot):
        source_of(app).hangs.clear()
        await pilot.press("q")

    app, source = play(story, snapshot(counted("tokyo", 1, 1)))

    assert app.return_code == 0
    source.hangs.set()


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("slash", "t"), ("enter",), ("question_mark",)])
def test_ctrl_c_quits_wherever_the_view_is(keys):
    async def story(app, pilot):
        await pilot.press(*keys, "ctrl+c")

    app, _ = play(story, snapshot(counted("tokyo", 1, 1)))

    assert app.return_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [(20, 5), (1, 1), (300, 100)])
def test_the_terminal_may_have_any_size(size):
    async def story(app, pilot):
        await pilot.resize_terminal(*size)
        await pilot.pause(0.05)
        await pilot.press("down", "end", "enter", "escape", "question_mark", "escape")

    play(story, snapshot(*many(50), events=[event(1)]), snapshot(*many(50)))


def test_text_from_outside_moves_no_cursor():
    async def story(app, pilot):
        await wait(pilot, shows(app, r"\x1b[2J[red]"))

    play(
        story,
        snapshot(counted("tokyo", 1, 1), events=[event(1, "\x1b[2J[red]")]),
        snapshot(counted("tokyo", 1, 1)),
    )
