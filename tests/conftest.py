"""Real Conductor servers, launched once for all tests that want them and only if one does; a home for each test."""

import itertools
from collections.abc import Iterator

import pytest
from servers import RealServer, RealServers

_homes = itertools.count()


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test finds the user's own outbox, or another test's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"home-{next(_homes)}"))


@pytest.fixture(scope="session")
def _launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServers]:
    with RealServers(tmp_path_factory.mktemp("real")) as servers:
        yield servers


@pytest.fixture(scope="session")
def _pair(_launched: RealServers) -> RealServers:
    _launched.start(2)
    return _launched


@pytest.fixture(scope="session")
def real_server(_launched: RealServers) -> RealServer:
    """One running server, for tests that leave it as it is."""
    return _launched.start(1)[0]


@pytest.fixture
def real(_pair: RealServers) -> Iterator[RealServers]:
    """Two running servers, numbered 0 and 1; whatever a test does to them is undone after it."""
    yield _pair
    _pair.heal()
