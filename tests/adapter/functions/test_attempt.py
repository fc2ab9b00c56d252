"""What a task comes to when its function runs: the promises of ``@worker``, ``run_task`` and ``execute``."""

import concurrent.futures
import contextvars
import dataclasses
import functools
import threading
from collections.abc import Callable

import attrs
import pytest

from conductor_adapter.client.protocol import build_update
from conductor_adapter.functions.attempt import InProgress, NonRetryable, execute, run_attempt, run_task, task_context
from conductor_adapter.functions.decorator import WorkerSpec, collect_workers, spec_of, worker
from conductor_adapter.tasks import Task, TaskResult, TaskStatus

TERMINAL = TaskStatus.FAILED_WITH_TERMINAL_ERROR


def charge(amount: int = 1) -> int:
    """A plain task function."""
    return amount


# -- the decorator


def test_worker_returns_the_function_itself() -> None:
    """A marked function is the same object and is called as before."""

    def double(number: int) -> int:
        return 2 * number

    marked = worker("double", threads=3, domain="eu", worker_id="w", heartbeats=False)(double)

    assert marked is double
    assert marked(4) == 8
    spec = spec_of(marked)
    assert (spec.task_type, spec.threads, spec.domain, spec.worker_id) == ("double", 3, "eu", "w")
    assert not spec.heartbeats
    assert spec.function is double


def test_spec_is_frozen() -> None:
    """A spec cannot be changed, only evolved, and the variant is checked again."""
    spec = WorkerSpec(task_type="charge", function=charge)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        spec.threads = 2  # type: ignore[misc]
    assert attrs.evolve(spec, threads=2).threads == 2
    with pytest.raises(ValueError, match="threads is 0"):
        attrs.evolve(spec, threads=0)


@pytest.mark.parametrize("threads", [0, -1, 10_001, True, False, float("nan"), 1.5, "2", None])
def test_bad_threads_name_the_worker(threads: object) -> None:
    """Anything but a whole number, 1 to 10,000, is a ValueError with the worker, the function and the value."""
    with pytest.raises(ValueError, match="threads is") as caught:
        worker("charge", threads=threads)(charge)  # type: ignore[arg-type]

    assert "'charge'" in str(caught.value)
    assert "charge in " in str(caught.value)
    assert repr(threads) in str(caught.value)


def test_bad_heartbeats_name_the_worker() -> None:
    """Seconds, for instance, would look like a setting and be none."""
    with pytest.raises(TypeError, match=r"worker 'charge' .*: heartbeats is 30; use True or False"):
        worker("charge", heartbeats=30)(charge)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"domain": ""}, {"domain": 3}, {"worker_id": " "}, {"domain": "\udce4"}])
def test_bad_names_are_refused(options: dict) -> None:
    """An empty domain or worker id is an error that says to leave it out."""
    with pytest.raises(ValueError, match="or omit it"):
        worker("charge", **options)(charge)


@pytest.mark.parametrize("task_type", ["", "  ", None, 5, "half of a character \ud800"])
def test_bad_task_type_is_refused(task_type: object) -> None:
    """The task type must be a name that a URL can carry; the error says which function it is about."""
    with pytest.raises(ValueError, match=r"charge in .*it must be a non-empty str"):
        worker(task_type)(charge)  # type: ignore[arg-type]


def test_worker_without_a_task_type_says_what_to_write() -> None:
    """``@worker`` without parentheses is the first mistake everybody makes."""
    with pytest.raises(TypeError, match=r'write @worker\("…"\)'):
        worker(charge)  # type: ignore[arg-type]


def test_async_function_is_refused_for_now() -> None:
    """A coroutine function, method or object would never run: the error says what to write."""

    async def later() -> None: ...

    class AsyncObject:
        async def __call__(self) -> None: ...

    for function in (later, AsyncObject(), functools.partial(later)):
        with pytest.raises(TypeError, match=r"is an async def; for now, write def "):
            worker("later")(function)


def test_generator_function_is_refused() -> None:
    """A function that yields would be called and never run."""

    def steps():
        yield 1

    with pytest.raises(TypeError, match="generator function"):
        worker("steps")(steps)


def test_function_without_a_signature_is_refused() -> None:
    """Some built-in functions cannot be bound by name: the error says to wrap them."""
    with pytest.raises(TypeError, match="wrap it in a def"):
        WorkerSpec(task_type="x", function=max)


def test_class_is_no_worker() -> None:
    """A class is refused, it would be constructed for each task."""
    with pytest.raises(TypeError, match="a worker is a function, not type"):
        WorkerSpec(task_type="x", function=Task)


def test_two_task_types_on_one_function_are_refused() -> None:
    """The second mark would silently win, so it is an error that names both."""

    def function() -> None: ...

    worker("a")(function)
    with pytest.raises(TypeError, match=r"'b'.*is already the worker 'a'"):
        worker("b")(function)


def test_unmarkable_function_says_how_to_go_on() -> None:
    """What takes no attribute (here a bound method) can still be a worker through WorkerSpec."""

    class Shop:
        def sell(self, item: str) -> str:
            return item

    with pytest.raises(TypeError, match="pass WorkerSpec"):
        worker("sell")(Shop().sell)
    assert execute(WorkerSpec(task_type="sell", function=Shop().sell), {"item": "tea"}).output == {"result": "tea"}


def test_marked_method_runs_with_its_object() -> None:
    """A method marked in its class is a worker once it is bound."""

    class Shop:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        @worker("sell")
        def sell(self, item: str) -> str:
            return self.prefix + item

    (spec,) = collect_workers([Shop("a-").sell])

    assert execute(spec, {"item": "tea"}).output == {"result": "a-tea"}


def test_decorator_above_worker_is_run_too() -> None:
    """``functools.wraps`` copies the mark; what runs is the outer function, with the inner one's parameters."""
    seen = []

    def noting(function: Callable) -> Callable:
        @functools.wraps(function)
        def outer(*args: object, **kwargs: object) -> object:
            seen.append(kwargs)
            return function(*args, **kwargs)

        return outer

    @noting
    @worker("double")
    def double(number: int) -> int:
        return 2 * number

    assert execute(double, {"number": 2, "other": 0}).output == {"result": 4}
    assert seen == [{"number": 2}]


def test_spec_of_something_else_is_an_error() -> None:
    """The error names the function and the line to add."""
    with pytest.raises(TypeError, match=r"charge in .* is not a worker; decorate it with @worker"):
        spec_of(charge)
    with pytest.raises(TypeError, match="5 is not a worker"):
        spec_of(5)  # type: ignore[arg-type]


# -- several together


def test_collect_workers_keeps_order_and_counts_one_once() -> None:
    """Specs come in the order given; the same worker twice is one."""

    @worker("b")
    def b() -> None: ...

    @worker("a")
    def a() -> None: ...

    assert [s.task_type for s in collect_workers([b, a, b, spec_of(a)])] == ["b", "a"]


def test_two_workers_for_one_task_type_name_both() -> None:
    """Two functions for one (task type, domain) is an error with both names; another domain is another worker."""

    @worker("pay")
    def first() -> None: ...

    @worker("pay")
    def second() -> None: ...

    @worker("pay", domain="eu")
    def elsewhere() -> None: ...

    @worker("pay", domain="eu")
    def elsewhere_too() -> None: ...

    assert len(collect_workers([first, elsewhere])) == 2
    with pytest.raises(ValueError, match=r"'pay' with no domain: .*first in .* and .*second in "):
        collect_workers([first, second])
    with pytest.raises(ValueError, match="domain 'eu'"):
        collect_workers([elsewhere, elsewhere_too])


def test_collect_workers_refuses_none_and_a_lone_function() -> None:
    """An empty list and a function without its list are errors that say what to write."""
    with pytest.raises(ValueError, match="no workers given"):
        collect_workers([])
    with pytest.raises(TypeError, match=r"write \[the_function\]"):
        collect_workers(charge)  # type: ignore[arg-type]


# -- what a task comes to


@attrs.frozen
class Holder:
    """An attrs class around an object that others use too."""

    of: object


@attrs.frozen
class Receipt:
    """An attrs class as output."""

    total: int


@dataclasses.dataclass
class Line:
    """A data class as output."""

    price: int
    receipt: Receipt


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        (None, {}),
        ({"a": [1]}, {"a": [1]}),
        ({}, {}),
        (3, {"result": 3}),
        ([1, "b"], {"result": [1, "b"]}),
        (False, {"result": False}),
        (Receipt(5), {"total": 5}),
        (Line(2, Receipt(5)), {"price": 2, "receipt": {"total": 5}}),
        ([Receipt(5)], {"result": [{"total": 5}]}),
    ],
)
def test_returned_value_becomes_the_output(returned: object, output: dict) -> None:
    """None, objects, other values and data classes complete the task."""
    result = execute(lambda: returned)

    assert result.status is TaskStatus.COMPLETED
    assert result.output == output
    assert result.reason is None
    assert result.logs == ()


def test_result_carries_the_ids_of_its_task() -> None:
    """Ids come from the task, the worker id from the spec."""
    spec = WorkerSpec(task_type="charge", function=charge, worker_id="w7")

    result = run_task(spec, Task(task_id="t1", workflow_id="wf1"), server="eu")

    assert (result.task_id, result.workflow_id, result.worker_id) == ("t1", "wf1", "w7")


def test_task_result_is_returned_as_it_is_with_ids() -> None:
    """What the function says itself stands; only what it left out is filled in."""
    said = TaskResult(status=TaskStatus.FAILED, output={"a": 1}, reason="no", logs=((1.0, "mine"),), worker_id="me")

    def function() -> TaskResult:
        task_context().add_log("first")
        return said

    result = execute(function, task_id="t1", workflow_id="wf1")

    assert attrs.evolve(result, logs=()) == attrs.evolve(said, task_id="t1", workflow_id="wf1", logs=())
    assert [text for _, text in result.logs] == ["first", "mine"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (TaskResult(task_id="other"), "is for task 'other', not for 'local-task'"),
        (TaskResult(workflow_id="other"), "omit the ids"),
        (TaskResult(status="COMPLETED"), "cannot be sent: its status is 'COMPLETED'; use a TaskStatus"),
        (TaskResult(status=TaskStatus.IN_PROGRESS, callback_after=float("nan")), "its callback_after is nan"),
        (TaskResult(status=TaskStatus.IN_PROGRESS, callback_after=-1), "its callback_after is -1; it must be 0 to"),
        (TaskResult(status=TaskStatus.IN_PROGRESS, callback_after=10**5000), "its callback_after is 1e+300;"),
        (TaskResult(status=TaskStatus.IN_PROGRESS, callback_after=True), "its callback_after is of type bool;"),
        (TaskResult(worker_id=object()), "its worker_id is of type object; it must be a str"),
        (TaskResult(status=TaskStatus.FAILED, reason=ValueError("x")), "its reason is of type ValueError; it must"),
        (TaskResult(logs=((0, object()),)), "an entry of its logs is 0 and of type object"),
        (TaskResult(logs=((float("inf"), "x"),)), "an entry of its logs is inf and of type str"),
        (TaskResult(logs=((1e300, "x"),)), "an entry of its logs is 1e+300 and"),
        (TaskResult(logs=((-1, "x"),)), "an entry of its logs is -1 and"),
        (TaskResult(logs=("x",)), "its logs must be pairs of a time in seconds and a str"),
        (TaskResult(logs=5), "its logs must be pairs"),
        (TaskResult(output=5), "its output is of type int; it must be a mapping"),
        (TaskResult(output={"a": float("nan")}), r"output.a is nan"),
    ],
)
def test_unusable_task_result_is_terminal(said: TaskResult, reason: str) -> None:
    """A result for another task, or one that could not be sent, is found before its delivery."""
    result = execute(lambda: said)

    assert result.status is TERMINAL
    assert result.task_id == "local-task"
    assert reason in (result.reason or "")


def test_a_result_does_not_change_after_its_function_returned() -> None:
    """Objects that the function goes on using (a cache, a shared list) are sent as they were when it returned."""
    shared: dict[str, object] = {"of": ["first"]}
    lines = [(1.0, "first")]
    ways: list[Callable[[], object]] = [
        lambda: shared,
        lambda: InProgress(1, shared),
        lambda: TaskResult(output=shared, logs=lines),  # type: ignore[arg-type]
        lambda: Holder(shared["of"]),
    ]
    results = [execute(way) for way in ways]
    sent_at_once = [build_update(result).body for result in results]

    shared["of"].append("second")  # type: ignore[attr-defined]
    shared["more"] = object()
    lines.append((2.0, "second"))

    assert [build_update(result).body for result in results] == sent_at_once
    assert [result.output["of"] for result in results] == [["first"]] * 4
    assert len(results[2].logs) == 1


def test_whoever_changes_the_output_of_a_result_changes_a_copy() -> None:
    """What is sent is what the function returned."""
    result = execute(lambda: {"a": [1]})

    result.output["a"].append(2)

    assert result.output == {"a": [1]}
    assert result == attrs.evolve(result, output={"a": [1]}), "results are compared by what they say"


@pytest.mark.parametrize("returns", [True, False])
def test_in_progress_is_returned_or_raised(returns: bool) -> None:
    """The task is handed out again later, with the output so far."""

    def function() -> InProgress:
        later = InProgress(30, {"step": 1})
        if returns:
            return later
        raise later

    result = execute(function)

    assert result.status is TaskStatus.IN_PROGRESS
    assert result.callback_after == 30
    assert result.output == {"step": 1}


def test_in_progress_without_output_is_empty() -> None:
    """Output is optional."""
    assert execute(lambda: InProgress()).output == {}  # noqa: PLW0108 - a class is no task function


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (1e300, ValueError),
        (2**31, ValueError),
        pytest.param(10**5000, ValueError, id="huge"),
        (True, TypeError),
        ("5", TypeError),
    ],
)
def test_bad_callback_after_is_refused(seconds: object, error: type[Exception]) -> None:
    """Seconds must be a number from 0 on that Conductor can count; milliseconds since 1970 are no seconds from now."""
    with pytest.raises(error, match="callback_after"):
        InProgress(seconds)  # type: ignore[arg-type]


def test_the_longest_callback_is_taken() -> None:
    """The bound itself is allowed, returned or in a TaskResult made by hand."""
    longest = 2**31 - 1

    said = execute(lambda: TaskResult(status=TaskStatus.IN_PROGRESS, callback_after=longest))

    assert (execute(lambda: InProgress(longest)).callback_after, said.callback_after) == (longest, longest)


def test_in_progress_with_an_output_that_is_no_json_is_terminal() -> None:
    """What a raised InProgress carries is checked like a returned value."""

    def function() -> None:
        raise InProgress(1, {"when": object()})

    assert execute(function).status is TERMINAL


def test_non_retryable_is_terminal_with_its_reason() -> None:
    """The text is the reason; without one its name is."""

    def function(text: str) -> None:
        raise NonRetryable(text)

    assert (execute(function, {"text": "card expired"}).status, execute(function, {"text": ""}).reason) == (
        TERMINAL,
        "NonRetryable",
    )
    assert execute(function, {"text": "card expired"}).reason == "card expired"


def test_other_exception_is_failed_with_the_traceback_in_the_log() -> None:
    """The server may retry; reason and log are for the person who looks; our own frames are not in it."""

    def broken() -> None:
        task_context().add_log("before")
        raise LookupError("no such order")

    result = execute(broken)

    assert result.status is TaskStatus.FAILED
    assert result.reason == "LookupError: no such order"
    assert result.logs[0][1] == "before"
    trace = result.logs[1][1]
    assert "in broken" in trace
    assert 'raise LookupError("no such order")' in trace
    assert "conductor_adapter" not in trace


def test_exception_without_a_readable_text_is_still_a_result() -> None:
    """An exception whose ``str`` raises fails its task and nothing else."""

    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def broken() -> None:
        raise BadError

    assert "BadError" in (execute(broken).reason or "")


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit()])
def test_task_does_not_stop_its_worker(error: BaseException) -> None:
    """SystemExit and its like fail the task instead of ending a thread or the process."""

    def function() -> None:
        raise error

    result = execute(function)

    assert result.status is TaskStatus.FAILED
    assert type(error).__name__ in (result.reason or "")


def test_keyboard_interrupt_passes() -> None:
    """Ctrl-C is meant for the process; the context is left all the same."""

    def function() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(function)
    with pytest.raises(RuntimeError):
        task_context()


def test_value_that_is_no_json_is_terminal_and_named() -> None:
    """The reason has the worker, the place and the type; a retry would end the same way."""
    result = execute(lambda: {"lines": [{"at": 1}, {"at": {1, 2}}]})

    assert result.status is TERMINAL
    assert "output.lines[1].at is of type set" in (result.reason or "")


def test_forgotten_coroutine_is_terminal_without_a_warning() -> None:
    """A function that returns a coroutine it did not run says so, and Python need not warn about it."""

    async def later() -> int:
        return 1

    result = execute(lambda: later())  # noqa: PLW0108 - the mistake itself: a plain def calls a coroutine function

    assert result.status is TERMINAL
    assert "coroutine" in (result.reason or "")
    assert "generator" in (execute(lambda: (x for x in "ab")).reason or "")


# -- the context


def test_context_knows_task_and_server() -> None:
    """A function sees its task, its server, and writes logs in order with their time."""

    def function() -> str:
        context = task_context()
        context.add_log("one")
        context.add_log("two")
        return f"{context.task.task_id} from {context.server}"

    result = execute(function, server="eu", task_id="t9")

    assert result.output == {"result": "t9 from eu"}
    assert [text for _, text in result.logs] == ["one", "two"]
    assert all(seconds > 1.7e9 for seconds, _ in result.logs)


def test_context_outside_a_task_is_an_error() -> None:
    """There is none before, after, and in a thread that did not take it along."""
    with pytest.raises(RuntimeError, match="only inside a task function"):
        task_context()

    def function() -> None:
        errors = []

        def alone() -> None:
            try:
                task_context()
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=contextvars.Context().run, args=(alone,))
        thread.start()
        thread.join()
        assert len(errors) == 1

    assert execute(function).status is TaskStatus.COMPLETED
    with pytest.raises(RuntimeError):
        task_context()


def test_context_nests() -> None:
    """A task function that executes another one gets its own context back."""

    def outer() -> list[str]:
        inner = execute(lambda: task_context().server, server="inner")
        return [inner.output["result"], task_context().server]

    assert execute(outer, server="outer").output == {"result": ["inner", "outer"]}


# -- execute


def test_execute_takes_a_worker_a_spec_or_a_plain_function() -> None:
    """What is tested need not be marked; a marked one gives the task its type and domain."""

    @worker("pay", domain="eu")
    def pay(task: Task) -> str:
        return f"{task.task_type}/{task.domain}"

    assert execute(charge, {"amount": 4}).output == {"result": 4}
    assert execute(pay).output == {"result": "pay/eu"}
    assert execute(spec_of(pay), domain="us").output == {"result": "pay/us"}
    assert execute(functools.partial(charge, 5)).output == {"result": 5}


def test_execute_refuses_unknown_task_fields() -> None:
    """A misspelt field is an error, not a task that lacks it."""
    with pytest.raises(TypeError, match="retrycount"):
        execute(charge, retrycount=1)


def test_reason_of_a_failure_is_the_error_and_not_a_note_on_it():
    """Notes are in the log's traceback; the reason is what went wrong."""

    def noted():
        error = ValueError("the reason")
        error.add_note("a note")
        raise error

    assert execute(noted).reason == "ValueError: the reason"


# -- what a server can take


MEGABYTES = 5_000_000


def too_long() -> None:
    """A task function whose error is longer than any server takes."""
    raise ValueError("x" * MEGABYTES)


def refused_for_good() -> None:
    """The same, for good."""
    raise NonRetryable("x" * MEGABYTES)


def said_by_hand() -> TaskResult:
    """The same, as a result."""
    return TaskResult(status=TaskStatus.FAILED, reason="x" * MEGABYTES, logs=((1.0, "y" * MEGABYTES),) * 1000)


def badly_returned() -> dict:
    """What is no JSON, in a place with an endless name."""
    return {"x" * MEGABYTES: {object()}}


def endless_log() -> None:
    """Writes more than anybody reads."""
    for _ in range(1000):
        task_context().add_log("y" * MEGABYTES)
    raise ValueError


@pytest.mark.parametrize("function", [too_long, refused_for_good, said_by_hand, badly_returned, endless_log])
def test_no_result_is_larger_than_a_server_takes(function: Callable[[], object]) -> None:
    """Five megabytes of an error would make an update of ten: refused, they would be lost, and the task run again."""
    result = execute(function)

    assert result.status is not TaskStatus.COMPLETED
    assert len(build_update(result).body or b"") < 1_000_000
    assert len(result.reason or "") <= 500
    assert len(result.logs) <= 100
    assert all(len(text) <= 8000 for _, text in result.logs)


def test_what_is_cut_says_so() -> None:
    """How long it was, so that nobody takes the rest for all of it."""
    result = execute(too_long)

    assert result.reason is not None
    assert result.reason.startswith("ValueError: xxx")
    assert result.reason.endswith("… (cut; 5,000,012 characters in all)")
    ((_, trace),) = result.logs
    assert trace.startswith("Traceback (most recent call last):")
    assert "characters in all) …" in trace


def test_of_too_many_entries_the_first_and_the_last_are_sent() -> None:
    """With one between them that says how many there were."""
    result = execute(lambda: TaskResult(logs=tuple((float(n), str(n)) for n in range(1000))))

    said = [text for _, text in result.logs]
    assert said == [
        *map(str, range(50)),
        "… (cut; 1,000 entries in all)",
        *map(str, range(951, 1000)),
    ]
    assert execute(lambda: result).logs == result.logs, "what was cut is not cut again"


@pytest.mark.parametrize("entries", [0, 5, 9, 30, 500])
def test_traceback_is_among_the_entries_that_a_server_keeps(entries: int) -> None:
    """Servers keep the first ten, and show them in the order of their times."""

    def function() -> None:
        for number in range(entries):
            task_context().add_log(str(number))
        raise ValueError

    logs = execute(function).logs

    assert sum(text.startswith("Traceback") for _, text in logs[:10]) == 1
    assert [text for _, text in logs[: min(entries, 9)]] == [str(number) for number in range(min(entries, 9))]


def test_reason_as_long_as_a_server_keeps_is_sent_as_it_is() -> None:
    """Nothing is cut that need not be."""
    assert TaskResult(reason="x" * 500).to_wire()["reasonForIncompletion"] == "x" * 500
    assert len(TaskResult(reason="x" * 501).to_wire()["reasonForIncompletion"]) == 500


def test_keyboard_interrupt_in_a_thread_is_the_tasks_affair() -> None:
    """Nobody's Ctrl-C arrives there: the function raised it, and its task fails like any other."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    spec = WorkerSpec(task_type="charge", function=interrupt)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        result, error = pool.submit(run_attempt, spec, Task(task_id="t"), server="eu").result()

    assert (result.status, result.reason, type(error)) == (TaskStatus.FAILED, "KeyboardInterrupt", KeyboardInterrupt)
    assert "in interrupt" in result.logs[0][1]
