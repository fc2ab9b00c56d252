"""``conductor-adapter run``: runs the workers of a file or module on several servers, until a signal or for a while."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from conductor_adapter.cli.bookkeeping import books_facts, books_sentence
from conductor_adapter.cli.health import Health, Wanted, ask_all
from conductor_adapter.cli.limits import descriptor_hint, open_files
from conductor_adapter.cli.lines import NORMAL, counted, without_name
from conductor_adapter.cli.logs import print_logs
from conductor_adapter.cli.outbox import elsewhere, outbox_path
from conductor_adapter.cli.printing import Printer
from conductor_adapter.cli.servers import credentials_hint, find_servers
from conductor_adapter.cli.signals import keep_until_gone
from conductor_adapter.cli.streams import say_error
from conductor_adapter.cli.targets import load_target, sdk_advice
from conductor_adapter.cli.usage import refusing
from conductor_adapter.events import RunnerEvent, TaskFailed
from conductor_adapter.functions.decorator import WorkerSpec
from conductor_adapter.running import RunnerConfig, StopReport, WorkerRunner
from conductor_adapter.running.signals import run_until_signal
from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.transports import choose
from resilience import DeadLettered, PollConfig

__all__ = ["Ended", "RunOptions", "first_look", "run", "say_end"]

LEFT = 1  # exit status: something was left undone
NAMED = 5  # dead letters named in the last line
FIRST_LOOK = 5.0  # seconds until the state of each server is printed
BEFORE_END = 1.0  # if the run is shorter: seconds before its end
LOOK_TIMEOUT = 3.0
LONGEST_WAIT = 5.0  # seconds that a Conductor server waits for a task


@attrs.frozen(kw_only=True)
class RunOptions:
    """The options of the command."""

    target: str
    servers: Sequence[str]
    config: Path | None
    threads: int | None
    poll_wait: float | None
    poll_timeout: float | None
    transport: str
    outbox: str
    grace: float
    duration: float | None
    log_level: str | None = None

    def runner_config(self) -> RunnerConfig:
        """The runner's configuration that follows from the options."""
        return RunnerConfig(
            threads=self.threads,
            transport=self.transport,
            outbox=outbox_path(self.outbox),
            grace=self.grace,
            poll=self._poll(),
        )

    def _poll(self) -> PollConfig:
        usual = PollConfig()
        wait = usual.poll_wait if self.poll_wait is None else self.poll_wait
        timeout = usual.poll_timeout if self.poll_timeout is None else self.poll_timeout
        if wait > LONGEST_WAIT:
            raise ValueError(f"--poll-wait is {wait:g} s, but Conductor servers wait for at most {LONGEST_WAIT:g} s")
        if wait + usual.overdue_after >= timeout:
            raise ValueError(
                f"--poll-wait {wait:g} and --poll-timeout {timeout:g}: the timeout must be more than"
                f" {usual.overdue_after:g} s longer than the wait, or healthy polls time out; shorten --poll-wait or"
                " lengthen --poll-timeout"
            )
        # A longer timeout must still fall between the wait and the moment when the connection is closed.
        give_up_after = max(usual.give_up_after, 2 * timeout)
        return PollConfig(poll_wait=wait, poll_timeout=timeout, give_up_after=give_up_after)


class Ended:
    """Records which tasks failed and which results were refused permanently, by server, and passes events on."""

    def __init__(self, printer: Printer) -> None:
        self.printer = printer
        self._lock = threading.Lock()
        self._failed: Counter[str] = Counter()
        self._refused: list[str] = []

    def hear(self, event: RunnerEvent) -> None:
        """Record the event if a task failed or a result was refused."""
        if isinstance(event, TaskFailed):
            with self._lock:
                self._failed[event.server] += 1
        elif isinstance(event, DeadLettered) and len(self._refused) < NAMED:  # these events arrive one at a time
            self._refused.append(f"task {event.key} of {event.destination}")
        self.printer.hear(event)

    def failed(self, server: str) -> int:
        """How many tasks of ``server`` failed."""
        with self._lock:
            return self._failed[server]

    def refused(self, count: int) -> str:
        """The first few of ``count`` refused results, by task."""
        more = [f"{count - NAMED} more"] if count > NAMED else []
        return ", ".join((*self._refused, *more))


class TellingRunner(WorkerRunner):
    """A runner that prints why it cannot start, and when it begins to stop, because a signal then ends it at once."""

    printer: Printer

    def start(self) -> None:
        """See `WorkerRunner`."""
        try:
            super().start()
        except RuntimeError as error:
            say_error(str(error))
            raise SystemExit(LEFT) from None

    def stop(self, grace: float | None = None) -> StopReport:
        """See `WorkerRunner`."""
        seconds = self.config.grace if grace is None else grace
        text = f"stopping: running tasks have {seconds:g} s to finish; another signal after 1 s stops immediately"
        self.printer.say("stopping", text, level=NORMAL, style="bold")
        return super().stop(grace)


def run(options: RunOptions, printer: Printer) -> int:
    """Run the workers and return the exit status; bad usage is reported in one line that says what to change."""
    with refusing():
        if options.duration is not None and options.duration > threading.TIMEOUT_MAX:
            raise ValueError(f"--duration is {options.duration:g} s, which is too long; omit it to run without a limit")
        servers = find_servers(options.servers, options.config)
        config = options.runner_config()
        if options.log_level is not None:
            print_logs(printer, options.log_level)  # before the target: what it logs while it is imported counts too
        specs = load_target(options.target)
        ended = Ended(printer)
        runner = TellingRunner(specs, servers, config=config, on_event=ended.hear)
        taken = elsewhere(outbox_path(options.outbox), servers)
    runner.printer = printer
    _say_start(printer, specs, servers)
    for name, text in taken.items():
        printer.say("results elsewhere", text, server=name, level=NORMAL, style="yellow")
    if hint := credentials_hint(options.servers, options.config, servers):
        printer.say("hint", hint, style="yellow")
    if advice := sdk_advice():
        printer.say("hint", advice, style="yellow")
    threads = [options.threads or spec.threads for spec in specs]
    each = getattr(choose(options.transport), "descriptors", 1)
    if hint := descriptor_hint(open_files(), len(servers), threads, each):
        printer.say("hint", hint, style="yellow")
    look = threading.Timer(first_look(options.duration), _look, (printer, servers, specs, options.transport))
    look.daemon = True
    look.start()
    report = run_until_signal(runner, options.duration, keep=True)
    status = 0 if report.clean else LEFT
    keep_until_gone(status)
    look.cancel()
    if options.duration is not None:
        look.join(LOOK_TIMEOUT)  # its lines belong above the last ones
    say_end(printer, ended, report)
    return status


def first_look(duration: float | None) -> float:
    """When to print the state of each server: soon, or just before the end of a run of ``duration`` seconds."""
    return FIRST_LOOK if duration is None else min(FIRST_LOOK, max(duration - BEFORE_END, duration / 2))


def _say_start(printer: Printer, specs: Iterable[WorkerSpec], servers: Iterable[ServerSettings]) -> None:
    for spec in specs:
        text = f"{spec.label}: polling {', '.join(server.name for server in servers)}"
        printer.say("worker", text, level=NORMAL, style="bold")
    for server in servers:
        if server.hint is not None:
            printer.say("hint", server.hint, style="yellow")


def _look(printer: Printer, servers: Iterable[ServerSettings], specs: Iterable[WorkerSpec], transport: str) -> None:
    wanted = [Wanted(spec.task_type, spec.domain) for spec in specs]
    for health in ask_all(servers, wanted, choose(transport), LOOK_TIMEOUT):
        bad = health.problem is not None or health.unknown
        facts: dict[str, Any] = {
            "reachable": health.problem is None,
            "waiting": dict(health.waiting),
            "unknown": list(health.unknown),
        }
        printer.say("server", _sentence(health), server=health.name, style="yellow" if bad else "green", **facts)


def _sentence(health: Health) -> str:
    if health.problem is not None:
        return f"not reachable: {without_name(health.problem, health.name)}"
    waiting = ", ".join(f"{count} {name}" for name, count in health.waiting.items()) or "unknown (no queue sizes)"
    unknown = "".join(f"; task type {name!r} is unknown there" for name in health.unknown)
    return f"reachable; waiting: {waiting}{unknown}"


def say_end(printer: Printer, ended: Ended, report: StopReport) -> None:
    """Print what became of all tasks and results; the last line names what went wrong."""
    printer.say_left_out()
    for name, books in report.books.items():
        failed = ended.failed(name)
        printer.say("books", books_sentence(books, failed), server=name, failed=failed, **books_facts(books))
    left: dict[str, Any] = attrs.asdict(report, filter=lambda field, _: field.name != "books")
    text = "; ".join([*_left(report), *_refused(ended, report)]) or "nothing is left undone"
    if report.unreached:
        text += f"{', but' if report.clean else ';'} no poll of {', '.join(report.unreached)} ever succeeded"
    style = "yellow" if report.unreached else "green"
    printer.say("stopped", f"stopped; {text}", style=style if report.clean else "bold red", **left)


def _refused(ended: Ended, report: StopReport) -> list[str]:
    if not report.dead:
        return []
    return [f"refused permanently: {counted(report.dead, 'result')} ({ended.refused(report.dead)})"]


def _left(report: StopReport) -> list[str]:
    if not (report.left or report.unfinished or report.kept):
        return []
    safe = f" ({report.saved} in the outbox; the next worker will send them)" if report.saved else ""
    text = (
        f"left undone: {counted(report.left, 'result')} not delivered{safe}, {counted(report.unfinished, 'task')} "
        f"still running, {counted(report.kept, 'un-started task')} not given back"
    )
    if report.left > report.saved or report.unfinished or report.kept:
        text += "; their servers will time them out and run them again"
    return [text]
