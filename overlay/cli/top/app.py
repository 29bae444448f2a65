"""The screen of ``overlay top``."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.message import Message
from textual.widgets import Footer, Input, Static

from overlay.cli.exits import Failure
from overlay.cli.services.rendering import format_rate
from overlay.cli.top.model import Model, Rates, rate_text
from overlay.cli.top.peers import DOUBTED, PLAIN, TROUBLED, Page, Peers
from overlay.cli.top.room import share
from overlay.durations import format_duration
from overlay.errors import HostError
from overlay.numbers import count
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from textual.app import ComposeResult
    from textual.events import Resize

    from overlay.cli.top.model import Picture, Snapshot
    from overlay.cli.top.source import Source

# Ours
RETRY = 1.0  # seconds until an agent that did not answer is asked again
THEMES = ("ansi-dark", "textual-ansi", "textual-dark")  # the first that exists: the terminal's own colours
TITLE = Style(bold=True)
LEVELS = {"WARNING": Style(color="yellow"), "ERROR": TROUBLED}
HELP = """\
Rates are bytes per second between the last two updates. The bars show the \
last minutes, relative to each peer's maximum. RTT and LOSS are measured by \
the agent every ten seconds, for peers that carry packets.

up, down, page up, page down, home, end: move

enter  show one peer in full
o      sort by traffic, name, trouble, round trip, loss, drops in turn
r      reverse the order
/      filter by part of a name, state, endpoint or subnet
escape end the filter
s, e   show or hide services, events
p      pause
q      quit
"""


class Polled(Message):
    """The agent was asked: *answer* is its snapshot, or why it did not answer."""

    def __init__(self, answer: Picture | Exception) -> None:
        super().__init__()
        self.answer = answer


class Top(App[None]):
    """Shows the snapshots of *source* until the user quits.  *failure* is a sentence if it had to end."""

    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    #head { height: 2; }
    #title { height: 1; text-style: bold; }
    Peers { height: 1fr; min-height: 1; scrollbar-size: 0 0; overflow-x: hidden; }
    #services, #events { height: auto; }
    #filter { height: 1; border: none; padding: 0; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[Any]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),  # textual would say which key quits
        Binding("question_mark", "help", "Help", key_display="?"),
        # Before anything is drawn: characters that are typed after a key belong to the filter.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("o", "order", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("s", "show_part('services')", "Services"),
        Binding("e", "show_part('events')", "Events"),
        Binding("p", "pause", "Pause"),
        Binding("escape", "no_filter", show=False),
    ]

    def __init__(self, source: Source, first: Snapshot | None = None, *, is_plain: bool = False) -> None:
        super().__init__(ansi_color=True)
        self.theme = next(each for each in THEMES if each in self.available_themes)
        self._source, self._first = source, first
        self.model, self._rates = Model(), Rates()
        self._peers = Peers(self.model, self.show_head, is_plain=is_plain)
        self._lines = {part: Static(id=part) for part in ("head", "title", "services", "events")}
        self._filter = Input(placeholder="filter", id="filter")
        self._trouble = ""  # why the agent does not answer
        self._is_paused = False
        self._hidden: set[str] = set()
        self.failure: str | None = None

    def compose(self) -> ComposeResult:
        """Yield the parts of the screen, from its top."""
        yield self._lines["head"]
        yield self._lines["title"]
        yield self._peers
        yield self._lines["services"]
        yield self._lines["events"]
        yield self._filter
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Show the first snapshot and begin to fetch others."""
        self._filter.display = False
        self._peers.focus()
        if self._first is not None:
            self.model.take(self._rates.take(self._first))
        self._show()
        self._look()

    def on_resize(self, _: Resize) -> None:
        """Lay everything out again once the parts have their size."""
        self.call_after_refresh(self._show)

    # Looking

    def _look(self) -> None:
        """Ask the agent in a thread that is not waited for: an agent that hangs does not keep the user from
        quitting.
        """
        threading.Thread(target=self._ask, args=(self._peers.visible_names(),), daemon=True).start()

    def _ask(self, visible: list[str]) -> None:
        try:
            answer: Picture | Exception = self._rates.take(self._source.read(visible))
        except Exception as error:  # noqa: BLE001  raised where it is seen, if it is a bug
            answer = error
        self.post_message(Polled(answer))

    def on_polled(self, event: Polled) -> None:
        """Take the agent's answer, or continue without it."""
        match event.answer:
            case HostError() as error:
                self._missed(str(error))
            case Failure() as error:
                self._refused(error.format_message())
            case Exception() as error:
                raise error
            case picture:
                self._took(picture)

    def _took(self, picture: Picture) -> None:
        self._trouble = ""
        if self._is_paused:
            self.model.hear(picture)
        else:
            self.model.take(picture)
        self._show()
        self.set_timer(self._source.pause, self._look)

    def _missed(self, sentence: str) -> None:
        """Keep showing the last data until there is an agent again."""
        self._trouble = f"waiting: {sentence}"
        self._show()
        self.set_timer(RETRY, self._look)

    def _refused(self, sentence: str) -> None:
        self.failure = sentence
        self.exit()

    # Showing

    def show_head(self) -> None:
        """Draw the lines at the top."""
        lines = self._head(max(self.size.width, 1))
        self._lines["head"].update(Text("\n", no_wrap=True).join(lines))

    def _show(self) -> None:
        self._peers.show()
        self.show_head()
        width = max(self.size.width, 1)
        self._lines["title"].update(Text(self._peers.title(), no_wrap=True))
        services = [] if "services" in self._hidden else list(self.model.services)
        events = [] if "events" in self._hidden else self.model.events
        for_services, for_events = share(len(services), len(events), self.size.height)
        for part, lines in (
            ("services", self._services(services, for_services, width)),
            ("events", self._events(events[len(events) - for_events :], width)),
        ):
            widget = self._lines[part]
            shown = list(lines)
            widget.display = bool(shown)
            widget.update(Text("\n", no_wrap=True).join(shown))

    def _head(self, width: int) -> Iterator[Text]:
        model, picture = self.model, self.model.picture
        if self._trouble:
            yield _cut(self._trouble, width, TROUBLED)
        elif picture is None:
            yield Text("")
        else:
            status = picture.snapshot.status
            counts = ", ".join(f"{number} {state}" for state, number in model.counts().items())
            peers = f"{count(len(status.peers), 'peer')}{': ' if counts else ''}{counts}"
            about = f"up {format_duration(status.uptime)}  mtu {status.mtu}"
            yield _cut(f"{status.node} {status.interface}  {peers}  {about}", width, TITLE)
        received, sent = (None, None) if picture is None else picture.totals
        parts = [f"received {rate_text(received)}  sent {rate_text(sent)}", f"sorted by {model.order}"]
        if (part := self._peers.part()) is not None:
            parts.append(part)
        if model.wanted:
            parts.append(f"filter {model.wanted} ({len(model.rows)})")
        if self._is_paused:
            parts.append("paused")
        if picture is not None and picture.dropping:
            parts.append(
                "dropping "
                + ", ".join(f"{reason} {format_rate(rate)}/s" for reason, rate in picture.dropping.items())
            )
        yield _cut("  ".join(parts), width)

    def _services(self, found: Sequence[Mapping[str, Any]], lines: int, width: int) -> Iterator[Text]:
        shown = lines if len(found) <= lines else max(lines - 1, 0)
        for service in found[:shown]:
            servers = service.get("servers") or []
            up = sum(each.get("state") == "up" for each in servers)
            director = (service.get("director") or {}).get("active")
            rate = service.get("connections_per_s")
            speed = "" if rate is None else f"  {format_rate(rate)} connections/s"
            where = f"{up} of {len(servers)} servers up" if servers else f"balanced by {director}"
            style = PLAIN if service["state"] in {"up", "elsewhere"} else DOUBTED
            yield _cut(f"service {service['name']}  {service['state']}  {where}{speed}", width, style)
        if lines and len(found) > shown:
            more = "more service" if shown else "service"
            yield _cut(
                f"{'and ' if shown else ''}{count(len(found) - shown, more)}: see `overlay services`", width
            )

    def _events(self, events: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
        for event in events:
            level = str(event["level"]).upper()
            at = datetime.fromtimestamp(float(event["timestamp_seconds"])).astimezone()
            yield _cut(f"{at:%H:%M:%S} {level} {event['text']}", width, LEVELS.get(level, PLAIN))

    # Keys

    def action_help(self) -> None:
        """Explain the keys."""
        self.push_screen(Page(HELP))

    def action_order(self) -> None:
        """Sort by something else."""
        self.model.next_order()
        self._show()

    def action_reverse(self) -> None:
        """Reverse the order."""
        self.model.is_reversed = not self.model.is_reversed
        self.model.arrange()
        self._show()

    def action_show_part(self, part: str) -> None:
        """Show or hide a part of the screen."""
        self._hidden ^= {part}
        self._show()

    def action_pause(self) -> None:
        """Pause the display, or continue."""
        self._is_paused = not self._is_paused
        self._show()

    def action_filter(self) -> None:
        """Let the user type a filter, which may contain a slash."""
        if self._filter.has_focus:
            self._filter.insert_text_at_cursor("/")
        elif len(self.screen_stack) == 1:
            self._filter.display = True
            self.screen.set_focus(self._filter)

    def action_no_filter(self) -> None:
        """Show all peers."""
        self._filter.value = ""
        self._end_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as it is typed."""
        self.model.wanted = event.value.strip()
        self.model.arrange()
        self._show()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Keep the filter."""
        self._end_filter()

    def _end_filter(self) -> None:
        self._filter.display = False
        self.screen.set_focus(self._peers)


def _cut(text: str, width: int, style: Style = PLAIN) -> Text:
    line = printable(text)
    return Text(line if len(line) <= width else line[: width - 1] + "~", style=style, no_wrap=True)
