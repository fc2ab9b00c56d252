"""What the tests with real servers build on: faults that are those of a server, and a log of what it was asked.

What a server answers is in tests/contract.
"""

import uuid

import pytest
from harness import wait_until
from servers import RealServers

pytestmark = pytest.mark.real


@pytest.fixture
def name() -> str:
    """A task type and workflow that no other test uses."""
    return f"t_{uuid.uuid4().hex[:8]}"


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
