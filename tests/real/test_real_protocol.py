"""What the adapter builds on: the answers of a real server, so that a new version that answers otherwise is noticed."""

import uuid

import pytest
from client import result_of
from harness import wait_until
from servers import RealServers

pytestmark = pytest.mark.real


@pytest.fixture
def name() -> str:
    """A task type and workflow that no other test uses."""
    return f"t_{uuid.uuid4().hex[:8]}"


def test_empty_poll_is_an_empty_list(real: RealServers, name: str) -> None:
    """A queue without tasks answers 200 and an empty list, also to a count of 0."""
    assert real[0].client.poll(name) == []
    assert real[0].client.poll(name, count=0) == []


def test_wait_over_five_seconds_is_refused(real: RealServers, name: str) -> None:
    """A long poll may ask for five seconds and not a millisecond more."""
    answer = real[0].client.call("GET", f"/tasks/poll/batch/{name}", count=1, timeout=5001)

    assert answer.status == 400
    assert "5 seconds" in answer.body["message"]


def test_update_is_taken_at_home_and_again(real: RealServers, name: str) -> None:
    """The server that a task came from answers 200 and its id, to a repeated result too."""
    client = real[0].client
    client.register(name, name)
    (workflow,) = client.start(name)
    (task,) = client.poll(name, timeout_ms=2000)

    assert client.update(task).expect() == task["taskId"]
    assert client.update(task).expect() == task["taskId"]
    assert client.workflow(workflow)["status"] == "COMPLETED"


def test_update_away_from_home_is_not_found(real: RealServers, name: str) -> None:
    """A server that did not hand the task out answers 404 in Conductor's own words."""
    home, other = real[0].client, real[1].client
    home.register(name, name)
    home.start(name)
    (task,) = home.poll(name, timeout_ms=2000)

    away = other.update(task)
    unknown = home.update({**task, "taskId": "no-such-task"})

    assert away.status == 404
    assert away.body["message"].startswith("No such workflow found by id")
    assert unknown.status == 404
    assert unknown.body["message"].startswith("No such task found by id")
    home.update(task).expect()


def test_update_v2_brings_the_next_task(real: RealServers, name: str) -> None:
    """update-v2 takes the result and hands out the next task of the type; 204 when there is none."""
    client = real[0].client
    client.register(name, name)
    client.start(name, 2)
    (first,) = client.poll(name, timeout_ms=2000)

    second = client.call("POST", "/tasks/update-v2", result_of(first)).expect(200)
    assert second["taskId"] != first["taskId"]
    assert second["inputData"]["number"] in {0, 1}
    client.call("POST", "/tasks/update-v2", result_of(second)).expect(204)


def test_give_back_lets_the_same_task_be_polled_again(real: RealServers, name: str) -> None:
    """IN_PROGRESS with a callback of 0 puts the same task id back into the queue at once."""
    client = real[0].client
    client.register(name, name)
    client.start(name)
    (task,) = client.poll(name, timeout_ms=2000)

    client.update(task, "IN_PROGRESS", callbackAfterSeconds=0).expect()
    (again,) = client.poll(name, timeout_ms=2000)

    assert again["taskId"] == task["taskId"]
    assert again["pollCount"] == 2
    assert again["retryCount"] == 0
    client.update(again).expect()


def test_extended_lease_queues_nothing(real: RealServers, name: str) -> None:
    """A heartbeat is taken with 200 and does not hand the task out a second time."""
    client = real[0].client
    client.register(name, name)
    client.start(name)
    (task,) = client.poll(name, timeout_ms=2000)

    client.update(task, "IN_PROGRESS", extendLease=True).expect()

    assert client.poll(name) == []
    client.update(task).expect()


def test_refused_bodies_are_500_and_not_retryable(real: RealServers, name: str) -> None:
    """A body that is no JSON, or a status that Conductor does not know, is a 500 that says "retryable": false."""
    client = real[0].client
    client.register(name, name)
    client.start(name)
    (task,) = client.poll(name, timeout_ms=2000)

    for answer in (client.call("POST", "/tasks", "{"), client.update(task, "NO_SUCH_STATUS")):
        assert answer.status == 500
        assert answer.body["retryable"] is False
    client.update(task).expect()


def test_unknown_endpoints(real: RealServers) -> None:
    """An endpoint that does not exist is 405 below tasks; the open-source server has no token endpoint."""
    client = real[0].client

    assert client.call("POST", "/tasks/no-such-endpoint", {}).status == 405
    assert client.call("POST", "/token", {"keyId": "k", "keySecret": "s"}).status == 404


def test_late_result_is_taken_and_ignored(real: RealServers, name: str) -> None:
    """After the response timeout the server retries under a new id; the old id's result is answered with 200."""
    client = real[0].client
    client.register(name, name, responseTimeoutSeconds=1)
    (workflow,) = client.start(name)
    (first,) = client.poll(name, timeout_ms=2000)

    again: list[dict] = []
    for _ in range(30):
        client.decide(workflow)
        again = client.poll(name, timeout_ms=1000)
        if again:
            break

    assert again[0]["taskId"] != first["taskId"]
    assert again[0]["retryCount"] == 1
    client.update(first).expect()
    assert client.workflow(workflow)["status"] == "RUNNING"
    client.update(again[0]).expect()


def test_frozen_server_answers_after_thaw(real: RealServers, name: str) -> None:
    """A frozen server keeps its sockets and answers nobody; thawed, it is the same server."""
    real.freeze(1)
    with pytest.raises(TimeoutError):
        real[1].client.call("GET", "/metadata/taskdefs", within=1)
    assert real[0].client.poll(name) == []

    real.thaw(1)

    assert real[1].client.poll(name) == []


def test_killed_server_keeps_its_work(real: RealServers, name: str) -> None:
    """SIGKILL and a restart on the same database lose neither the queue nor what was handed out."""
    client = real[1].client
    client.register(name, name)
    workflows = client.start(name, 2)
    (task,) = client.poll(name, timeout_ms=2000)

    real.kill(1)
    with pytest.raises(ConnectionError):
        client.poll(name)
    real.restart(1)

    client.update(task).expect()
    (other,) = client.poll(name, timeout_ms=2000)
    client.update(other).expect()
    assert [client.workflow(w)["status"] for w in workflows] == ["COMPLETED", "COMPLETED"]


def test_the_access_log_counts_at_the_wire(real: RealServers, name: str) -> None:
    """Every answered request is in the server's own log with its status, so tests can count what really went out."""
    real[0].client.poll(name)

    def mine() -> list[tuple[str, int]]:
        return [(a.method, a.status) for a in real[0].accesses() if a.path.endswith(name)]

    wait_until(mine, 10, "the log has no such request")  # it is written just after the answer is sent
    assert mine() == [("GET", 200)]
