"""What fan-out costs beside the standard library's pool, and how exactly it keeps a deadline."""

import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue

from resilience.fan_out import FanOutExecutor

from .table import Row

__all__ = ["rows"]

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


def compared(clock, rounds):
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
        found = [[seconds(what, clock) for what in contestants] for _ in range(rounds)]
    there.put(False)
    return found


def ratio(found):
    """Median of ours ÷ theirs."""
    return statistics.median(ours / theirs for ours, theirs, _ in found)


def on_cpus(cpus, rounds):
    """Wall-clock comparison with every thread on ``cpus``: the system puts threads where it likes otherwise."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        return compared(time.perf_counter, rounds)
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


def rows(*, quick=False):
    """The limits of the design, and what belongs beside them."""
    rounds = 15 if quick else ROUNDS
    # The garbage collector stays on: the futures of the standard library would be the dearer without it.
    found = compared(time.perf_counter, rounds)
    ours, theirs, bare = (statistics.median(column) * 1e6 for column in zip(*found, strict=True))
    one_cpu = on_cpus({min(os.sched_getaffinity(0))}, rounds)
    late = sorted(overruns())
    nine_in_ten = late[DEADLINES * 9 // 10]
    submit = statistics.median(submitted() for _ in range(7))
    return [
        Row("fan-out of 3 no-op calls ÷ stdlib submit + wait", ratio(found), floor=0.8, aim=0.5),
        Row("… the same, CPU", ratio(compared(time.process_time, rounds))),
        Row("… the same, all threads on one CPU", ratio(one_cpu)),
        Row("… run, 3 no-op calls", ours, "µs"),
        Row("… stdlib submit + wait", theirs, "µs"),
        Row("… one bare hand-off to a thread and back", bare, "µs"),
        Row("submit, call, on_outcome, from another thread: CPU", submit * 1e6, "µs"),
        Row(f"return after the deadline, 9 of 10 within ({DEADLINES} runs)", nine_in_ten * 1e3, "ms", floor=20, aim=5),
        Row("… worst, with whatever else the machine did", late[-1] * 1e3, "ms"),
        Row("… median", statistics.median(late) * 1e3, "ms"),
    ]
