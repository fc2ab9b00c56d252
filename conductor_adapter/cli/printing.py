"""Where a command's lines go: with time and colour on a terminal, plain elsewhere, JSON objects for machines."""

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
    """Says lines: sentences for people, JSON objects for machines. Thread-safe.

    A reader who goes away (``| head``), a full disk or a closed output cost the lines, never the work.

    Args:
        as_json: one JSON object a line.
        level: how much to say: -1 nothing, 0 what matters, 1 the usual, 2 everything.
        stream: where to; None for standard output.
        clock: seconds since the epoch, for what is said.
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
        """Say what there is to say about ``event``."""
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
        """Say one thing, if its level is wanted; ``facts`` are for machines alone, ``detail`` stands below the line."""
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
        """Say how many lines were left out since the last of their kind."""
        with self._lock:
            unsaid = self._sampler.unsaid()
        if unsaid:
            parts = [f"{count} more of '{server}: {kind}'" for (kind, server), count in unsaid.items()]
            self.say("left out", f"not shown: {', '.join(parts)}", level=NORMAL)

    def _traceback(self, line: Line) -> str:
        """The traceback of what went wrong, for those who want to see everything."""
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
        except (OSError, ValueError) as error:  # nobody reads, the disk is full, the terminal is gone, it is closed
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if not self._lost:  # one that is no file fails again and again
            self._lost = True
            give_up(self._stream, error)


def _cut(text: str) -> str:
    return cut(text, LONGEST_LINE + 100)  # room for what stands behind a line that was cut already
