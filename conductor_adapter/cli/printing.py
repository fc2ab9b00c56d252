"""Where a command's lines go: with time and colour on a terminal, plain elsewhere, JSON objects for machines."""

import json
import sys
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from conductor_adapter.cli.lines import NORMAL, QUIET, line_of
from conductor_adapter.cli.sampling import Sampler
from conductor_adapter.cli.streams import give_up
from conductor_adapter.events import RunnerEvent

__all__ = ["Printer"]


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
        self.say(line.kind, f"{line.text}{more}", server=line.server, style=line.style, repeated=left_out or None)

    def say(
        self,
        kind: str,
        text: str,
        *,
        server: str | None = None,
        level: int = QUIET,
        style: str = "",
        **facts: Any,  # noqa: ANN401 - JSON
    ) -> None:
        """Say one thing, if its level is wanted; ``facts`` are for machines alone."""
        if level > self._level:
            return
        if self.as_json:
            row = {"at": round(self._clock(), 3), "kind": kind, "server": server, "text": text, **facts}
            text = json.dumps({name: fact for name, fact in row.items() if fact is not None})
        else:
            text = _shown(text if server is None else f"{server}: {text}")
        with self._lock:
            self._write(text, style)

    def say_left_out(self) -> None:
        """Say how many lines were left out since the last of their kind."""
        with self._lock:
            unsaid = self._sampler.unsaid()
        if unsaid:
            parts = [f"{count} more of '{server}: {kind}'" for (kind, server), count in unsaid.items()]
            self.say("left out", f"not shown: {', '.join(parts)}", level=NORMAL)

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


def _shown(text: str) -> str:
    """The text in one line, its columns as they are, and nothing in it that steers a terminal."""
    letters = (letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)
    return "".join(letters).rstrip()
