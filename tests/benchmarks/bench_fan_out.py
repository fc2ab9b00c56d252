"""What fan-out costs beside the standard library's pool, and how exactly it keeps a deadline; run it with python."""

import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue

from resilience.fan_out import FanOutExecutor

ROUNDS = 61
REPEAT = 100
DEADLINES = 50
TIMEOUT = 0.02
SUBMITTED = 500


def noop():
    """The call whose fan-out is measured."""


def seconds(what, clock):
    """What one of ``REPEAT`` calls takes by ``clock``."""
    began = clock()
    for _ in range(REPEAT):
        what()
    return (clock() - began) / REPEAT


def compared(clock):
    """Median ratio of a fan-out of 3 no-ops to submit and wait, round by round, and the median of each in seconds."""
    calls = dict.fromkeys("abc", noop)
    with ThreadPoolExecutor(3) as pool, FanOutExecutor() as fan_out:

        def theirs():
            wait([pool.submit(call) for call in calls.values()], timeout=5.0)

        def ours():
            fan_out.run(calls, 5.0)

        seconds(ours, clock), seconds(theirs, clock)
        pairs = [(seconds(ours, clock), seconds(theirs, clock)) for _ in range(ROUNDS)]
    ratio = statistics.median(mine / other for mine, other in pairs)
    return ratio, *(statistics.median(column) for column in zip(*pairs, strict=True))


def overruns():
    """How many seconds after its deadline ``run`` returned while a call hung, for every one of ``DEADLINES`` runs."""
    found = []
    with FanOutExecutor() as fan_out:
        for _ in range(DEADLINES):
            gate = threading.Event()
            began = time.monotonic()
            fan_out.run({"hung": gate.wait, "fine": noop}, TIMEOUT)
            found.append(time.monotonic() - began - TIMEOUT)
            gate.set()
    return found


def submitted():
    """CPU seconds of a call that is submitted to a session when the one before was told to its callback."""
    with FanOutExecutor() as fan_out, fan_out.session() as session:
        news = SimpleQueue()
        began = time.process_time()
        for _ in range(SUBMITTED):
            session.submit("a", noop, 5.0, on_outcome=lambda *_: news.put(None))
            news.get()
        return (time.process_time() - began) / SUBMITTED


def rows():
    """(what, measured, unit, floor, aim); None where there is no limit."""
    # The garbage collector stays on: the futures of the standard library would be the dearer without it.
    ratio, ours, theirs = compared(time.perf_counter)
    cpu_ratio, cpu_ours, _ = compared(time.process_time)
    late = sorted(overruns())
    submit = statistics.median(submitted() for _ in range(7))
    return [
        ("fan-out of 3 no-op calls ÷ stdlib submit + wait", ratio, "ratio", 0.8, 0.5),
        ("… the same, CPU", cpu_ratio, "ratio", None, None),
        ("… run, 3 no-op calls", ours * 1e6, "µs", None, None),
        ("… stdlib submit + wait", theirs * 1e6, "µs", None, None),
        ("… run, CPU", cpu_ours * 1e6, "µs", None, None),
        ("submit, call, on_outcome, from another thread: CPU", submit * 1e6, "µs", None, None),
        (f"return after the deadline, 9 in 10 of {DEADLINES} within", late[DEADLINES * 9 // 10] * 1e3, "ms", 20, 5),
        ("… worst, with whatever else the machine did", late[-1] * 1e3, "ms", None, None),
        ("… median", statistics.median(late) * 1e3, "ms", None, None),
    ]


if __name__ == "__main__":
    missed = False
    for what, measured, unit, floor, aim in rows():
        missed = missed or (floor is not None and measured > floor)
        sys.stdout.write(f"{what:60} {measured:8.3f} {unit:6} floor {floor} aim {aim}\n")
    sys.exit(missed)
