"""A consumer on threads: a poller for each kind of work, one relay for all answers."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import attrs

from resilience._checks import check_number, check_plain, refuse_unrun
from resilience.consumer.endpoint import (
    ConsumerConfig,
    Endpoint,
    Work,
    check_endpoints,
    destinations_of,
    work_of,
)
from resilience.consumer.engine import (
    ConsumerEngine,
    ConsumerReport,
    EndpointCounts,
    EndpointView,
    Phase,
    is_of_delivery,
    view_of,
)
from resilience.delivery import Outbox, Relay, Store
from resilience.delivery.store import check_store
from resilience.events import BreakerChanged, Event, LeaseLost, Listener, notify
from resilience.polling import Explanation, Item, Poller, SourceView
from resilience.registry import BreakerRegistry

__all__ = ["Consumer"]

V = TypeVar("V")
MORE_THREADS = "raise the limit of threads (ulimit -u; a container's pids limit), or lower the capacity"


class Consumer(Generic[V]):
    """Polls endpoints, runs a handler on each item, and sends what it returns to where the item came from.

    Answers are delivered at least once; an endpoint that is slow, hung, broken or idle does not slow the others. A
    context manager that stops it at the end. Thread-safe; installs no signal handlers.

    Args:
        endpoints: what is polled and answered; or several kinds of `Work`, which have endpoints of their own and are
            started without a handler.
        config: how it runs.
        outbox: a file for answers that have to wait (JSON), so that they outlive the process; or a `Store`, which is
            not closed with the consumer. None keeps them in memory.
        on_event: called with every event, in the thread where it came about.
        on_stopped: called once when it has stopped, before `stop` returns: the place to close connections.

    Attributes:
        relay: what delivers the answers; it has the dead letters.
        poll_breakers: the breakers of polls, by endpoint.
        send_breakers: the breakers of answers, by endpoint.

    Raises:
        ValueError: no endpoint, or two that cannot be told apart; the text says what to change.
        TypeError: an argument of the wrong type; the text says what to write.
        OutboxError: the file of the outbox cannot be used.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint[V]] | Iterable[Work[V]],
        *,
        config: ConsumerConfig = ConsumerConfig(),  # noqa: B008 - frozen
        outbox: str | os.PathLike[str] | Store | None = None,
        on_event: Listener | None = None,
        on_stopped: Callable[[], object] | None = None,
    ) -> None:
        for option, function in (("on_event", on_event), ("on_stopped", on_stopped)):
            if function is not None:
                check_plain(option, function)
        if not isinstance(config, ConsumerConfig):
            raise TypeError(f"config must be a ConsumerConfig, not {config!r} of type {type(config).__name__}")
        if outbox is not None and not isinstance(outbox, (str, os.PathLike)):
            check_store("outbox, if it is not a path,", outbox)
        given = check_endpoints(endpoints)
        works = [one for one in given if isinstance(one, Work)]
        self._endpoints = [one for one in given if isinstance(one, Endpoint)] or [e for w in works for e in w.endpoints]
        self._config = config
        self._on_event = on_event
        self._on_stopped = on_stopped
        destinations = destinations_of(self._endpoints)
        self._names = [destination.name for destination in destinations]
        self.poll_breakers = BreakerRegistry(config.breaker, on_event=partial(self._heard_of_breaker, "polls"))
        self.send_breakers = BreakerRegistry(config.breaker, on_event=partial(self._heard_of_breaker, "sends"))
        self._own = Outbox(outbox) if isinstance(outbox, (str, os.PathLike)) else None
        store = self._own if isinstance(outbox, (str, os.PathLike)) else outbox
        self.relay = Relay(
            destinations,
            config=config.relay,
            breakers=self.send_breakers,
            store=store,
            on_event=self._heard_of_delivery,
        )
        self._numbers = count(1)
        self._engine = ConsumerEngine()
        self._lock = threading.RLock()  # a signal handler may stop what its thread is just starting
        self._pollers: dict[str, tuple[Work[V], Poller[V]]] = {}
        for work in works:
            self._pollers[work.name] = (work, self._poller(work))
        self._pid: int | None = None  # of the process that it was started in
        self._here = threading.local()  # whether a thread is one that stopping waits for
        self._stopped = threading.Event()
        self._final: ConsumerReport | None = None

    def __repr__(self) -> str:
        return f"<Consumer of {', '.join(self._names)}: {self._engine.phase.value}>"

    @property
    def phase(self) -> Phase:
        """Where it is in its life: new, running, stopping or stopped."""
        return self._engine.phase

    # -- its life ------------------------------------------------------------------------------------------------------

    def start(self, handler: Callable[[Item[V]], object] | None = None, *, capacity: int | None = None) -> None:
        """Poll, and handle items on ``capacity`` threads; returns once there are all threads.

        What a handler raises becomes a `HandlerFailed` event: the item is done and gets no answer.

        Args:
            handler: ``handler(item)`` returns the answer to an item, None for none. Left out with several kinds of
                `Work`, which have handlers.
            capacity: items that may be handled at once; left out likewise.

        Raises:
            RuntimeError: it was started before; or the system has no threads for it: what had started is stopped again
                then, within ``config.grace``.
            ValueError: a capacity below 1.
            TypeError: a ``handler`` or a ``capacity`` is missing, or of the wrong type.
        """
        self._check_process()
        self._add(handler, capacity)
        with self._lock:
            self._engine.start()
            self._pid = os.getpid()
        gate = threading.Event()
        try:
            self.relay.start()
            for work, poller in self._pollers.values():
                poller.start(partial(self._handle, work, {e.name: e for e in work.endpoints}), gate=gate)
        except RuntimeError as error:
            self.stop()
            raise RuntimeError(f"the consumer was not started: {error.__cause__ or error}: {MORE_THREADS}") from error
        except BaseException:
            self.stop()
            raise
        finally:
            gate.set()

    def run(self, handler: Callable[[Item[V]], object] | None = None, *, capacity: int | None = None) -> None:
        """Like `start`, and wait until it has stopped: somebody, in another thread, calls `stop`."""
        self.start(handler, capacity=capacity)
        self._stopped.wait()

    def stop(self, grace: float | None = None) -> ConsumerReport:
        """Stop polling, give un-started items back, let handlers finish, send the answers that wait.

        May be called again: a second call while it stops waits for the end, and returns the same report. From within a
        handler or a listener, for which stopping would have to wait, it only begins to stop. A signal handler should
        set an event, and the program stop then: the handler may have interrupted code that holds a lock.

        Args:
            grace: seconds that it may take; None for ``config.grace``.

        Returns:
            What was left undone; what is left now if ``grace`` is over before the end, or nobody waits for the end.

        Raises:
            ValueError: ``grace`` is negative or not finite (TypeError: not a number); it runs on.
            RuntimeError: it was started by the process that this one was forked from.
        """
        seconds = self._config.grace if grace is None else grace
        check_number("grace", seconds, least=0.0)
        seconds = min(seconds, threading.TIMEOUT_MAX)
        self._check_process()
        counts = self.counts()
        with self._lock:
            before = self._engine.phase
            first = self._engine.stop(seconds, counts, time.monotonic())
        waited_for = getattr(self._here, "waited_for", False)
        if before is Phase.NEW:
            self._end(ConsumerReport(counts=counts))
        elif first and waited_for:
            self._drain_apart()
        elif first:
            self._drain()
        elif not waited_for:
            self._stopped.wait(None if grace is None else seconds)
        return self._final or self.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pid in (None, os.getpid()) and self._engine.phase is not Phase.STOPPED:
            self.stop()

    # -- changes while it runs -----------------------------------------------------------------------------------------

    def hand_over(self, endpoint: str, answer: Any) -> None:  # noqa: ANN401 - opaque
        """Send an answer that no handler returned, such as one to something that is not an item.

        Raises:
            ValueError: there is no endpoint of this name.
            TypeError: an answer that cannot be written down.
        """
        found = next((one for one in self._endpoints if one.name == endpoint), None)
        if found is None:
            raise self._unknown(endpoint)
        self.relay.hand_over(endpoint, self._key(found, answer), answer, final=found.persist(answer))

    def tell(self, event: Any) -> None:  # noqa: ANN401 - events of others
        """Call ``on_event`` with an event that is not the consumer's; a listener may stop it from there, too."""
        with self._waited_for():
            notify(self._on_event, event)

    def pause(self, endpoint: str) -> None:
        """Poll ``endpoint`` no more until `resume`; items that are handled finish, and answers go home.

        Raises:
            ValueError: there is no endpoint of this name.
            RuntimeError: it was started by the process that this one was forked from.
        """
        for poller in self._pollers_of(endpoint):
            poller.pause(endpoint)

    def resume(self, endpoint: str) -> None:
        """Poll ``endpoint`` again; errors as for `pause`."""
        for poller in self._pollers_of(endpoint):
            poller.resume(endpoint)

    def set_weight(self, endpoint: str, weight: int) -> None:
        """Change the claim of ``endpoint`` to the capacity of every kind of work.

        Raises:
            ValueError: there is no endpoint of this name, or a weight below 1 (TypeError: not a whole number).
            RuntimeError: it was started by the process that this one was forked from.
        """
        for poller in self._pollers_of(endpoint):
            poller.set_weight(endpoint, weight)

    def set_capacity(self, capacity: int, work: str = "") -> None:
        """Change how many items of a kind of work may be handled at once; with fewer, those that run finish.

        Raises:
            ValueError: there is no such kind of work, or a capacity below 1 (TypeError: not a whole number).
            RuntimeError: it was started by the process that this one was forked from.
        """
        self._check_process()
        if work not in self._pollers:
            known = ", ".join(map(repr, self._pollers)) or "none before it is started"
            raise ValueError(f"unknown kind of work {work!r}: known are {known}")
        self._pollers[work][1].set_capacity(capacity)

    # -- what it reports -----------------------------------------------------------------------------------------------

    def view(self) -> dict[str, EndpointView]:
        """How each endpoint stands, by name.

        Raises:
            RuntimeError: it was started by the process that this one was forked from; so for the others here.
        """
        return {
            name: view_of(
                self.poll_breakers.get(name).state.value,
                self.send_breakers.get(name).state.value,
                views,
                self.relay.pending(name),
            )
            for name, views in self._views().items()
        }

    def counts(self) -> dict[str, EndpointCounts]:
        """What became of each endpoint's items and answers so far, by name; they balance at every moment."""
        views, answers = self._views(), self.relay.view()
        with self._lock:
            return {name: self._engine.counts(name, views[name], answers[name]) for name in self._names}

    def explain(self) -> dict[str, dict[str, Explanation]]:
        """What each kind of work asks of each endpoint now, and why: by work, then by endpoint."""
        self._check_process()
        return {name: poller.explain() for name, (_, poller) in self._pollers.items()}

    def report(self) -> ConsumerReport:
        """What would be left undone if the process ended now."""
        counts = self.counts()
        with self._lock:
            return self._engine.report(counts)

    # -- one item ------------------------------------------------------------------------------------------------------

    def _handle(self, work: Work[V], endpoints: Mapping[str, Endpoint[V]], item: Item[V]) -> None:
        self._here.waited_for = True  # this thread runs nothing else
        answer = work.handler(item)
        if answer is None:
            return
        refuse_unrun("handler", answer)
        endpoint = endpoints[item.source]
        key, persist = self._key(endpoint, answer), endpoint.persist(answer)
        try:
            if persist:  # a heartbeat that is handled beside it could undo it
                item.end_lease(self._config.relay.inline_timeout, partial(self._repeat, item.source, key, answer))
            self.relay.deliver(item.source, key, answer, chain=item, final=persist)
        except BaseException as error:
            error.add_note(f"raised while the answer {key!r} was sent to {item.source!r}")
            raise

    def _key(self, endpoint: Endpoint[V], answer: object) -> str:
        return str(next(self._numbers)) if endpoint.key is None else endpoint.key(answer)

    def _repeat(self, name: str, key: str, answer: object) -> None:
        with self._lock:
            self._engine.repeats(name)
        self.relay.hand_over(name, key, answer)

    # -- events --------------------------------------------------------------------------------------------------------

    def _heard_of_breaker(self, calls: str, event: BreakerChanged) -> None:
        self.tell(attrs.evolve(event, calls=calls))

    def _heard_of_poll(self, event: Event) -> None:
        if isinstance(event, LeaseLost):
            with self._lock:
                self._engine.loses_lease(event)
        self.tell(event)

    def _heard_of_delivery(self, event: Event) -> None:
        """The relay reports its events one at a time."""
        if is_of_delivery(event):
            name = event.destination  # type: ignore[union-attr] # all of these have it
            waiting = self.relay.pending(name)
            with self._lock:
                self._engine.note(event, waiting)  # type: ignore[arg-type] # it is one of them
                may_poll = self._engine.may_poll(name)
            for work, poller in list(self._pollers.values()):
                if any(endpoint.name == name for endpoint in work.endpoints):
                    poller.deliveries(name, may_poll)
        self.tell(event)

    # -- stopping ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        """Stopping waits for what this thread does now: it must not wait for the end of stopping in turn."""
        before, self._here.waited_for = getattr(self._here, "waited_for", False), True
        try:
            yield
        finally:
            self._here.waited_for = before

    def _drain_apart(self) -> None:
        """Stop in a thread of its own; here, if there is none."""
        if not _starts(threading.Thread(target=self._drain, name="stopping", daemon=True)):
            self._drain()

    def _drain(self) -> None:
        try:
            undelivered = 0
            with self._waited_for():
                while (stage := self._engine.next_stage(time.monotonic())) is not None:
                    if stage.closes_relay:
                        undelivered = self.relay.close(stage.seconds)
                    else:
                        self._stop_pollers(stage.seconds)
                stored = sum(view.left for view in self.relay.view().values())
                report = attrs.evolve(self.report(), undelivered=undelivered, stored=stored)
            self._end(report)
        finally:  # whatever ended it, nobody waits for ever
            self._stopped.set()

    def _end(self, report: ConsumerReport) -> None:
        if self._on_stopped is not None:
            self._on_stopped()
        if self._own is not None:
            self._own.close()
        self._final = report
        self._stopped.set()

    def _stop_pollers(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        pollers = [poller for _, poller in self._pollers.values()]
        stoppers = [
            threading.Thread(target=poller.stop, args=(grace,), name="stopping", daemon=True) for poller in pollers
        ]
        started = [stopper for stopper in stoppers if _starts(stopper)]
        for stopper, poller in zip(stoppers, pollers, strict=True):
            if stopper not in started:
                poller.stop(max(0.0, deadline - time.monotonic()))
        for stopper in started:
            stopper.join()

    # -- private -------------------------------------------------------------------------------------------------------

    def _add(self, handler: Callable[[Item[V]], object] | None, capacity: int | None) -> None:
        if self._pollers and (handler is not None or capacity is not None):
            if self._engine.phase is not Phase.NEW:
                return  # starting says what is wrong
            raise TypeError("this consumer has several kinds of Work, each with its handler and capacity: give none")
        if self._pollers:
            return
        if handler is None or capacity is None:
            raise TypeError("a consumer of endpoints needs a handler and a capacity: start(handler, capacity=20)")
        work = work_of(handler, self._endpoints, capacity)
        self._pollers[work.name] = (work, self._poller(work))

    def _poller(self, work: Work[V]) -> Poller[V]:
        return Poller(
            [endpoint.source() for endpoint in work.endpoints],
            capacity=work.capacity,
            config=self._config.poll,
            breakers=self.poll_breakers,
            on_event=self._heard_of_poll,
        )

    def _views(self) -> dict[str, list[SourceView]]:
        self._check_process()
        views = [poller.view() for _, poller in list(self._pollers.values())]
        return {name: [view[name] for view in views if name in view] for name in self._names}

    def _pollers_of(self, endpoint: str) -> list[Poller[V]]:
        self._check_process()
        if endpoint not in self._names:
            raise self._unknown(endpoint)
        found = list(self._pollers.values())
        if not found:
            raise RuntimeError("this consumer polls nothing yet: start it first")
        return [poller for work, poller in found if any(one.name == endpoint for one in work.endpoints)]

    def _unknown(self, endpoint: str) -> ValueError:
        return ValueError(f"unknown endpoint {endpoint!r}: known are {', '.join(map(repr, self._names))}")

    def _check_process(self) -> None:
        if self._pid is not None and self._pid != os.getpid():
            raise RuntimeError(
                f"this consumer was started by process {self._pid} and runs there; process {os.getpid()} was forked"
                " from it: make a consumer in each process, after the fork"
            )


def _starts(thread: threading.Thread) -> bool:
    """Start a thread, if the system has one left."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
