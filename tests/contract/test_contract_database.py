"""A server whose database is away: what it says to whom, and that nothing of it happened afterwards."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import attrs
import pytest
from client import ConductorClient
from flow import Flow, check_refused, json_answer, text_answer

from conductor_adapter.dev_server import DevServer


@attrs.frozen
class Fragile:
    """A server, and how its database is taken away for a while."""

    client: ConductorClient
    without_database: Callable[[], AbstractContextManager[None]]


@pytest.fixture
def embedded() -> Iterator[Fragile]:
    """The embedded server has no database to lose: it is told to answer as if."""
    with DevServer() as server:

        @contextlib.contextmanager
        def without_database() -> Iterator[None]:
            server.faults.set(database_away=True)
            yield
            server.faults.clear()

        yield Fragile(ConductorClient(server.url), without_database)


@pytest.fixture
def real_one(request: pytest.FixtureRequest) -> Fragile:
    """A real server's goes down as in a crash."""
    server = request.getfixturevalue("postgres_server")

    @contextlib.contextmanager
    def without_database() -> Iterator[None]:
        server.take_database_away()
        try:
            yield
        finally:
            server.bring_database_back()

    return Fragile(server.client, without_database)


@pytest.fixture(params=["embedded", pytest.param("real_one", marks=pytest.mark.real)])
def fragile(request: pytest.FixtureRequest) -> Fragile:
    """Either of them."""
    return request.getfixturevalue(request.param)


def test_a_server_without_its_database_looks_idle_and_refuses_results(fragile: Fragile, name: str) -> None:
    """Polls bring nothing, results are 500 and "not retryable", health is good; then it takes the same result.

    So neither an empty poll nor ``"retryable": false`` says anything about the server or the result.
    """
    flow = Flow(fragile.client, name)
    flow.define()
    workflows = flow.start(2)
    (task,) = flow.take()

    with fragile.without_database():
        assert [flow.poll() for _ in range(2)] == [json_answer([])] * 2  # the first one may meet old connections
        for answer in (
            flow.update(task),
            flow.update_v2(task),
            flow.update(task, "IN_PROGRESS", extendLease=True),
            flow.queue_size(),
            flow.server.call("GET", f"/tasks/{task['taskId']}"),
            flow.server.call("GET", "/metadata/taskdefs"),
            flow.server.call("POST", f"/workflow/{name}", {}),
        ):
            check_refused(answer, 500)
            assert answer.body["message"].startswith("HikariPool-1 - Connection is not available, request timed out")
        assert flow.server.call("GET", "/health").expect()["healthy"] is True
        assert flow.server.call("GET", "/version").status == 200
        assert flow.server.call("POST", "/token", {}).status == 404

    assert flow.update(task) == text_answer(task["taskId"])
    (other,) = flow.take()
    flow.update(other).expect()
    assert {flow.server.workflow(workflow)["status"] for workflow in workflows} == {"COMPLETED"}
    assert flow.queue_size() == json_answer(0)
