"""The servers that must keep the contract: the embedded one, and under the marker ``real`` a real one."""

import uuid
from collections.abc import Iterator

import pytest
from client import ConductorClient
from flow import Flow

from conductor_adapter.dev_server import DevServer

NEVER = 3600.0  # seconds between two sweeps: timeouts are found by the calls that promise to look for them


@pytest.fixture(scope="module")
def embedded_url() -> Iterator[str]:
    """Where the embedded server's API is; a thread that outlives its file might end up without coverage."""
    with DevServer(sweep_every=NEVER) as server:
        yield server.url


@pytest.fixture(scope="session")
def real_url(request: pytest.FixtureRequest) -> str:
    """Where a real server's API is."""
    return request.getfixturevalue("real_server").url


@pytest.fixture(scope="module", params=["embedded_url", pytest.param("real_url", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest) -> ConductorClient:
    """A client of the server that is tested; no test knows which one it is."""
    return ConductorClient(request.getfixturevalue(request.param))


@pytest.fixture
def name() -> str:
    """A task type and workflow that no other test uses."""
    return f"t_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def flow(server: ConductorClient, name: str) -> Flow:
    """A workflow of its own for each test, not yet defined."""
    return Flow(server, name)
