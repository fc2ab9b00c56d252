"""The public API as users write it, for the type checker alone: ``test_typing_api.py`` checks it, nothing runs it.

``assert_type`` says what a user's editor shows. A ``type: ignore`` says that the line must be refused: under
``--strict`` one that is not needed is an error.
"""

# ruff: noqa: D102, D103 - the names say what a user does here

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Protocol, assert_type

from conductor_adapter import (
    Books,
    Credentials,
    DevServer,
    InProgress,
    NonRetryable,
    RunnerConfig,
    RunnerListener,
    ServerSettings,
    ServerView,
    StopReport,
    Task,
    TaskContext,
    TaskResult,
    TaskStatus,
    WorkerRunner,
    WorkerSpec,
    execute,
    run_workers,
    servers_from_env,
    servers_from_toml,
    task_context,
    worker,
)
from conductor_adapter.dev_server import Faults, FinishedRun
from resilience import (
    BacklogDrained,
    BacklogFull,
    Backoff,
    BreakerChanged,
    BreakerConfig,
    BreakerOpenError,
    BreakerRegistry,
    BreakerState,
    Cancelled,
    CapacityAllocator,
    CircuitBreaker,
    Claimed,
    DeadLetter,
    DeadLettered,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    Destination,
    DestinationView,
    Event,
    Explanation,
    Failed,
    FanOutExecutor,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    Incomplete,
    Item,
    ItemsArrived,
    ItemsArrivedLate,
    LeaseGivenUp,
    LeaseLost,
    Listener,
    MemoryStore,
    Outbox,
    OutboxFailed,
    OutboxResumed,
    Outcome,
    Permit,
    PollConfig,
    Poller,
    PollFailed,
    PollOverdue,
    PollPlanner,
    PollRequest,
    PollTimedOut,
    Rejected,
    Relay,
    RelayConfig,
    ResilienceError,
    Row,
    RowsKept,
    Session,
    Source,
    SourceView,
    Stock,
    Store,
    SurplusArrived,
    Tally,
    ThreadUnavailable,
    Throttled,
    TimedOut,
    Undeliverable,
    Undelivered,
    Value,
    Why,
    allocate,
)
from resilience.testing import Held, ManualClock, ScriptedCall


class Invoice:
    """What a user's function returns."""


def fetch(invoice_id: str, *, fresh: bool = False) -> Invoice:
    raise NotImplementedError(invoice_id, fresh)


async def fetch_async(invoice_id: str) -> Invoice:
    raise NotImplementedError(invoice_id)


def retry_in(seconds: float) -> None: ...


# -- one guarded call --------------------------------------------------------------------------------------------------


def guarded_call() -> Invoice | None:
    breaker = CircuitBreaker("billing", BreakerConfig(fail_max=3, reset_timeout=30.0), rng=random.Random(1))
    try:
        with breaker.guard() as permit:
            assert_type(permit, Permit)
            return fetch("7")
    except BreakerOpenError as error:
        retry_in(error.retry_after)
        assert_type(error.name, str)
    return None


def judged_and_rated() -> None:
    BreakerConfig(fail_max=None, failure_rate=0.5, window=10.0, min_calls=20, max_retry_after=60.0)
    BreakerConfig(counts=lambda what: isinstance(what, OSError))
    BreakerConfig(counts=lambda: True)  # type: ignore[arg-type,misc]
    CircuitBreaker("billing", fail_max=3)  # type: ignore[arg-type] # it belongs into the configuration
    Throttled(timedelta(seconds=2))


def decorated_calls(breaker: CircuitBreaker) -> None:
    assert_type(breaker(fetch)("7", fresh=True), Invoice)  # keeps its parameters
    breaker(fetch)(7)  # type: ignore[arg-type]
    assert_type(asyncio.run(breaker(fetch_async)("7")), Invoice)  # a coroutine function remains one


async def guarded_coroutine(breaker: CircuitBreaker) -> Invoice:
    with breaker.guard():
        return await fetch_async("7")


def two_steps(breakers: BreakerRegistry) -> None:
    answer = breakers.get("billing").try_acquire()
    assert_type(answer, Permit | Rejected)
    answer.success()  # type: ignore[union-attr] # it may be a refusal
    if isinstance(answer, Rejected):
        assert_type(answer.retry_after, float | None)
        return
    assert_type(answer.failure(OSError("down"), retry_after=2.0), bool)
    assert_type(answer.report(Value(1)), bool)
    assert_type(answer.run(fetch, "7", fresh=True), Invoice)
    answer.run(fetch, 7)  # type: ignore[arg-type]
    assert_type(breakers.get("billing").state, BreakerState)
    assert_type([name for name in breakers if name in breakers], list[str])


# -- many calls, one deadline ------------------------------------------------------------------------------------------


def fan_out(calls: Mapping[str, Callable[[], float]]) -> dict[str, int]:
    def store(name: str, outcome: Outcome[int]) -> None: ...

    with FanOutExecutor(breakers=BreakerRegistry(), max_abandoned=2, max_workers=8) as executor:
        outcomes = executor.run({"eu": lambda: 1, "us": lambda: 2}, timeout=0.5, on_late=store)
        assert_type(executor.run(calls, 0.5), dict[str, Outcome[float]])
    assert_type(outcomes, dict[str, Outcome[int]])
    for outcome in outcomes.values():
        describe(outcome)
    return {name: o.value for name, o in outcomes.items() if isinstance(o, Value)}


def describe(outcome: Outcome[int]) -> str:
    """All cases, and no other."""
    if isinstance(outcome, Value):
        return str(outcome.value + 1)
    if isinstance(outcome, Failed):
        return repr(outcome.error)
    if isinstance(outcome, TimedOut):
        return f"{outcome.timeout:g} s"
    if isinstance(outcome, Rejected):
        return outcome.reason
    assert_type(outcome, Cancelled)
    return "cancelled"


def as_they_come(executor: FanOutExecutor) -> None:
    told: list[str] = []
    with executor.session() as session:
        assert_type(session, Session)
        session.submit("eu", lambda: 1, 5.0, on_outcome=lambda _, outcome: told.append(describe(outcome)))
        if (pair := session.next(5.0)) is not None:
            told.append(describe(pair[1]))
        assert_type(session.expire(), float | None)


# -- many sources, one capacity ----------------------------------------------------------------------------------------


class Redis(Protocol):
    """What a user's client can do."""

    def lpop(self, name: str, count: int) -> list[bytes] | None: ...
    def lpush(self, name: str, *values: bytes) -> int: ...


def jobs(name: str, redis: Redis) -> Source[bytes]:
    return Source(
        name,
        lambda count, _wait: redis.lpop("jobs", count),
        give_back=lambda values: redis.lpush("jobs", *reversed(values)),
        extend=lambda value, timeout: redis.lpush(value.decode(), timeout.hex().encode()),
        lease=lambda value: None if value else 30.0,
        weight=2,
        max_batch=10,
        max_units=None,
        reserve=0,
    )


def wrong_source(redis: Redis) -> Source[bytes]:
    return Source("jobs", redis.lpop)  # type: ignore[arg-type] # asks for (count, wait)


def poll(sources: Sequence[Source[bytes]], listener: Listener) -> None:
    def handle(item: Item[bytes]) -> None: ...
    def handle_text(item: Item[str]) -> None: ...

    with Poller(sources, capacity=20, config=PollConfig(poll_wait=1.0), on_event=listener) as poller:
        poller.run(handle)
        poller.start(handle_text)  # type: ignore[arg-type]
        for item in poller:
            with item as same:
                assert_type(same.value, bytes)
        assert_type(poller.take(timeout=1.0), list[Item[bytes]])
        assert_type(poller.view(), dict[str, SourceView])
        assert_type(poller.total(), Tally)
        assert_type(poller.view()["eu"].kept, int)
        poller.add(sources[0])
        poller.pause("eu")
        poller.resume("eu")
        poller.set_weight("eu", 2)
        poller.set_capacity(10)
        poller.remove("eu")
        assert_type(poller.explain(), dict[str, Explanation])
        assert_type(poller.explain()["eu"].why, Why)
        assert_type(poller.stop(grace=5.0), bool)
    Poller(sources)  # type: ignore[call-arg] # has no default capacity


def own_driver(source: Source[bytes]) -> list[object]:
    planner = PollPlanner([source], capacity=2)
    requests = planner.plan(now=0.0)
    assert_type(requests, list[PollRequest])
    for request in requests:
        planner.failed(request, Throttled(2.0), 0.1, hint=2.0)
    raise Incomplete("line 2 is damaged", [held.value for held in planner.start(limit=2)])


# -- results that must arrive ------------------------------------------------------------------------------------------


class FileStore:
    """A store of one's own."""

    durable = True
    claim_for = 30.0

    def check(self, payload: object) -> None: ...

    def put(self, row: Row) -> Row:
        return row

    def remove(self, row: Row) -> None: ...
    def bury(self, row: Row, reason: str) -> None: ...

    def claim(self, destinations: Mapping[str, str]) -> Claimed:
        raise NotImplementedError(destinations)

    def release(self, rows: Collection[Row]) -> None: ...

    def stock(self) -> tuple[Stock, ...]:
        return ()

    def dead_letters(self, destination: str | None = None) -> tuple[DeadLetter, ...]:
        raise NotImplementedError(destination)

    def revive(self, destination: str | None = None) -> int:
        raise NotImplementedError(destination)


def deliver(listener: Listener) -> int:
    def send(_payload: bytes, _timeout: float) -> None:
        raise Undeliverable("nobody wants it")

    outbox = Outbox("outbox.db", dump=bytes.hex, load=bytes.fromhex, claim_for=10.0)
    Outbox("outbox.db", dump=repr, load=str, claim_for="10 s")  # type: ignore[arg-type] # seconds
    assert_type(outbox.purge("eu", ids=[1]), int)
    stores: list[Store] = [MemoryStore(max_dead_letters=10), FileStore(), outbox]
    destination = Destination("eu", send, identity="http://eu", bounded=True)
    with Relay([destination], config=RelayConfig(), store=stores[0], on_event=listener) as relay:
        assert_type(relay.deliver("eu", "task-1", b"done"), bool)
        relay.hand_over("eu", "task-1", b"done")
        assert_type(relay.dead_letters(), tuple[DeadLetter, ...])
        assert_type(relay.view(), dict[str, DestinationView])
        relay.deliver(destination, "task-1", b"done")  # type: ignore[arg-type] # by name
        return relay.close(timeout=1.0)


# -- shares, backoff, events -------------------------------------------------------------------------------------------


def share(weights: Mapping[str, int]) -> None:
    assert_type(allocate(10, weights, {"eu": 3}), dict[str, int])
    allocator = CapacityAllocator({("eu", 1): 1, ("us", 1): 2})
    assert_type(allocator.allocate(1), dict[tuple[str, int], int])
    assert_type(Backoff(initial=0.05, maximum=1.0).delay(1, rng=random.Random(1)), float)


def tell(event: Event) -> str:
    """All cases, and no other."""
    if isinstance(event, BreakerChanged):
        return f"{event.name}: {event.before.value} -> {event.after.value}"
    if isinstance(event, (ItemsArrived, ItemsArrivedLate, SurplusArrived, GaveBack)):
        return f"{event.source}: {event.count}"
    if isinstance(event, (PollFailed, GiveBackFailed, HandlerFailed, LeaseLost)):
        return f"{event.source}: {event.error!r}"
    if isinstance(event, (PollOverdue, PollTimedOut, LeaseGivenUp, ThreadUnavailable)):
        return event.source
    if isinstance(event, OutboxFailed):
        return str(event.error)
    assert_type(
        event,
        DeliveryFailed
        | DeliveryRefused
        | DeliveryResumed
        | DeadLettered
        | BacklogFull
        | BacklogDrained
        | OutboxResumed
        | RowsKept
        | Undelivered,
    )
    return event.destination


def frozen(config: PollConfig, error: ResilienceError) -> None:
    config.poll_wait = 2.0  # type: ignore[misc]
    PollConfig(2.0)  # type: ignore[call-arg] # by keyword alone
    raise error


# -- workers -----------------------------------------------------------------------------------------------------------


@worker("charge", threads=10, heartbeats=False)
def charge(order_id: str, amount: int) -> dict[str, object]:
    context = task_context()
    assert_type(context, TaskContext)
    assert_type(context.task, Task)
    if amount < 0:
        raise NonRetryable(f"order {order_id}: nothing to charge on {context.server}")
    if amount == 0:
        raise InProgress(callback_after=30.0, output={"waiting": True})
    return {"ok": True}


@worker  # type: ignore[arg-type] # needs a task type
def no_type() -> None: ...


def called_as_it_stands() -> dict[str, object]:
    charge("7")  # type: ignore[call-arg] # the decorator keeps the signature
    return charge("7", amount=3)


def servers() -> tuple[ServerSettings, ...]:
    return (
        ServerSettings("eu", "http://eu/api", auth=Credentials("key", "secret")),
        ServerSettings("us", "http://us/api", weight=2, headers={"X-Gateway": "1"}),
        ServerSettings("au", "http://au/api", headers=lambda: {"X-Gateway": "1"}),
        *servers_from_env({"CONDUCTOR_SERVER_URL": "http://ap/api"}),
        *servers_from_toml("servers.toml"),
    )


def run(listener: RunnerListener) -> bool:
    config = RunnerConfig(threads=4, poll=PollConfig(), breaker=BreakerConfig(), relay=RelayConfig())
    spec = WorkerSpec(task_type="charge", function=charge, domain="fast")
    run_workers(charge, servers=servers())  # type: ignore[arg-type] # a list
    report = run_workers([charge, spec], servers=servers(), config=config, duration=5.0, on_event=listener)
    assert_type(report, StopReport)
    return report.clean


def tested() -> None:
    result = execute(charge, {"order_id": "7", "amount": 3}, server="eu", retry_count=1)
    assert_type(result, TaskResult)
    assert_type(result.status, TaskStatus)
    with DevServer(faults=Faults(latency=0.1)) as server, WorkerRunner([charge], servers=[server.settings]) as runner:
        run_id = server.start_task("charge", {"order_id": "7", "amount": 3}, responseTimeoutSeconds=2)
        assert_type(server.wait(run_id, timeout=5), FinishedRun)
        assert_type(runner.view(), dict[str, ServerView])
        assert_type(runner.books(), dict[str, Books])
        assert_type(runner.report().clean, bool)
        assert_type(sum(runner.report().books.values(), Books()), Books)
        server.faults = Faults(hang=True)
        server.faults.clear()
    clock, call = ManualClock(), ScriptedCall[int](1, Held(2), OSError)
    assert_type(clock.advance(1.0), float)
    assert_type(call(), int)
    CircuitBreaker("eu", clock=clock)
