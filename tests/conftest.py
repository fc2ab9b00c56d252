"""For all tests: real Conductor servers, launched once if one wants them; a home for each test; books that balance."""

import functools
import itertools
import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from postgres import PostgresServer
from repository import ROOT, strange
from servers import RealServer, RealServers
from sizes import part

from resilience import Poller

_homes = itertools.count()

# how long an example takes depends on the machine, which may stall
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a part of its examples here takes them all in `make test-long`."""
    for item in items:
        function = getattr(item, "obj", None)
        if getattr(getattr(item, "module", None), "part", None) is part and (
            item.name == "runTest" or getattr(function, "is_hypothesis_test", False)
        ):
            item.add_marker("many")


def pytest_configure() -> None:
    """Commands that tests start hear every signal, also if this process was told to ignore some, as by nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # this process goes on ignoring it


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test finds the user's own outbox, or another test's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"home-{next(_homes)}"))


@pytest.fixture(autouse=True)
def _root_stays_clean() -> Iterator[None]:
    """No test leaves anything in the repository's root."""
    before = set(os.listdir(ROOT))  # noqa: PTH208 - for every test
    yield
    assert not strange(set(os.listdir(ROOT)) - before)  # noqa: PTH208 - likewise


@pytest.fixture(autouse=True)
def _loggers_stay() -> Iterator[None]:
    """A command that runs in this process sets up loggers as if they were its own."""
    loggers = [logging.getLogger(name) for name in (None, "resilience", "conductor_adapter")]
    before = [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture(autouse=True)
def _books_balance(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever was done to a poller, and in whatever state it was left: each item that arrived is in one place."""
    made: list[Poller[object]] = []
    build = Poller.__init__

    @functools.wraps(build)
    def note(self: Poller[object], *sources: object, **options: object) -> None:
        build(self, *sources, **options)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Poller, "__init__", note)
    yield
    for poller in made:
        for name, tally in {**poller.view(), "all of them": poller.total()}.items():
            assert tally.balanced, f"{name}: {tally}"


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


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One running server on a Postgres of its own, which stores payloads over 10 KB outside."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server
