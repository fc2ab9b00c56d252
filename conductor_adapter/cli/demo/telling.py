"""Runs the story: the worker goes on, things are done to its servers, and in the end every task is accounted for."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
from rich.console import Console

from conductor_adapter.cli.demo.showing import LiveShow, PlainShow, Show
from conductor_adapter.cli.demo.stages import Embedded, Real, RefusedError, Scene, Stage
from conductor_adapter.cli.demo.story import DRAIN_TIMEOUT, POLICY, TASK, TASK_SECONDS, Tally, policy_text
from conductor_adapter.cli.lines import Printer
from conductor_adapter.cli.usage import BAD_USAGE, refusing
from conductor_adapter.declaring import WorkerSpec
from conductor_adapter.running import WorkerRunner
from conductor_adapter.worker import task_context
from resilience import Event, GaveBack, Listener

__all__ = ["GivenBack", "say_end", "tell"]

LOST = 1
INTERRUPTED = 130
TICK = 1.0


class Work:
    """The demo's task function, which counts its runs by server."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Wait a little, as a task would that calls somebody."""
        with self._lock:
            self.runs[task_context().server] += 1
        threading.Event().wait(TASK_SECONDS)


class GivenBack(Counter[str]):
    """Counts the tasks that went back, by server, and passes events on."""

    tell: Listener = staticmethod(lambda _: None)

    def hear(self, event: Event) -> None:
        """Count it if tasks went back."""
        if isinstance(event, GaveBack):
            self[event.source] += event.count
        self.tell(event)


def tell(real: Sequence[str], seconds: float, *, as_json: bool) -> int:
    """Tell the story and return the exit status: 1 if a task was lost, 130 if interrupted.

    Args:
        real: URLs of real servers to work on instead of embedded ones.
        seconds: how long the story takes, without the time to drain.
        as_json: one JSON object a line.
    """
    printer = Printer(as_json=as_json)
    with refusing():
        stage: Stage = Real(real, POLICY.transport) if real else Embedded()
    printer.say("policy", policy_text())
    try:
        with stage:
            tallies = _play(stage, seconds, printer, as_json=as_json)
    except RefusedError as error:
        sys.stderr.write(f"conductor-adapter: {error}\n")
        return BAD_USAGE
    except KeyboardInterrupt:
        printer.say("interrupted", "interrupted; the servers are stopped")
        return INTERRUPTED
    return say_end(printer, tallies)


def _play(stage: Stage, seconds: float, printer: Printer, *, as_json: bool) -> list[Tally]:
    started = stage.seed(seconds)
    printer.say("seeded", "tasks waiting: " + ", ".join(f"{count} on {name}" for name, count in started.items()))
    script = stage.script(seconds)
    if not script:
        printer.say("real", "these servers are real: they are worked on, and nothing is broken there")
    work, given_back = Work(), GivenBack()
    spec = WorkerSpec(task_type=TASK, function=work)
    with _show(printer, as_json=as_json) as show:
        given_back.tell = show.hear
        with WorkerRunner([spec], stage.settings, config=POLICY, on_event=given_back.hear) as runner:
            _watch(stage, script, runner, show, seconds)
    return [
        Tally(
            server=name,
            started=count,
            finished=stage.finished(name),
            executed=work.runs[name],
            given_back=given_back[name],
            retried=stage.retried(name),
        )
        for name, count in started.items()
    ]


@contextmanager
def _show(printer: Printer, *, as_json: bool) -> Iterator[Show]:
    console = Console()
    with LiveShow(console) if console.is_terminal and not as_json else PlainShow(printer) as show:
        yield show


def _watch(stage: Stage, script: list[Scene], runner: WorkerRunner, show: Show, seconds: float) -> None:
    """Perform the chapters when it is time, and show the servers every second, until all work is done."""
    began, tick = time.monotonic(), threading.Event()
    coming = list(script)
    before: Mapping[str, int] = dict.fromkeys(runner.view(), 0)
    last = began
    while True:
        now = time.monotonic()
        if coming and now - began >= coming[0][0].at:
            chapter, act = coming.pop(0)
            show.chapter(now - began, chapter.text)
            act()
        if now - last >= TICK:
            views = runner.view()
            rates = {name: (view.started - before[name]) / (now - last) for name, view in views.items()}
            before, last = {name: view.started for name, view in views.items()}, now
            show.servers(now - began, views, rates)
            if not coming and _is_over(stage, runner, now - began - seconds):
                return
        tick.wait(0.05)


def _is_over(stage: Stage, runner: WorkerRunner, overtime: float) -> bool:
    return overtime > DRAIN_TIMEOUT or not any(stage.unfinished(name) for name in runner.view())


def say_end(printer: Printer, tallies: Sequence[Tally]) -> int:
    """Say what came of every server's tasks, and return the exit status."""
    for tally in tallies:
        text = (
            f"{tally.started} started, {tally.finished} finished, {tally.lost} lost; ran {tally.executed} times,"
            f" {tally.given_back} given back, {tally.retried} handed out again by the server"
        )
        printer.say("tally", text, lost=tally.lost, **attrs.asdict(tally))
    lost = sum(tally.lost for tally in tallies)
    printer.say("end", f"{lost} tasks were lost" if lost else "no task was lost", lost=lost)
    return LOST if lost else 0
