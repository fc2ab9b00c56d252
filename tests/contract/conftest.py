"""The servers that must keep the contract: the embedded one, and under the marker ``real`` real ones."""

import uuid
from collections.abc import Iterator

import pytest
from client import ConductorClient
from flow import Flow

from conductor_adapter.dev_server import DevServer

THRESHOLD = 10 * 1024  # bytes of a payload; larger ones are stored outside, where a server has a storage
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


@pytest.fixture(scope="module")
def storing_url() -> Iterator[str]:
    """Where the API of an embedded server is that stores large payloads outside."""
    with DevServer(sweep_every=NEVER, payload_threshold=THRESHOLD) as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """Where the API of a real server is that does."""
    return request.getfixturevalue("postgres_server").url


@pytest.fixture(scope="module", params=["storing_url", pytest.param("postgres_url", marks=pytest.mark.real)])
def storing_server(request: pytest.FixtureRequest) -> ConductorClient:
    """A client of a server that stores large payloads outside."""
    return ConductorClient(request.getfixturevalue(request.param))


@pytest.fixture
def name() -> str:
    """A task type and workflow that no other test uses."""
    return f"t_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def flow(server: ConductorClient, name: str) -> Flow:
    """A workflow of its own for each test, not yet defined."""
    return Flow(server, name)


@pytest.fixture
def storing(storing_server: ConductorClient, name: str) -> Flow:
    """The same on a server that stores large payloads outside."""
    return Flow(storing_server, name)
