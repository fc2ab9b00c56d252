"""All servers down for a whole minute, with times as workers have them in production."""

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Moment

import pytest
from fault_kit import Case, nap, running, until

from conductor_adapter import RunnerConfig
from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.events import RunnerEvent
from resilience import BreakerChanged, BreakerConfig, BreakerState, DeliveryFailed, PollFailed

pytestmark = pytest.mark.long

OUTAGE = 60.0
RESET = 25.0  # seconds, not jittered: the breakers' own probes come some 16 s after the minute
EARLY = 7.5  # the longest pause between two early probes
SLACK = 2.0
FAIL_MAX = 3
TYPES, THREADS = 3, 2
REPEATS = 7 + OUTAGE / 2.5  # soon, then every 2.5 to 5 s


def test_p12_all_servers_down_for_a_minute() -> None:
    """The first is served after an early probe, each one after its reset, by single probes; no task is lost or re-run.

    Units had results when the servers went away, so no server may be polled before it has taken one (rule P13).
    """
    breaker = BreakerConfig(fail_max=FAIL_MAX, reset_timeout=RESET, max_reset_timeout=RESET, jitter=0.0)
    with running("eu", "us", "ap") as servers, Case(servers) as case:
        specs = [case.spec(threads=THREADS, act=nap(0.2)) for _ in range(TYPES)]
        types = [spec.task_type for spec in specs]
        for server in servers:
            case.give(server, types, 40, responseTimeoutSeconds=90)
        runner = case.runner(RunnerConfig(breaker=breaker), specs)
        case.start(runner)
        for server in servers:
            case.wait_executed(server, types, 4)

        for server in servers:
            server.kill()
        Moment().wait(OUTAGE)
        probes, waiting = list(case.heard), {name: view.waiting for name, view in runner.view().items()}
        before = {server.name: started(case, server) for server in servers}
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(DevServerProcess.restart, servers))

        until(lambda: any(started(case, it) > before[it.name] for it in servers), runner.view, EARLY + SLACK)
        until(lambda: all(started(case, it) > before[it.name] for it in servers), runner.view, RESET + SLACK)
        check_probes(probes, waiting)
        for server in servers:
            case.wait_done(server, types, OUTAGE)
        assert runner.stop().clean
        case.check()
        assert {times for account in case.accounts.values() for times in account.executions.values()} == {1}


def started(case: Case, server: DevServerProcess) -> int:
    """How many tasks of that server have started."""
    return sum(account.of(server) for account in case.accounts.values())


def check_probes(heard: Iterable[RunnerEvent], waiting: Mapping[str, int]) -> None:
    """Once a breaker is open, nothing but its probes, and all in all an early one in five seconds at most.

    Of each server's ``waiting`` results each is tried once, and then one of them every 2.5 to 5 s (rules D3 and D8).
    """
    probes, failed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for event in heard:
        match event:
            case BreakerChanged(name=server, after=BreakerState.HALF_OPEN, calls=calls):
                probes[server, calls] += 1
            case PollFailed(server):
                failed[server, "polls"] += 1
            case DeliveryFailed(server):
                failed[server, "updates"] += 1
    for server, results in waiting.items():
        # With each failure that counts, one of every other worker's that began before it was seen.
        others = {"polls": FAIL_MAX * (TYPES - 1), "updates": TYPES * THREADS + results + REPEATS}
        for calls, most in others.items():
            assert failed[server, calls] <= FAIL_MAX + most + probes[server, calls], (failed, probes)
            assert probes[server, calls] <= OUTAGE / RESET + OUTAGE / 5.0
    for calls in ("polls", "updates"):
        assert sum(count for (_, kind), count in probes.items() if kind == calls) <= 3 * OUTAGE / RESET + OUTAGE / 5.0
