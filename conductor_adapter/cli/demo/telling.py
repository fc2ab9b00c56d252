"""Runs the demo: the worker keeps running while faults are injected, and in the end every task is accounted for."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from conductor_adapter.cli.bookkeeping import books_facts, books_sentence
from conductor_adapter.cli.demo.counting import Counts
from conductor_adapter.cli.demo.showing import LiveShow, PlainShow, Show
from conductor_adapter.cli.demo.stage import RefusedError, Stage
from conductor_adapter.cli.demo.story import POLICY, TASK, Account, policy_lines
from conductor_adapter.cli.demo.watching import Watch
from conductor_adapter.cli.printing import Printer
from conductor_adapter.cli.streams import say_error
from conductor_adapter.cli.usage import BAD_USAGE, refusing
from conductor_adapter.functions.decorator import WorkerSpec
from conductor_adapter.running import WorkerRunner

__all__ = ["say_end", "tell"]

LOST = 1
SIGNALLED = 128  # plus the signal's number, as in a shell
HURRY = 1.0  # seconds of grace after an interrupt
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedBySignal(BaseException):
    """A signal ends the demo; only the clean-up may catch this."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def tell(real: Sequence[str], seconds: float, *, as_json: bool) -> int:
    """Run the demo and return the exit status: 1 if a task was lost, 128 plus the signal's number if interrupted.

    Args:
        real: URLs of real servers to use instead of embedded ones.
        seconds: length of the demo, without the final drain.
        as_json: whether to print one JSON object per line.
    """
    printer = Printer(as_json=as_json)
    with refusing():
        stage = _stage(real, seconds)
    for line in policy_lines():
        printer.say("policy", line)
    try:
        with _interruptible(), stage:
            accounts = _play(stage, seconds, printer)
    except RefusedError as error:
        say_error(str(error))
        return BAD_USAGE
    except InterruptedBySignal as interrupt:
        what = "tasks that have not finished remain on the servers" if real else "the servers have been stopped"
        printer.say("interrupted", f"interrupted; {what}")
        return SIGNALLED + interrupt.number
    return say_end(printer, accounts)


def _stage(real: Sequence[str], seconds: float) -> Stage:
    if real:
        from conductor_adapter.cli.demo.real import Real  # noqa: PLC0415 - needs no extra "dev-server"

        return Real(real, POLICY.transport)
    from conductor_adapter.cli.demo.embedded import Embedded  # noqa: PLC0415 - needs the extra "dev-server"

    return Embedded(seconds)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGINT or SIGTERM end the block, once; further signals are ignored because the clean-up is bounded."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise InterruptedBySignal(number)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    except InterruptedBySignal:  # the process ends now, so the signals stay ignored
        before.clear()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _play(stage: Stage, seconds: float, printer: Printer) -> list[Account]:
    stage.seed()
    waiting = ", ".join(f"{count} on {name}" for name, count in stage.started.items())
    printer.say("seeded", f"tasks waiting: {waiting}; new ones are added as these complete")
    if not stage.script(seconds):
        printer.say("real", "these servers are real: no faults are injected")
    counts = Counts()
    with _show(printer) as show:
        counts.tell = show.hear
        spec = WorkerSpec(task_type=TASK, function=counts.work)
        runner = WorkerRunner([spec], stage.settings, config=POLICY, on_event=counts.hear)
        runner.start()
        try:
            Watch(stage, runner, show, seconds).until_drained()
        except BaseException:
            runner.stop(HURRY)
            raise
        report = runner.stop()
    for name, books in report.books.items():
        printer.say("books", books_sentence(books), server=name, **books_facts(books))
    return [counts.complete(account) for account in stage.accounts()]


@contextmanager
def _show(printer: Printer) -> Iterator[Show]:
    console = Console()
    with LiveShow(console) if console.is_terminal and not printer.as_json else PlainShow(printer) as show:
        yield show


def say_end(printer: Printer, accounts: Sequence[Account]) -> int:
    """Print what became of every server's tasks, and return the exit status."""
    for account in accounts:
        style = "green" if account.good else "bold red"
        printer.say("account", account.sentence(), server=account.server, style=style, **account.facts())
    lost = sum(account.lost for account in accounts)
    good = all(account.good for account in accounts)
    if lost:
        text = f"{lost} tasks were lost"
    elif good:
        text = "no task was lost, and none ran more often than its server asked for"
    else:
        text = "not every task is accounted for"
    printer.say("end", text, style="bold green" if good else "bold red", lost=lost)
    return 0 if good else LOST
