"""The table of peers of ``overlay top``, and one peer in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Footer, Static

from overlay.cli.top import columns
from overlay.cli.top.model import loss_text, rate_text, trip_text
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult
    from textual.events import Resize

    from overlay.cli.top.model import Model, Row

# Ours
PLAIN = Style()
CURSOR = Style(reverse=True)
STATES = {"up": Style(color="green"), "unencrypted": PLAIN, "idle": Style(dim=True)}
TROUBLED, DOUBTED = Style(color="red", bold=True), Style(color="yellow")


class Peers(ScrollView, can_focus=True):
    """The table of peers.  Only visible lines are drawn, however many there are."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "edge(0)", show=False),
        Binding("end,G", "edge(1)", show=False),
        Binding("enter", "detail", show=False),
    ]

    def __init__(self, model: Model, scrolled: Callable[[], None], *, is_plain: bool) -> None:
        """*scrolled* is called when other rows are visible."""
        super().__init__()
        self._model, self._scrolled, self._is_plain = model, scrolled, is_plain
        self._layout_of = columns.fit(80, ())
        self._chosen = ""  # the name of the peer under the cursor

    @property
    def at(self) -> int:
        """Return the index of the row under the cursor."""
        names = self._model.rows
        return next((place for place, row in enumerate(names) if row.name == self._chosen), 0)

    @property
    def chosen(self) -> Row | None:
        """Return the row under the cursor; None if there are no rows."""
        rows = self._model.rows
        return rows[self.at] if rows else None

    def visible_names(self) -> list[str]:
        """Return the peers that are on the screen."""
        first = int(self.scroll_offset.y)
        return [row.name for row in self._model.rows[first : first + max(self.size.height, 1)]]

    def part(self) -> str | None:
        """Return which of the rows are on the screen, ``21-40 of 500``; None for all."""
        first, number = int(self.scroll_offset.y), len(self._model.rows)
        last = min(first + self.size.height, number)
        return None if last - first >= number else f"{first + 1}-{last} of {number}"

    def show(self) -> None:
        """Draw the current state of the model."""
        rows = self._model.rows
        self._layout_of = columns.fit(self.size.width, [row.name for row in rows])
        self.virtual_size = Size(self.size.width, len(rows))
        self.refresh()

    def title(self) -> str:
        """Return the line above the table."""
        return columns.header(self._layout_of)

    def render_line(self, y: int) -> Strip:
        """Return line *y* of the visible part."""
        place, rows = y + int(self.scroll_offset.y), self._model.rows
        if place >= len(rows):
            text = "" if rows or y else self._nothing()
            return Strip([Segment(text.ljust(self.size.width))]).crop(0, self.size.width)
        row = rows[place]
        text = printable(columns.line(row, self._layout_of, is_plain=self._is_plain)).ljust(self.size.width)
        if row.name == (self.chosen.name if self.chosen else "") and self.has_focus:
            return Strip([Segment(text, CURSOR)]).crop(0, self.size.width)
        begin, end = self._layout_of.name + 1, self._layout_of.name + 12
        parts = [Segment(text[:begin]), Segment(text[begin:end], style_of(row)), Segment(text[end:])]
        return Strip(parts).crop(0, self.size.width)

    def _nothing(self) -> str:
        if self._model.picture is None:
            return "waiting for the agent"
        if self._model.wanted:
            return "no peer matches the filter"
        return self._model.picture.snapshot.status.absent.describe()

    def on_resize(self, _: Resize) -> None:
        """Lay the columns out again."""
        self.show()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._go(self.at + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by a screen."""
        self._go(self.at + by * max(self.size.height - 1, 1))

    def action_edge(self, end: int) -> None:
        """Move the cursor to the first row, or the last."""
        self._go(len(self._model.rows) - 1 if end else 0)

    def action_detail(self) -> None:
        """Show one peer in full."""
        if self.chosen is not None:
            self.app.push_screen(Page(detail(self.chosen)))

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Show in the title which rows are visible."""
        super().watch_scroll_y(old, new)
        self._scrolled()

    def _go(self, place: int) -> None:
        rows = self._model.rows
        if not rows:
            return
        place = max(0, min(place, len(rows) - 1))
        self._chosen = rows[place].name
        first, height = int(self.scroll_offset.y), max(self.size.height, 1)
        if place < first:
            self.scroll_to(y=place, animate=False)
        elif place >= first + height:
            self.scroll_to(y=place - height + 1, animate=False)
        self.refresh()


class Page(ModalScreen[None]):
    """A text over the whole screen, until a key is pressed."""

    BINDINGS: ClassVar[list[Any]] = [Binding("escape,q,enter,question_mark", "dismiss", "Back")]
    CSS = (
        "Page { align: center middle; } Page VerticalScroll "
        "{ width: 80; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1; }"
    )

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Yield its parts."""
        with VerticalScroll():
            yield Static(Text(self._text))
        yield Footer()


def style_of(row: Row) -> Style:
    """Return the style for the state of a peer."""
    if row.severity > 1:
        return TROUBLED
    return STATES.get(row.state, DOUBTED)


def detail(row: Row) -> str:
    """Return the text that shows one peer in full."""
    lines = [
        row.name,
        "",
        f"state       {row.state}",
        f"tunnel      {row.encapsulation} to {row.endpoint or 'no endpoint'}",
        f"subnets     {', '.join(row.subnets) or 'none'}",
        f"received    {rate_text(row.received)}",
        f"sent        {rate_text(row.sent)}",
        f"round trip  {trip_text(row.round_trip)}",
        f"loss        {loss_text(row.loss)}",
        f"path MTU    {row.mtu or '-'}",
    ]
    if row.drops:
        lines += [
            "",
            "dropped packets",
            *(f"  {reason:<20} {number}" for reason, number in row.drops.items()),
        ]
    if row.notes:
        lines += ["", *row.notes]
    return printable("\n".join(lines), keeps_lines=True)
