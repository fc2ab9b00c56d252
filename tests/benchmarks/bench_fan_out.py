"""What fan-out costs beside the standard library's pool, and how exactly it keeps a deadline; run it with python."""

import os
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
    """Cost in seconds, round by round, of 3 no-ops fanned out, by the pool, and of one bare hand-off and back."""
    calls = dict.fromkeys("abc", noop)
    there, back = SimpleQueue(), SimpleQueue()

    def answer():
        while there.get():
            back.put(True)

    def bare():
        there.put(True)
        back.get()

    threading.Thread(target=answer, daemon=True).start()
    with ThreadPoolExecutor(3) as pool, FanOutExecutor() as fan_out:

        def theirs():
            wait([pool.submit(call) for call in calls.values()], timeout=5.0)

        def ours():
            fan_out.run(calls, 5.0)

        contestants = (ours, theirs, bare)
        for what in contestants:
            seconds(what, clock)
        found = [[seconds(what, clock) for what in contestants] for _ in range(ROUNDS)]
    there.put(False)
    return found


def ratio(found):
    """Median of ours ÷ theirs."""
    return statistics.median(ours / theirs for ours, theirs, _ in found)


def on_cpus(cpus):
    """Wall-clock comparison with every thread on ``cpus``: the system puts threads where it likes otherwise."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        return compared(time.perf_counter)
    finally:
        os.sched_setaffinity(0, before)


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
    found = compared(time.perf_counter)
    ours, theirs, bare = (statistics.median(column) * 1e6 for column in zip(*found, strict=True))
    one_cpu = on_cpus({min(os.sched_getaffinity(0))})
    late = sorted(overruns())
    submit = statistics.median(submitted() for _ in range(7))
    return [
        ("fan-out of 3 no-op calls ÷ stdlib submit + wait", ratio(found), "ratio", 0.8, 0.5),
        ("… the same, CPU", ratio(compared(time.process_time)), "ratio", None, None),
        ("… the same, all threads on one CPU", ratio(one_cpu), "ratio", None, None),
        ("… run, 3 no-op calls", ours, "µs", None, None),
        ("… stdlib submit + wait", theirs, "µs", None, None),
        ("… one bare hand-off to a thread and back", bare, "µs", None, None),
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
