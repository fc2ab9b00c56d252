"""The output of the demo while it runs: a live table on a terminal, plain lines elsewhere."""

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import attrs
from rich.box import HEAVY_HEAD, SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from conductor_adapter.cli.lines import NORMAL, Line, counted, line_of
from conductor_adapter.cli.printing import Printer
from conductor_adapter.cli.sampling import Sampler
from conductor_adapter.events import RunnerEvent
from conductor_adapter.running import ServerView
from resilience._texts import printable

__all__ = ["LiveShow", "PlainShow", "Show"]

COLUMNS = ("server", "polls", "updates", "share", "tasks/s", "running", "in flight", "results waiting")
WIDE = 116  # columns of a terminal that also has room for a bar, the state and the number of runs
SHOWN = 8  # events below the table
BAR = 10  # characters for the whole capacity
COLOURS = {"closed": "green", "half-open": "yellow", "open": "red"}


class PlainShow:
    """One line for each event, and one for the servers every second. A context manager."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._printer.say_left_out()

    def hear(self, event: RunnerEvent) -> None:
        """Print the line for a runner's event."""
        self._printer.hear(event)

    def chapter(self, at: float, text: str) -> None:
        """Print what is done to the servers."""
        self._printer.say("chapter", f"{at:5.1f} s  *** {text}")

    def servers(self, at: float, views: Mapping[str, ServerView], rates: Mapping[str, float]) -> None:
        """Print the state of the servers."""
        shares = shares_of(rates)
        parts = [f"{name} {shares[name]:.0%} {rates[name]:.0f}/s{_trouble(view)}" for name, view in views.items()]
        facts = {
            name: {**attrs.asdict(view), "share": shares[name], "rate": rates[name]} for name, view in views.items()
        }
        self._printer.say("servers", f"{at:5.1f} s  " + "   ".join(parts), servers=facts)


class LiveShow:
    """A table that is redrawn in place, with the last events below it. A context manager; thread-safe.

    Any thread can append to the buffer of lines; drawing copies it.
    """

    def __init__(self, console: Console) -> None:
        self._happened: deque[Text] = deque(maxlen=SHOWN)
        self._sampler = Sampler()
        self._wide = console.width >= WIDE
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._at = 0.0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def hear(self, event: RunnerEvent) -> None:
        """Show the line for a runner's event."""
        line = line_of(event)
        if line is not None and line.level <= NORMAL and self._sampler.admit(line.key, self._at) is not None:
            self._happened.append(_one_line(f"         {line.server}: {line.text}", line))

    def chapter(self, at: float, text: str) -> None:
        """Show what is done to the servers."""
        self._happened.append(Text(f"{at:5.1f} s  {text}", style="bold", no_wrap=True, overflow="ellipsis"))

    def servers(self, at: float, views: Mapping[str, ServerView], rates: Mapping[str, float]) -> None:
        """Show the state of the servers."""
        self._at = at
        more = ("state", "ran") if self._wide else ()
        table = Table(
            *COLUMNS, *more, title=f"{at:.0f} s", title_justify="left", box=HEAVY_HEAD if self._wide else SIMPLE
        )
        shares = shares_of(rates)
        for name, view in views.items():
            breakers = [Text(state, style=COLOURS[state], no_wrap=True) for state in (view.polls, view.updates)]
            bar = f"{'█' * round(shares[name] * BAR):{BAR}}" if self._wide else ""
            numbers = (round(rates[name]), view.executing, view.in_flight, view.waiting)
            last = (view.state, str(view.started)) if self._wide else ()
            table.add_row(name, *breakers, f"{bar}{shares[name]:5.0%}", *map(str, numbers), *last)
        self._live.update(Group(table, *tuple(self._happened)))


Show = PlainShow | LiveShow


def shares_of(rates: Mapping[str, float]) -> dict[str, float]:
    """Each server's part of all tasks that ran, and of the capacity, since all tasks take equally long."""
    total = sum(rates.values())
    return {name: rate / total if total else 0.0 for name, rate in rates.items()}


def _trouble(view: ServerView) -> str:
    """What is unusual about a server, in brackets."""
    parts = [
        f"{what} {state}" for what, state in (("polls", view.polls), ("updates", view.updates)) if state != "closed"
    ]
    if view.waiting:
        parts.append(f"{counted(view.waiting, 'result')} waiting")
    return f" [{', '.join(parts)}]" if parts else ""


def _one_line(text: str, line: Line) -> Text:
    return Text(printable(text), style=line.style or "dim", no_wrap=True, overflow="ellipsis")
