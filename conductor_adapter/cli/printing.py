"""Printing of a command's lines: with time and colour on a terminal, plain elsewhere, JSON objects for machines."""

import json
import sys
import time
import traceback
from collections.abc import Callable
from threading import Lock
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from conductor_adapter.cli.lines import NORMAL, QUIET, VERBOSE, Line, line_of
from conductor_adapter.cli.sampling import Sampler
from conductor_adapter.cli.streams import give_up
from conductor_adapter.events import RunnerEvent
from resilience._texts import cut, indented, printable

__all__ = ["Printer"]

LONGEST_LINE = 2000  # characters
LONGEST_DETAIL = 16_000


class Printer:
    """Prints lines: sentences for people, JSON objects for machines. Thread-safe.

    If the reader goes away (``| head``), the disk is full or the output is closed, lines are lost but the work goes on.

    Args:
        as_json: whether to print one JSON object per line.
        level: how much to print: -1 nothing, 0 what matters, 1 the usual, 2 everything.
        stream: where to print; None for standard output.
        clock: seconds since the epoch, for the printed times.
        timer: monotonic seconds, for sampling.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        level: int = NORMAL,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.as_json = as_json
        self._level = level
        self._stream = stream or sys.stdout
        self._clock = clock
        self._timer = timer
        self._sampler = Sampler()
        self._lock = Lock()
        self._lost = False
        console = Console(file=self._stream, highlight=False)
        self._console = console if console.is_terminal and not as_json else None

    def hear(self, event: RunnerEvent) -> None:
        """Print the line for ``event``, if it has one and is not left out by sampling."""
        line = line_of(event)
        if line is None or line.level > self._level:
            return
        with self._lock:
            left_out = self._sampler.admit(line.key, self._timer())
        if left_out is None:
            return
        more = f" ({left_out} more like it since the last such line)" if left_out else ""
        self.say(
            line.kind,
            f"{cut(line.text, LONGEST_LINE)}{more}",
            server=line.server,
            style=line.style,
            detail=self._traceback(line),
            repeated=left_out or None,
            **line.facts,
        )

    def say(  # noqa: PLR0913 - keyword-only
        self,
        kind: str,
        text: str,
        *,
        server: str | None = None,
        level: int = QUIET,
        style: str = "",
        detail: str = "",
        **facts: Any,  # noqa: ANN401 - JSON
    ) -> None:
        """Print one line, if its level is wanted; ``facts`` appear in JSON only, ``detail`` is put below the line."""
        if level > self._level:
            return
        text, detail = _cut(text), cut(detail, LONGEST_DETAIL, tail=LONGEST_DETAIL // 2)
        if self.as_json:
            facts = {name: _cut(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
            row = {"at": round(self._clock(), 3), "kind": kind, "server": server, "text": text, **facts}
            row["detail"] = detail or None
            text = json.dumps({name: fact for name, fact in row.items() if fact is not None})
        else:
            text = printable(text if server is None else f"{server}: {text}").rstrip()
            text += f"\n{indented(detail)}" if detail else ""
        with self._lock:
            self._write(text, style)

    def say_left_out(self) -> None:
        """Print how many lines were left out since the last one of their kind."""
        with self._lock:
            unsaid = self._sampler.unsaid()
        if unsaid:
            parts = [f"{count} more of '{server}: {kind}'" for (kind, server), count in unsaid.items()]
            self.say("left out", f"not shown: {', '.join(parts)}", level=NORMAL)

    def _traceback(self, line: Line) -> str:
        """The traceback of the line's error, if verbose."""
        if line.error is None or line.error.__traceback__ is None or self._level < VERBOSE:
            return ""
        return "".join(traceback.format_exception(line.error)).rstrip()

    def _write(self, text: str, style: str) -> None:
        try:
            if self._console is None:
                self._stream.write(f"{text}\n")
                self._stream.flush()
            else:
                now = time.strftime("%H:%M:%S ", time.localtime(self._clock()))
                self._console.print(Text.assemble((now, "dim"), (text, style)))
        except (OSError, ValueError) as error:  # no reader, a full disk, the terminal is gone, it is closed
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if not self._lost:  # a stream without a file descriptor fails every time
            self._lost = True
            give_up(self._stream, error)


def _cut(text: str) -> str:
    return cut(text, LONGEST_LINE + 100)  # room for what follows a line that was cut already
