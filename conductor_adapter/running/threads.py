"""Workers on threads: a poller for each worker, whose sources are the servers; one relay takes all results home."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
from conductor_adapter.running.changes import Changing
from conductor_adapter.running.counting import Counting
from conductor_adapter.running.lifecycle import (
    Deliveries,
    DeliveryEvent,
    Phase,
    RunnerConfig,
    StopReport,
    advance,
    share_of_grace,
)
from conductor_adapter.running.links import Link
from conductor_adapter.running.log import Log
from conductor_adapter.running.outbox import opened
from conductor_adapter.running.payloads import Payloads
from conductor_adapter.running.reporting import Reporting
from conductor_adapter.settings.loading import servers_from_env
from conductor_adapter.settings.server_settings import ServerSettings, check_servers
from conductor_adapter.tasks import Task, TaskResult, TaskStatus, task_named
from conductor_adapter.transports import choose
from resilience._checks import check_number, check_plain
from resilience.delivery import Relay
from resilience.errors import AnswerTooLarge, Refused
from resilience.events import (
    BreakerChanged,
    DeadLettered,
    Event,
    LeaseLost,
    PollFailed,
    SurplusArrived,
    notify,
)
from resilience.polling import Item, Poller
from resilience.registry import BreakerRegistry

__all__ = ["WorkerRunner"]

NO_THREADS = "raise the limit of threads (ulimit -u; a container's pids limit), or run fewer of them"
FAILURES = (TaskStatus.FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR)


class WorkerRunner(Changing, Reporting):
    """Runs workers on several Conductor servers until it is stopped; a context manager that starts and stops it.

    Each result goes to the server that its task came from. Thread-safe; installs no signal handlers.

    Args:
        workers: functions marked with ``@worker``, or their specs.
        servers: where tasks come from; None reads the environment.
        config: how they run.
        on_event: told of everything that happens, in the thread where it happened.

    Raises:
        ValueError: no worker, no server, or two that cannot be told apart; the text says what to change.
        TypeError: something that is no worker.
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
        self._specs = [self._adjusted(spec) for spec in collect_workers(workers)]
        self._settings = check_servers(servers_from_env() if servers is None else servers)
        if on_event is not None:
            check_plain("on_event", on_event)
        self._on_event = on_event
        self._log = Log()
        self._counting = Counting()
        make = choose(self.config.transport)
        give_up_after = self.config.poll.give_up_after
        named = self.config.transport if isinstance(self.config.transport, str) else "auto"
        self._links = {settings.name: Link(settings, make, give_up_after, self._refuse) for settings in self._settings}
        self._payloads = {
            name: Payloads(link.server, link.transport, make, choose(named), most=self.config.max_result_bytes)
            for name, link in self._links.items()
        }
        self._poll_breakers = BreakerRegistry(self.config.breaker, on_event=partial(self._breaker_changed, "polls"))
        self._update_breakers = BreakerRegistry(self.config.breaker, on_event=partial(self._breaker_changed, "updates"))
        self._outbox = opened(self.config.outbox)
        self._relay = Relay(
            [link.destination() for link in self._links.values()],
            config=self.config.relay,
            breakers=self._update_breakers,
            store=self._outbox.store,
            on_event=self._heard,
        )
        self._pollers = [(spec, self._poller(spec)) for spec in self._specs]
        self._deliveries = Deliveries()
        self._phase = Phase.NEW
        self._kept_before = 0  # what could not go back before it stopped was timed out by its server, or will be
        self._lock = threading.RLock()  # a signal handler may stop what its thread is just starting
        self._pid: int | None = None  # of the process that it was started in
        self._here = threading.local()  # whether a thread is one that stopping waits for
        self._stopped = threading.Event()
        self._final: StopReport | None = None

    def __repr__(self) -> str:
        return f"<WorkerRunner of {', '.join(s.task_type for s in self._specs)} on {', '.join(self._links)}>"

    def start(self) -> None:
        """Start polling; returns once there are all threads, and polls nothing before.

        Raises:
            RuntimeError: it was started before; or there are no threads left to run the workers on: what had started
                is stopped again then, within the configured grace, as after anything else that ends a start half-way.
        """
        refuse_copy(self._pid)
        with self._lock:
            self._phase = advance(self._phase, Phase.RUNNING)
            self._pid = os.getpid()
        self._name()
        gate = threading.Event()
        try:
            self._relay.start()
            for spec, poller in self._pollers:
                poller.start(partial(self._run, spec), gate=gate)
        except RuntimeError as error:
            self._stop_what_started()
            raise RuntimeError(f"the workers were not started: {error.__cause__ or error}: {NO_THREADS}") from error
        except BaseException:
            self._stop_what_started()
            raise
        finally:
            gate.set()

    def stop(self, grace: float | None = None) -> StopReport:
        """Stop polling, give un-started tasks back, let running ones finish, send what waits.

        Args:
            grace: seconds it may take; None for the configured ones.

        May be called again: whoever does so while it stops waits for the end, and gets the report again. From within a
        task function or a listener, which stopping would have to wait for, it only begins to stop. A signal handler of
        your own should set an event, and your program stop then: the handler may have interrupted code that holds a
        lock which stopping needs. `run_workers` and the command do so.

        Returns:
            What was left undone; before the end what is left now, be it that ``grace`` is over or that nobody waits.

        Raises:
            ValueError: ``grace`` is negative or not finite (TypeError: no number); the workers run on.
            RuntimeError: it was started by the process that this one was forked from.
        """
        seconds = self.config.grace if grace is None else grace
        check_number("grace", seconds, least=0.0)
        refuse_copy(self._pid)
        with self._lock:
            before = self._phase
            if before in (Phase.NEW, Phase.RUNNING):
                self._phase = advance(before, Phase.STOPPED if before is Phase.NEW else Phase.STOPPING)
        seconds, waited_for = min(seconds, threading.TIMEOUT_MAX), getattr(self._here, "waited_for", False)
        if before is Phase.NEW:
            self._end(StopReport(books=self.books()))
        elif before is Phase.RUNNING and waited_for:
            self._stop_apart(seconds)
        elif before is Phase.RUNNING:
            self._stop(seconds)
        elif not waited_for:
            self._stopped.wait(None if grace is None else seconds)
        return self._final or self.report()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pid != os.getpid():
            self._log.left_in_copy(self._pid)
        elif self._phase is not Phase.STOPPED:
            self.stop()

    # -- private -----------------------------------------------------------------------------------------------------

    def _adjusted(self, spec: WorkerSpec) -> WorkerSpec:
        return attrs.evolve(spec, threads=self.config.threads or spec.threads)

    def _name(self) -> None:
        """Give workers their names, which name this process, and are in the results too.

        A server notes that one for the task that it sends back with its answer.
        """
        name = self.config.worker_id or f"{socket.gethostname()}-{os.getpid()}"
        for link in self._links.values():
            link.worker_id = name
        self._pollers = [
            (attrs.evolve(spec, worker_id=spec.worker_id or name), poller) for spec, poller in self._pollers
        ]

    def _poller(self, spec: WorkerSpec) -> Poller[Task]:
        try:
            return Poller(
                [link.source(spec) for link in self._links.values()],
                capacity=spec.threads,
                config=self.config.poll,
                breakers=self._poll_breakers,
                on_event=self._heard_of_polls,
            )
        except ValueError as error:  # the servers' reserves
            raise ValueError(f"worker {spec.task_type!r} has threads={spec.threads}: {error}") from None

    def _run(self, spec: WorkerSpec, item: Item[Task]) -> None:
        self._here.waited_for = True  # this thread runs nothing else
        try:
            self._counting.starts(item.source, item.value)
            result, error = self._attempt(spec, item)
            result = self._payloads[item.source].put_away(result)
            if result.is_final:  # a heartbeat that is handled beside it could undo it
                again = partial(self._repeat, item.source, item.value.task_id, result)
                item.end_lease(self.config.relay.inline_timeout, again)
            self._relay.deliver(item.source, item.value.task_id, result, chain=item, final=result.is_final)
        except BaseException as raised:
            raised.add_note(task_named(item.value.task_id, spec.task_type))  # whoever is told gets the error alone
            raise
        if result.status in FAILURES:
            failed = TaskFailed(item.source, spec.task_type, item.value.task_id, result.status, result.reason, error)
            self._log.task_failed(failed)
            self._tell(failed)

    def _repeat(self, server: str, task_id: str, result: TaskResult) -> None:
        self._counting.repeats(server)
        self._relay.hand_over(server, task_id, result)

    def _attempt(self, spec: WorkerSpec, item: Item[Task]) -> tuple[TaskResult, BaseException | None]:
        try:
            task = self._payloads[item.source].fetch(item.value)
        except Exception as error:  # noqa: BLE001 - never a run on an empty input; the server may try again
            reason = f"what is stored outside of the task could not be fetched: {error}"
            return TaskResult(status=TaskStatus.FAILED, reason=reason).of(item.value, spec.worker_id, ()), error
        return run_attempt(spec, task, server=item.source)

    def _refuse(self, server: str, task: UnreadableTask) -> None:
        """Tell the server that a task cannot be read here: a retry would meet the same."""
        status = TaskStatus.FAILED_WITH_TERMINAL_ERROR
        result = TaskResult(task_id=task.task_id, workflow_id=task.workflow_id, status=status, reason=task.reason)
        self._relay.hand_over(server, task.task_id, result)
        failed = TaskFailed(server, task.task_type, task.task_id, status, task.reason)
        self._log.task_failed(failed)
        self._tell(failed)

    def _breaker_changed(self, calls: str, event: BreakerChanged) -> None:
        changed = attrs.evolve(event, calls=calls)
        self._log.breaker_changed(changed)
        self._tell(changed)

    def _heard_of_polls(self, event: Event) -> None:
        if not isinstance(event, LeaseLost):
            self._log_poll(event)
            self._heard(event)
            return
        self._counting.loses_lease(event.source)
        task: Task = event.value  # type: ignore[assignment] # values of a poller of tasks
        lost = TaskLeaseLost(event.source, task.task_type, task.task_id, event.error)
        self._log.lease_lost(lost)
        self._tell(lost)

    def _log_poll(self, event: Event) -> None:
        if isinstance(event, SurplusArrived):
            self._log.surplus(event)
        elif isinstance(event, PollFailed) and isinstance(event.error, AnswerTooLarge):
            self._log.too_large(event)

    def _heard(self, event: Event) -> None:
        if isinstance(event, DeliveryEvent):
            self._note_delivery(event)
        elif isinstance(event, DeadLettered) and isinstance(event.error, Refused):
            self._tell_given_up(event)
        self._tell(event)

    def _tell(self, event: RunnerEvent) -> None:
        with self._waited_for():
            notify(self._on_event, event)

    def _tell_given_up(self, event: DeadLettered) -> None:
        """A server that kept refusing a result is sent a small one in its place: its workflow need not wait."""
        result: TaskResult = event.payload  # type: ignore[assignment] # payloads of a relay of results
        small = given_up(result, event.reason)
        if small is not None:
            self._relay.hand_over(event.destination, event.key, small)

    def _note_delivery(self, event: DeliveryEvent) -> None:
        """The relay tells of its events one at a time."""
        name = event.destination
        self._deliveries.note(event, self._relay.pending(name))
        for _, poller in self._pollers:
            poller.deliveries(name, self._deliveries.may_poll(name))

    def _stop_what_started(self) -> None:
        WorkerRunner.stop(self)

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        """What this thread does now, stopping waits for: it must not wait for the end of stopping in turn."""
        before, self._here.waited_for = getattr(self._here, "waited_for", False), True
        try:
            yield
        finally:
            self._here.waited_for = before

    def _stop_apart(self, grace: float) -> None:
        """Stop in a thread of its own; here, if there is none."""
        if not _starts(threading.Thread(target=self._stop, args=(grace,), name="stopping", daemon=True)):
            self._stop(grace)

    def _stop(self, grace: float) -> None:
        try:
            with self._waited_for():
                report = self._drained(grace)
            with self._lock:
                self._phase = advance(self._phase, Phase.STOPPED)
            self._end(report)
        finally:  # whatever ended it, nobody waits for ever
            self._stopped.set()

    def _drained(self, grace: float) -> StopReport:
        self._kept_before = sum(books.kept for books in self.books().values())
        began = time.monotonic()
        self._stop_pollers(grace)
        left = self._relay.close(share_of_grace(grace, time.monotonic() - began))
        self._stop_pollers(max(0.0, grace - (time.monotonic() - began)))  # what the last answers brought goes back
        saved = sum(view.left for view in self._relay.view().values())
        return attrs.evolve(self.report(), left=left, saved=saved)

    def _end(self, report: StopReport) -> None:
        for link in self._links.values():
            link.transport.close()
        for payloads in self._payloads.values():
            payloads.close()
        self._outbox.close()
        self._final = report
        self._stopped.set()

    def _stop_pollers(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        stoppers = [
            threading.Thread(target=poller.stop, args=(grace,), name="stopping", daemon=True)
            for _, poller in self._pollers
        ]
        started = [stopper for stopper in stoppers if _starts(stopper)]
        for stopper, (_, poller) in zip(stoppers, self._pollers, strict=True):
            if stopper not in started:
                poller.stop(max(0.0, deadline - time.monotonic()))
        for stopper in started:
            stopper.join()


def _starts(thread: threading.Thread) -> bool:
    """Start a thread, if the system has one left."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
