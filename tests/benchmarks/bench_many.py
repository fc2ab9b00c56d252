"""What a worker of many task types costs: until it has started, though tasks wait, and once it has nothing to do."""

import time
from pathlib import Path

from .rig import WorkerProcess, servers, watch
from .table import Row

__all__ = ["rows"]

PROGRAM = Path(__file__).with_name("many_process.py")
TYPES = 200
WAITING = 10  # tasks of each type and server
LONGEST = 120.0  # seconds until all of them are done
SETTLED = 3.0


def rows(*, quick=False):
    """The rows; half a minute and more."""
    waiting = 2 if quick else WAITING
    with servers("one", "other", "third") as three:
        for server in three:
            for number in range(TYPES):
                server.start_tasks(f"bench-{number}", waiting)
        with WorkerProcess(three, program=PROGRAM, types=TYPES) as worker:
            started = worker.usage()["start"]
            until = time.monotonic() + LONGEST
            while any(server.counts()["updates"] < TYPES * waiting for server in three):
                if time.monotonic() > until:
                    raise RuntimeError(f"the waiting tasks were not done in {LONGEST:g} s")
                worker.rest(0.2)
            worker.rest(SETTLED)
            window = watch(worker, three, 5.0 if quick else 10.0)
    what = f"{TYPES} task types, three servers"
    note = f"{TYPES * waiting * 3} tasks waited"
    return [
        Row(f"{what}: start", started, "s", floor=2, aim=1, note=note),
        Row(f"{what}: threads while idle", window.usage["threads"], floor=450, aim=30),
        Row(f"{what}: idle CPU", 100 * window.cpu, "% of a core", floor=15, aim=7),
    ]
