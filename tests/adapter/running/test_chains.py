"""Workers whose units bring the next task with a result: on embedded servers, over real sockets."""

import json
import threading
import urllib.request
from collections import Counter

import attrs
import pytest
from hearing import GUARD, Heard

from conductor_adapter import (
    DevServer,
    InProgress,
    RunnerConfig,
    ServerSettings,
    WorkerRunner,
    WorkerSpec,
    task_context,
    worker,
)
from conductor_adapter.client.messages import HttpAnswer, HttpCall, TransportError, TransportErrorKind
from conductor_adapter.client.operations import ConductorServer
from conductor_adapter.running import links
from conductor_adapter.running.links import Link
from conductor_adapter.tasks import Task, TaskResult, TaskStatus
from conductor_adapter.transports import choose
from conductor_adapter.transports.base import drive
from resilience import BreakerConfig, DeliveryFailed, DeliveryResumed, ItemsArrivedLate, PollConfig, RelayConfig

TASKS = 200


def config(transport: str = "curl", **relay: float) -> RunnerConfig:
    """Short times."""
    return RunnerConfig(
        transport=transport,
        grace=GUARD,
        poll=PollConfig(poll_wait=0.1, overdue_after=0.2, poll_timeout=0.5, give_up_after=5.0),
        breaker=BreakerConfig(reset_timeout=0.2),
        relay=RelayConfig(**relay),  # type: ignore[arg-type]
    )


def until(reached: object) -> None:
    """Wait for something that nobody announces."""
    pause = threading.Event()
    for _ in range(int(GUARD * 100)):
        if reached():  # type: ignore[operator]
            return
        pause.wait(0.01)
    raise AssertionError("waited in vain")


@worker("quick", threads=3)
def quick() -> None:
    """Takes no time."""


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_backlogged_server_is_hardly_polled(transport: str) -> None:
    """Nearly every task comes with the answer to a result; each is done once."""
    with DevServer(name="eu") as eu:
        runs = [eu.start_task("quick") for _ in range(TASKS)]
        with WorkerRunner([quick], [eu.settings], config=config(transport)) as runner:
            for run in runs:
                assert eu.wait(run, GUARD).status == "COMPLETED"
            counts, view = eu.counts(), runner.view()["eu"]
            report = runner.stop(GUARD)

    assert report.clean
    assert (counts["updates"], counts["handed out"], view.started) == (TASKS, TASKS, TASKS)
    assert counts["polls"] < TASKS / 5


def test_each_server_gets_its_own_results_in_chains() -> None:
    """A chained task goes back to the server that it came from, like any other."""
    with DevServer(name="eu") as eu, DevServer(name="us") as us:

        @worker("where", threads=4)
        def where() -> dict[str, str]:
            return {"server": task_context().server}

        runs = [(server, server.start_task("where")) for _ in range(TASKS // 2) for server in (eu, us)]
        with WorkerRunner([where], [eu.settings, us.settings], config=config()):
            for server, run in runs:
                assert server.wait(run, GUARD).output == {"server": server.name}
            polls = eu.counts()["polls"] + us.counts()["polls"]

    assert polls < TASKS


def test_tasks_are_known_by_their_workers_name_in_chains_too() -> None:
    """A server shows who had each task, however it was handed out: polled, or with the answer to a result."""
    with DevServer(name="eu") as eu:
        runs = [eu.start_task("quick") for _ in range(TASKS // 4)]
        held: list[object] = []

        @worker("quick", threads=3)
        def look() -> None:
            held.append(shown(eu, task_context().task.workflow_id)["workerId"])

        with WorkerRunner([look], [eu.settings], config=attrs.evolve(config(), worker_id="me")):
            for run in runs:
                eu.wait(run, GUARD)
            reported = [shown(eu, run)["workerId"] for run in runs]

    assert set(held) == set(reported) == {"me"}


def shown(server: DevServer, run: str) -> dict[str, object]:
    """The only task of a run, as its server shows it."""
    with urllib.request.urlopen(f"{server.url}/workflow/{run}", timeout=GUARD) as answer:  # noqa: S310 - our own server
        (task,) = json.load(answer)["tasks"]
    return task


def test_server_without_update_v2_is_polled_as_ever() -> None:
    """It is asked once; from then on its results are plain updates, and it counts as backlogged all the same."""
    with DevServer(name="old", update_v2=False) as old:
        runs = [old.start_task("quick") for _ in range(TASKS // 4)]
        with WorkerRunner([quick], [old.settings], config=config()) as runner:
            for run in runs:
                assert old.wait(run, GUARD).status == "COMPLETED"
            assert runner.stop(GUARD).clean
        counts = old.counts()

    assert counts["handed out"] == len(runs)
    assert 1 <= counts["status 405"] + counts.get("status 404", 0) <= 3


def test_task_that_goes_on_later_is_not_handed_out_again_at_once() -> None:
    """Its result is a plain update: with update-v2 the same task would come back before its time."""
    rounds: Counter[str] = Counter()

    @worker("patient", threads=1)
    def patient() -> object:
        task = task_context().task
        rounds[task.task_id] += 1
        return None if rounds[task.task_id] > 1 else InProgress(1)

    with DevServer(name="eu") as eu:
        run = eu.start_task("patient")
        with WorkerRunner([patient], [eu.settings], config=config()):
            assert eu.wait(run, GUARD).status == "COMPLETED"

    assert sum(rounds.values()) == 2


def test_hung_update_v2_frees_its_unit_and_its_task_is_a_late_one() -> None:
    """Units are free after the inline timeout, the connection stays, and what it brings in the end runs."""
    heard = Heard()
    with DevServer(name="eu") as eu, DevServer(name="us") as us:

        @worker("both", threads=2)
        def both() -> None:
            return None

        first = [eu.start_task("both") for _ in range(300)]
        relay = {"inline_timeout": 0.2, "slow_after": 0.1, "send_timeout": GUARD}
        with WorkerRunner([both], [eu.settings, us.settings], config=config(**relay), on_event=heard) as runner:
            until(lambda: runner.view()["eu"].started >= 10)
            eu.faults.set(latency=1.0, only="updates")
            heard.wait_for(DeliveryFailed, destination="eu")
            second = [us.start_task("both") for _ in range(20)]
            for run in second:
                assert us.wait(run, GUARD).status == "COMPLETED"
            heard.wait_for(ItemsArrivedLate, source="eu")
            eu.faults.clear()
            heard.wait_for(DeliveryResumed, destination="eu")
            for run in first:
                assert eu.wait(run, GUARD).status == "COMPLETED"
            report = runner.stop(GUARD)
            started, counts = runner.view()["eu"].started, eu.counts()

    assert report.clean
    assert started == counts["handed out"] == len(first)


def test_late_task_that_comes_while_stopping_goes_back() -> None:
    """Nobody runs it any more; the server has it again, and the report waits for that."""
    with DevServer(name="eu") as eu:

        @worker("one", threads=1)
        def one() -> None:
            return None

        for _ in range(TASKS):
            eu.start_task("one")
        relay = {"inline_timeout": 0.1, "slow_after": 0.05, "send_timeout": GUARD}
        heard = Heard()
        runner = WorkerRunner([one], [eu.settings], config=config(**relay), on_event=heard)
        runner.start()
        until(lambda: runner.view()["eu"].started >= 3)
        eu.faults.set(latency=0.5, only="updates")
        heard.wait_for(DeliveryFailed, destination="eu")
        report = runner.stop(GUARD)
        started = runner.view()["eu"].started
        waiting = drive(ConductorServer(eu.settings).queue_size("one"), choose("curl")(eu.settings), GUARD)

    assert report.clean
    assert any(isinstance(event, ItemsArrivedLate) for event in heard)
    assert waiting == TASKS - started


class Scripted:
    """A transport that answers as told and remembers the calls."""

    bounded = True

    def __init__(self, *answers: HttpAnswer | TransportError) -> None:
        self.answers = list(answers)
        self.calls: list[HttpCall] = []

    def send(self, call: HttpCall, _: float) -> HttpAnswer:
        """The next answer."""
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing is open."""


SPEC = WorkerSpec(task_type="t", function=lambda: None)


def link_to(transport: Scripted) -> Link:
    """A server behind that transport."""
    return Link(ServerSettings("eu", "http://eu/api"), lambda _: transport, 5.0, print)


def test_exchange_says_what_the_server_said() -> None:
    """A task, none, and not asked are three answers."""
    task = b'{"taskId": "2", "workflowInstanceId": "w"}'
    transport = Scripted(HttpAnswer(200, {}, task), HttpAnswer(204), HttpAnswer(200, {}, b"1"), HttpAnswer(405))
    transport.answers += [HttpAnswer(200, {}, b"1"), HttpAnswer(200, {}, b"1")]
    exchange = link_to(transport).endpoint(SPEC).exchange
    assert exchange is not None
    result = TaskResult(task_id="1", workflow_id="w")

    (brought,) = exchange(result, 1.0) or ()
    assert isinstance(brought, Task)
    assert brought.task_id == "2"
    assert exchange(result, 1.0) == ()
    assert exchange(TaskResult(task_id="1", workflow_id="w", status=TaskStatus.IN_PROGRESS), 1.0) is None
    assert exchange(result, 1.0) is None
    assert exchange(result, 1.0) is None
    paths = [call.path for call in transport.calls]
    assert paths == ["/tasks/update-v2", "/tasks/update-v2", "/tasks", "/tasks/update-v2", "/tasks", "/tasks"]


def test_exchange_that_breaks_is_not_repeated_by_itself() -> None:
    """The relay repeats it, with the plain update."""
    transport = Scripted(TransportError(TransportErrorKind.BROKEN, "gone"))
    exchange = link_to(transport).endpoint(SPEC).exchange
    assert exchange is not None

    with pytest.raises(TransportError):
        exchange(TaskResult(task_id="1", workflow_id="w"), 1.0)

    assert link_to(Scripted()).endpoint(SPEC).exchange_wait == links.NEXT_TASK_WAIT
