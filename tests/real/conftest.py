"""Two real servers for all tests of this folder; each test gets them running and thawed."""

from collections.abc import Iterator

import pytest
from servers import RealServers


@pytest.fixture(scope="session")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServers]:
    with RealServers(tmp_path_factory.mktemp("real")) as servers:
        servers.start(2)
        yield servers


@pytest.fixture
def real(_started: RealServers) -> Iterator[RealServers]:
    """Two running servers, numbered 0 and 1; whatever a test does to them is undone after it."""
    yield _started
    _started.heal()
