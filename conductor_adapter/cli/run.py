"""``conductor-adapter run``: the workers of a file or module, on several servers, until a signal or for a while."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from conductor_adapter.cli.health import Health, ask_all
from conductor_adapter.cli.lines import Printer
from conductor_adapter.cli.servers import find_servers
from conductor_adapter.cli.usage import refusing
from conductor_adapter.declaring import WorkerSpec
from conductor_adapter.running import RunnerConfig, ServerView, StopReport, WorkerRunner
from conductor_adapter.running.threads import run_until_signal
from conductor_adapter.settings import ServerSettings
from conductor_adapter.targets import load_target
from conductor_adapter.transports import choose
from resilience import PollConfig

__all__ = ["RunOptions", "run"]

LEFT = 1  # exit status: something was left undone
FIRST_LOOK = 5.0  # seconds until it says how each server is
LOOK_TIMEOUT = 3.0


@attrs.frozen(kw_only=True)
class RunOptions:
    """What the command was given."""

    target: str
    servers: Sequence[str]
    config: Path | None
    threads: int | None
    poll_wait: float | None
    poll_timeout: float | None
    transport: str
    grace: float
    duration: float | None

    def runner_config(self) -> RunnerConfig:
        """How the workers are to run."""
        return RunnerConfig(threads=self.threads, transport=self.transport, grace=self.grace, poll=self._poll())

    def _poll(self) -> PollConfig:
        given = {"poll_wait": self.poll_wait, "poll_timeout": self.poll_timeout}
        poll: dict[str, float] = {name: seconds for name, seconds in given.items() if seconds is not None}
        if self.poll_timeout is not None and self.poll_timeout > 0:
            # A longer timeout keeps its place between the wait and the moment when the connection is closed.
            poll["give_up_after"] = max(PollConfig().give_up_after, 2 * self.poll_timeout)
        return PollConfig(**poll)  # type: ignore[arg-type] # all of them are seconds


def run(options: RunOptions, printer: Printer) -> int:
    """Run the workers and return the exit status; bad usage ends with one line that says what to change."""
    with refusing():
        if options.duration is not None and options.duration > threading.TIMEOUT_MAX:
            raise ValueError(f"--duration is {options.duration:g} s; leave it out to run without end")
        servers = find_servers(options.servers, options.config)
        config = options.runner_config()
        specs = load_target(options.target)
        runner = WorkerRunner(specs, servers, config=config, on_event=printer.hear)
    _say_start(printer, specs, servers)
    look = threading.Timer(_first_look(options.duration), _look, (printer, servers, specs, options.transport))
    look.daemon = True
    look.start()
    report = run_until_signal(runner, options.duration)
    look.cancel()
    _say_end(printer, runner.view(), report)
    return 0 if report.clean else LEFT


def _first_look(duration: float | None) -> float:
    return FIRST_LOOK if duration is None else min(FIRST_LOOK, duration / 2)


def _say_start(printer: Printer, specs: Iterable[WorkerSpec], servers: Iterable[ServerSettings]) -> None:
    for spec in specs:
        printer.say("worker", f"{spec.label}: polling {', '.join(server.name for server in servers)}")
    for server in servers:
        if server.hint is not None:
            printer.say("hint", server.hint)


def _look(printer: Printer, servers: Iterable[ServerSettings], specs: Iterable[WorkerSpec], transport: str) -> None:
    types = [spec.task_type for spec in specs]
    for health in ask_all(servers, types, choose(transport), LOOK_TIMEOUT):
        printer.say("server", _sentence(health), server=health.name, waiting=dict(health.waiting))


def _sentence(health: Health) -> str:
    if health.problem is not None:
        return f"not reachable: {health.problem}"
    waiting = ", ".join(f"{count} {name}" for name, count in health.waiting.items())
    unknown = "".join(f"; task type {name!r} is unknown there" for name in health.unknown)
    return f"reachable; waiting: {waiting}{unknown}"


def _say_end(printer: Printer, views: dict[str, ServerView], report: StopReport) -> None:
    for name, view in views.items():
        printer.say("ran", f"{view.started} tasks ran", server=name, started=view.started)
    if report.clean:
        printer.say("stopped", "stopped; nothing was left", **attrs.asdict(report))
        return
    text = (
        f"stopped; left: {report.left} results not delivered, {report.unfinished} tasks still running, "
        f"{report.kept} un-started tasks not given back; their servers time them out and run them again"
    )
    printer.say("stopped", text, **attrs.asdict(report))
