"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

from collections import deque
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from conductor_adapter.cli.lines import Line, Printer, Sampler, line_of
from conductor_adapter.running import ServerView
from resilience import Event

__all__ = ["LiveShow", "PlainShow", "Show"]

COLUMNS = ("server", "polls", "updates", "source", "running", "in flight", "results waiting", "ran", "per second")
SHOWN = 9  # events below the table
COLOURS = {"closed": "green", "half-open": "yellow", "open": "red"}


class PlainShow:
    """One line for each thing that happens, and one for the servers every now and then. A context manager."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def __enter__(self) -> "PlainShow":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def hear(self, event: Event) -> None:
        """Say what a runner's event means."""
        self._printer.hear(event)

    def chapter(self, at: float, text: str) -> None:
        """Say what is done to the servers."""
        self._printer.say("chapter", f"{at:5.1f} s  {text}")

    def servers(self, at: float, views: Mapping[str, ServerView], rates: Mapping[str, float]) -> None:
        """Say how the servers stand."""
        parts = [f"{name} {rates[name]:.0f}/s ({_worse(view)}, {view.state})" for name, view in views.items()]
        self._printer.say("servers", f"{at:5.1f} s  " + "   ".join(parts), rates=dict(rates))


class LiveShow:
    """A table that is redrawn in place, with the last events below it. A context manager."""

    def __init__(self, console: Console) -> None:
        self._lines: deque[Text] = deque(maxlen=SHOWN)
        self._sampler = Sampler()
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._table = Table(*COLUMNS)

    def __enter__(self) -> "LiveShow":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def hear(self, event: Event) -> None:
        """Show what a runner's event means."""
        line = line_of(event)
        text = None if line is None else self._sampler.admit(line)
        if line is not None and text is not None:
            self._lines.append(_coloured(line, text))

    def chapter(self, at: float, text: str) -> None:
        """Show what is done to the servers."""
        self._lines.append(Text(f"{at:5.1f} s  {text}", style="bold"))

    def servers(self, at: float, views: Mapping[str, ServerView], rates: Mapping[str, float]) -> None:
        """Show how the servers stand."""
        self._table = Table(*COLUMNS, title=f"{at:.0f} s")
        for name, view in views.items():
            breakers = [Text(state, style=COLOURS[state]) for state in (view.polls, view.updates)]
            numbers = (view.executing, view.in_flight, view.waiting, view.started, round(rates[name]))
            self._table.add_row(name, *breakers, view.state, *map(str, numbers))
        self._live.update(Group(self._table, *self._lines))


Show = PlainShow | LiveShow


def _worse(view: ServerView) -> str:
    """The state of the worse of a server's two breakers."""
    return max(view.polls, view.updates, key=list(COLOURS).index)


def _coloured(line: Line, text: str) -> Text:
    return Text(f"         {line.server}: {text}", style="" if line.kind == "breaker" else "dim", overflow="ellipsis")
