"""What the embedded server's API has beyond the contract (tests/contract), and what only virtual time can show."""

import asyncio

import pytest
from dev_server_calls import TimedApi, split

from conductor_adapter.dev_server.answers import Call
from conductor_adapter.dev_server.waiting import Waiting


@pytest.fixture
def api():
    """An API on virtual time."""
    timed = TimedApi()
    yield timed
    timed.close()


def test_a_server_without_update_v2_answers_405_there():
    """An older server takes the path for a task id, whose method is GET alone."""
    api = TimedApi(update_v2=False)
    assert api.ask("POST", "/api/tasks/update-v2", {})[0] == 405
    api.close()


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/update-v2"])
def test_misdirected_updates_are_counted(api, path):
    """A test can ask whether results went to a server that they are not from."""
    api.define("a")
    run = api.start()
    api.update({"workflowInstanceId": "nope", "taskId": "x"}, path)
    api.update({"workflowInstanceId": run, "taskId": "nope"}, path)
    assert api.api.counts["not found"] == 2


def test_a_sweep_finds_every_silent_worker_once(api):
    """It needs no call to a run, and says how many runs it changed."""
    api.define("a", task_def={"responseTimeoutSeconds": 1, "retryCount": 0})
    run = api.start()
    api.poll()
    api.now += 1_000
    assert api.engine.sweep(api.now) == 1
    assert api.engine.sweep(api.now) == 0
    assert api.run(run)["status"] == "TIMED_OUT"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/metadata/workflow", {"name": "w", "tasks": [{"name": "t", "taskReferenceName": "a", "type": "HTTP"}]}),
        ("/api/workflow", {"name": "w", "workflowDef": {"name": "w", "tasks": 7}}),
    ],
)
def test_what_cannot_be_run_is_400(api, path, body):
    """A definition beyond this server's means is refused, not stored."""
    assert api.ask("POST", path, body)[0] == 400


def gather(api, *calls):
    """Make several calls at once and return their answers in order."""

    async def together():
        # The bound is below the five seconds of a long poll that nobody wakes.
        return await asyncio.wait_for(asyncio.gather(*(api.api.answer(Call(*call)) for call in calls)), 3)

    return [split(answer)[1] for answer in asyncio.run(together())]


def test_a_batch_that_is_not_full_waits_and_returns_when_it_is(api):
    """A long poll holds what it has, and goes as soon as its count is reached: long before its time is over."""
    api.define("a")
    api.start()
    body = b"{}"
    start = ("POST", "/api/workflow/w", "", {"Content-Type": "application/json"}, body)
    tasks, *_ = gather(api, ("GET", "/api/tasks/poll/batch/t", "count=3&timeout=5000"), start, start)
    assert len(tasks) == 3


def test_a_task_that_ends_while_it_is_held_is_not_handed_out(api):
    """A run stopped during somebody's long poll gives nobody its task."""
    api.define("a")
    run = api.start()
    poll = ("GET", "/api/tasks/poll/batch/t", "count=2&timeout=50")
    tasks, _ = gather(api, poll, ("DELETE", f"/api/workflow/{run}"))
    assert tasks == []


def test_a_long_poll_sees_a_retry_become_due(api):
    """A poll that waits wakes for a task whose delay ends meanwhile."""
    api.define("a")
    api.start()
    (task,) = api.poll()
    api.update(task, status="IN_PROGRESS", callbackAfterSeconds=1)

    async def poll_while_time_passes():
        poll = Call("GET", "/api/tasks/poll/batch/t", "count=1&timeout=5000")
        waiting = asyncio.ensure_future(api.api.answer(poll))
        await asyncio.sleep(0)
        api.now += 1_000
        api.waiting.notify("t")
        return await asyncio.wait_for(waiting, 3)

    assert len(split(asyncio.run(poll_while_time_passes()))[1]) == 1


def test_a_wait_that_is_notified_as_its_time_ends_is_over_once():
    """Whoever waits is woken by the first of the two, and the second does no harm."""

    async def both():
        waiting = Waiting()
        sleeper = asyncio.ensure_future(waiting.wait("t", 0))
        for _ in range(2):  # it waits; its time ends in the turn that begins now
            await asyncio.sleep(0)
        waiting.notify("t")
        await asyncio.wait_for(sleeper, 3)

    asyncio.run(both())
