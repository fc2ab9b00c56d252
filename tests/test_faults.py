"""Each fault of a server, end to end: from the start, while work is in flight, and when it ends.

Real servers as processes, real workers over both transports side by side, and what the servers know at the end.
"""

import threading
from collections.abc import Callable, Iterator

import attrs
import pytest
from fault_kit import RECOVERY, Case, quick

from conductor_adapter.dev_server import DevServerProcess

Pair = tuple[DevServerProcess, DevServerProcess]
Act = Callable[[DevServerProcess], None]


@attrs.frozen(kw_only=True)
class Fault:
    """What befalls a server, and how it ends."""

    begin: Act
    end: Act = lambda server: server.faults()
    poll: dict[str, float] = attrs.field(factory=dict)
    relay: dict[str, float] = attrs.field(factory=dict)


def switched(**faults: object) -> Act:
    """A fault that the server can play by itself."""
    return lambda server: server.faults(**faults)


FAULTS = {
    "slow": Fault(begin=switched(latency=1.0), poll={"poll_timeout": 2.5}, relay={"send_timeout": 3.0}),
    "hung": Fault(begin=switched(hang=True)),
    "swallowing": Fault(begin=switched(swallow=True)),
    "refusing": Fault(begin=switched(refuse=True)),
    "unavailable": Fault(begin=switched(error=503)),
    "asking for a pause": Fault(begin=switched(error=503, retry_after=1)),
    "answering garbage": Fault(begin=switched(garbage=True)),
    "killed": Fault(begin=DevServerProcess.kill, end=DevServerProcess.restart),
    "frozen": Fault(begin=DevServerProcess.freeze, end=DevServerProcess.thaw),
}


@pytest.fixture(scope="module")
def _pair() -> Iterator[Pair]:
    with DevServerProcess(name="eu") as eu, DevServerProcess(name="us") as us:
        yield eu, us


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    """Two servers as processes; whatever a test does to the first one is undone after it."""
    yield _pair
    sick = _pair[0]
    try:
        sick.thaw()
        sick.faults()
    except (OSError, RuntimeError):
        sick.restart()


def nap(_: object) -> None:
    """A task of 20 ms."""
    threading.Event().wait(0.02)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_costs_neither_tasks_nor_the_healthy_server(pair: Pair, name: str) -> None:
    """The healthy server is served throughout, the sick one soon after its fault ends, and nothing is lost."""
    fault, (sick, healthy) = FAULTS[name], pair
    with Case([sick, healthy]) as case:
        made = [
            case.worker(quick(transport, poll=fault.poll, relay=fault.relay), act=nap)
            for transport in ("curl", "requests")
        ]
        types = [task_type for task_type, _ in made]
        case.give(sick, types, 12)
        case.give(healthy, types, 40)

        fault.begin(sick)
        for _, runner in made:
            case.start(runner)
        case.wait_done(healthy, types)
        fault.end(sick)
        case.wait_executed(sick, types, 1, RECOVERY)

        case.give(sick, types, 80)
        case.give(healthy, types, 40)
        case.wait_executed(sick, types, 20)
        fault.begin(sick)
        case.give(healthy, types, 40)
        case.wait_done(healthy, types)
        before = [case.accounts[task_type].of(sick) for task_type in types]
        fault.end(sick)
        case.wait_executed(sick, types, max(before) + 1, RECOVERY)

        for server in pair:
            case.wait_done(server, types)
        assert [runner.stop().clean for _, runner in made] == [True, True]
        case.check()
