"""Workers on threads: a consumer whose endpoints are Conductor servers, and whose handlers run task functions."""

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

import attrs

from conductor_adapter.client.decoding import UnreadableTask
from conductor_adapter.client.protocol import given_up
from conductor_adapter.events import RunnerEvent, RunnerListener, TaskFailed, TaskLeaseLost
from conductor_adapter.functions.attempt import run_attempt
from conductor_adapter.functions.decorator import WorkerSpec, collect_workers
from conductor_adapter.functions.forks import refuse_copy
from conductor_adapter.running.books import Books, books_of
from conductor_adapter.running.counting import Counting
from conductor_adapter.running.lifecycle import RunnerConfig, ServerView, StopReport
from conductor_adapter.running.links import Link
from conductor_adapter.running.log import Log
from conductor_adapter.running.outbox import opened
from conductor_adapter.running.payloads import Payloads
from conductor_adapter.settings.loading import servers_from_env
from conductor_adapter.settings.server_settings import ServerSettings, check_servers
from conductor_adapter.tasks import Task, TaskResult, TaskStatus
from conductor_adapter.transports import choose
from resilience._checks import check_plain
from resilience.consumer import Consumer, ConsumerConfig, ConsumerReport, EndpointCounts, Phase, Work
from resilience.errors import AnswerTooLarge, Refused
from resilience.events import BreakerChanged, DeadLettered, LeaseLost, PollFailed, SurplusArrived, notify
from resilience.polling import Explanation, Item

__all__ = ["WorkerRunner"]

NO_THREADS = "raise the limit of threads (ulimit -u; a container's pids limit), or run fewer of them"
FAILURES = (TaskStatus.FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR)


class WorkerRunner:
    """Runs workers on several Conductor servers until it is stopped; a context manager that starts and stops it.

    Each result goes to the server that its task came from. Thread-safe; installs no signal handlers. In a process that
    was forked from the one it was started in, every method raises RuntimeError.

    Args:
        workers: functions marked with ``@worker``, or their specs.
        servers: where tasks come from; None reads the environment.
        config: how they run.
        on_event: called with every event, in the thread where it came about.

    Attributes:
        config: how they run.
        consumer: what polls, runs and answers: its ``relay`` has the dead letters, its breakers can be forced.

    Raises:
        ValueError: no worker, no server, or two that cannot be told apart; the text says what to change.
        TypeError: something that is not a worker.
        ImportError: the transport's library is not installed.
        OutboxError: the file of the outbox cannot be used.
    """

    def __init__(
        self,
        workers: Iterable[Callable[..., Any] | WorkerSpec],
        servers: Iterable[ServerSettings] | None = None,
        *,
        config: RunnerConfig | None = None,
        on_event: RunnerListener | None = None,
    ) -> None:
        self.config = config or RunnerConfig()
        threads = self.config.threads
        self._specs = [attrs.evolve(spec, threads=threads or spec.threads) for spec in collect_workers(workers)]
        settings = check_servers(servers_from_env() if servers is None else servers)
        if on_event is not None:
            check_plain("on_event", on_event)
        self._on_event = on_event
        self._log = Log()
        self._counting = Counting()
        make = choose(self.config.transport)
        give_up_after = self.config.poll.give_up_after
        named = self.config.transport if isinstance(self.config.transport, str) else "auto"
        self._links = {one.name: Link(one, make, give_up_after, self._refuse) for one in settings}
        self._payloads = {
            name: Payloads(link.server, link.transport, make, choose(named), most=self.config.max_result_bytes)
            for name, link in self._links.items()
        }
        self._outbox = opened(self.config.outbox)
        self.consumer = Consumer(
            [self._work(spec) for spec in self._specs],
            config=ConsumerConfig(
                poll=self.config.poll, breaker=self.config.breaker, relay=self.config.relay, grace=self.config.grace
            ),
            outbox=self._outbox.store,
            on_event=self._heard,
            on_stopped=self._close,
        )
        self._pid: int | None = None  # of the process that it was started in

    def __repr__(self) -> str:
        return f"<WorkerRunner of {', '.join(s.task_type for s in self._specs)} on {', '.join(self._links)}>"

    @property
    def phase(self) -> Phase:
        """Where it is in its life: new, running, stopping or stopped."""
        return self.consumer.phase

    # -- its life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start polling; returns once there are all threads, and polls nothing before.

        Raises:
            RuntimeError: it was started before; or there are no threads left to run the workers on: what had started
                is stopped again then, within the configured grace, as after anything else that ends a start half-way.
        """
        refuse_copy(self._pid)
        self._pid = os.getpid()
        name = self.config.worker_id or f"{socket.gethostname()}-{os.getpid()}"
        for link in self._links.values():
            link.worker_id = name
        try:
            self.consumer.start()
        except RuntimeError as error:
            if error.__cause__ is None:  # it ran before
                raise
            raise RuntimeError(f"the workers were not started: {_root(error)}: {NO_THREADS}") from error

    def stop(self, grace: float | None = None) -> StopReport:
        """Stop polling, give un-started tasks back, let running ones finish, send what waits.

        May be called again: a second call while it stops waits for the end, and returns the same report. From within a
        task function or a listener, for which stopping would have to wait, it only begins to stop. A signal handler of
        your own should set an event, and your program stop then: the handler may have interrupted code that holds a
        lock which stopping needs. `run_workers` and the command do so.

        Args:
            grace: seconds it may take; None for the configured ones.

        Returns:
            What was left undone; what is left now if ``grace`` is over before the end, or nobody waits for the end.

        Raises:
            ValueError: ``grace`` is negative or not finite (TypeError: not a number); the workers run on.
            RuntimeError: it was started by the process that this one was forked from.
        """
        refuse_copy(self._pid)
        return self._report(self.consumer.stop(grace))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pid != os.getpid():
            self._log.left_in_copy(self._pid)
        elif self.consumer.phase is not Phase.STOPPED:
            self.stop()

    # -- changes while it runs -----------------------------------------------------------------------------------------

    def pause(self, server: str) -> None:
        """Take no more tasks from ``server`` until `resume`; those that run finish, and results go home.

        Raises:
            ValueError: there is no server of this name.
        """
        self._check_server(server)
        self.consumer.pause(server)

    def resume(self, server: str) -> None:
        """Take tasks from ``server`` again.

        Raises:
            ValueError: there is no server of this name.
        """
        self._check_server(server)
        self.consumer.resume(server)

    def set_weight(self, server: str, weight: int) -> None:
        """Change the claim of ``server`` to the threads of every worker.

        Raises:
            ValueError: there is no server of this name, or a weight below 1 (TypeError: not a whole number).
        """
        self._check_server(server)
        self.consumer.set_weight(server, weight)

    def set_threads(self, task_type: str, threads: int) -> None:
        """Change how many tasks of ``task_type`` may run at once, in every domain that it has a worker for.

        With fewer, running tasks finish, and no other starts until there is room.

        Raises:
            ValueError: no worker has this task type, or below 1 (TypeError: not a whole number).
        """
        refuse_copy(self._pid)
        found = [spec for spec in self._specs if spec.task_type == task_type]
        if not found:
            known = ", ".join(sorted({repr(spec.task_type) for spec in self._specs}))
            raise ValueError(f"there is no worker for task type {task_type!r}: there are workers for {known}")
        for spec in found:
            self.consumer.set_capacity(threads, _queue_name(spec))

    # -- what it reports -----------------------------------------------------------------------------------------------

    def view(self) -> dict[str, ServerView]:
        """How each server stands, by name."""
        refuse_copy(self._pid)
        return {name: ServerView.of(view) for name, view in self.consumer.view().items()}

    def explain(self) -> dict[str, dict[str, Explanation]]:
        """What each worker asks of each server now, and why: by task type (``domain:type``), then by server."""
        refuse_copy(self._pid)
        return self.consumer.explain()

    def books(self) -> dict[str, Books]:
        """What became of each server's tasks and results so far, by name; they balance at every moment."""
        refuse_copy(self._pid)
        return self._books(self.consumer.counts())

    def report(self) -> StopReport:
        """What would be left undone if the process ended now."""
        refuse_copy(self._pid)
        return self._report(self.consumer.report())

    # -- one task ------------------------------------------------------------------------------------------------------

    def _work(self, spec: WorkerSpec) -> Work[Task]:
        endpoints = [link.endpoint(spec) for link in self._links.values()]
        return Work(_queue_name(spec), partial(self._run, spec), endpoints, spec.threads)

    def _run(self, spec: WorkerSpec, item: Item[Task]) -> TaskResult:
        server, task = item.source, item.value
        self._counting.starts(server, task)
        worker_id = spec.worker_id or self._links[server].worker_id  # in the result too: a server notes that one
        result, error = self._attempt(attrs.evolve(spec, worker_id=worker_id), server, task)
        result = self._payloads[server].put_away(result)
        if result.status in FAILURES:
            failed = TaskFailed(server, spec.task_type, task.task_id, result.status, result.reason, error)
            self._log.task_failed(failed)
            self.consumer.tell(failed)
        return result

    def _attempt(self, spec: WorkerSpec, server: str, task: Task) -> tuple[TaskResult, BaseException | None]:
        try:
            whole = self._payloads[server].fetch(task)
        except Exception as error:  # noqa: BLE001 - never a run on an empty input; the server may try again
            reason = f"what is stored outside of the task could not be fetched: {error}"
            return TaskResult(status=TaskStatus.FAILED, reason=reason).of(task, spec.worker_id, ()), error
        return run_attempt(spec, whole, server=server)

    def _refuse(self, server: str, task: UnreadableTask) -> None:
        """Tell the server that a task cannot be read here: a retry would meet the same."""
        status = TaskStatus.FAILED_WITH_TERMINAL_ERROR
        result = TaskResult(task_id=task.task_id, workflow_id=task.workflow_id, status=status, reason=task.reason)
        self.consumer.hand_over(server, result)
        failed = TaskFailed(server, task.task_type, task.task_id, status, task.reason)
        self._log.task_failed(failed)
        self.consumer.tell(failed)

    # -- events --------------------------------------------------------------------------------------------------------

    def _heard(self, event: Any) -> None:  # noqa: ANN401 - an event of the consumer, or one of ours
        told: RunnerEvent = event
        match event:
            case LeaseLost(server, value, error):
                task: Task = value  # type: ignore[assignment] # values of a poller of tasks
                told = TaskLeaseLost(server, task.task_type, task.task_id, error)
                self._log.lease_lost(told)
            case BreakerChanged():
                told = attrs.evolve(event, calls="polls" if event.calls == "polls" else "updates")
                self._log.breaker_changed(told)
            case SurplusArrived():
                self._log.surplus(event)
            case PollFailed(error=AnswerTooLarge()):
                self._log.too_large(event)
            case DeadLettered(error=Refused()):
                self._give_up(event)
            case _:
                pass
        notify(self._on_event, told)

    def _give_up(self, event: DeadLettered) -> None:
        """A server that kept refusing a result is sent a small one in its place: its workflow need not wait."""
        result: TaskResult = event.payload  # type: ignore[assignment] # payloads of a relay of results
        small = given_up(result, event.reason)
        if small is not None:
            self.consumer.hand_over(event.destination, small)

    # -- private -------------------------------------------------------------------------------------------------------

    def _check_server(self, server: str) -> None:
        refuse_copy(self._pid)
        if server not in self._links:
            raise ValueError(f"unknown server {server!r}: known are {', '.join(map(repr, self._links))}")

    def _books(self, counts: Mapping[str, EndpointCounts]) -> dict[str, Books]:
        return {name: books_of(one, re_executed=self._counting.re_executed(name)) for name, one in counts.items()}

    def _report(self, report: ConsumerReport) -> StopReport:
        unreached = tuple(name for name, link in self._links.items() if link.asked and not link.answered)
        return StopReport(
            left=report.undelivered,
            saved=report.stored,
            unfinished=report.unfinished,
            kept=report.not_returned,
            dead=report.dead,
            unreached=unreached,
            books=self._books(report.counts),
        )

    def _close(self) -> None:
        for link in self._links.values():
            link.transport.close()
        for payloads in self._payloads.values():
            payloads.close()
        self._outbox.close()


def _root(error: BaseException) -> BaseException:
    """What the system said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _queue_name(spec: WorkerSpec) -> str:
    """What Conductor calls the queue of a task type in a domain."""
    return f"{spec.domain}:{spec.task_type}" if spec.domain else spec.task_type
