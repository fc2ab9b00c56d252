"""Plays the script: injects the faults on time, adds new tasks, and shows the servers every second."""

import threading
import time

from conductor_adapter.cli.demo.showing import Show
from conductor_adapter.cli.demo.stage import Stage
from conductor_adapter.cli.demo.story import DRAIN_TIMEOUT, FEEDING, top_up
from conductor_adapter.running import WorkerRunner

__all__ = ["Watch"]

TICK = 1.0
STEP = 0.05


class Watch:
    """One run of the demo, for use in one thread.

    Args:
        stage: the servers.
        runner: the worker, started.
        show: the output.
        seconds: the length of the demo, without the final drain.
    """

    def __init__(self, stage: Stage, runner: WorkerRunner, show: Show, seconds: float) -> None:
        self._stage = stage
        self._runner = runner
        self._show = show
        self._seconds = seconds
        self._coming = stage.script(seconds)
        self._feeding = True
        self._began = self._last = time.monotonic()
        self._ran = dict.fromkeys(runner.view(), 0)

    def until_drained(self) -> None:
        """Play until every task has ended, or until a minute after the end of the script."""
        pause = threading.Event()
        while not self._is_over():
            pause.wait(STEP)

    def _is_over(self) -> bool:
        now = time.monotonic()
        at = now - self._began
        if self._coming and at >= self._coming[0][0].at:
            chapter, act = self._coming.pop(0)
            self._show.chapter(at, chapter.text)
            act()
        if now - self._last < TICK:
            return False
        self._look(now)
        if self._feeding:
            self._feed(at)
            return False
        drained = not self._coming and self._stage.is_drained()
        return drained or at > self._seconds + DRAIN_TIMEOUT

    def _look(self, now: float) -> None:
        views = self._runner.view()
        rates = {name: (view.started - self._ran[name]) / (now - self._last) for name, view in views.items()}
        self._ran, self._last = {name: view.started for name, view in views.items()}, now
        self._show.servers(now - self._began, views, rates)

    def _feed(self, at: float) -> None:
        if at >= FEEDING * self._seconds:
            self._feeding = False
            self._show.chapter(at, "no new tasks from here on; the backlog drains")
            return
        started = self._stage.started
        self._stage.feed({name: top_up(self._stage.backlog, started[name], ran) for name, ran in self._ran.items()})
