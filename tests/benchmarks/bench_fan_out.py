"""What fan-out costs beside the standard library's pool, and how exactly it keeps a deadline."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue

from resilience.fan_out import FanOutExecutor

from .table import Row

__all__ = ["rows"]

DEADLINES = 50
TIMEOUT = 0.02
SUBMITTED = 500


def noop():
    """The call whose fan-out is measured."""


def short():
    """A call that waits as calls do, and not for long."""
    time.sleep(0.001)


def seconds(what, clock, repeat):
    """What one of ``repeat`` calls takes by ``clock``."""
    began = clock()
    for _ in range(repeat):
        what()
    return (clock() - began) / repeat


def compared(call, number, repeat, rounds, clock=time.process_time):
    """Cost in seconds, round by round, of ``number`` times ``call`` fanned out, and by the pool."""
    calls = dict.fromkeys(range(number), call)
    with ThreadPoolExecutor(number) as pool, FanOutExecutor() as fan_out:

        def theirs():
            wait([pool.submit(call) for call in calls.values()], timeout=5.0)

        def ours():
            fan_out.run(calls, 5.0)

        for what in (ours, theirs):
            seconds(what, clock, repeat)
        return [[seconds(what, clock, repeat) for what in (ours, theirs)] for _ in range(rounds)]


def ratio(found):
    """Median of ours ÷ theirs."""
    return statistics.median(ours / theirs for ours, theirs in found)


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
    rounds = 9 if quick else 31
    # The garbage collector stays on: the futures of the standard library would be the dearer without it.
    three, many = compared(short, 3, 100, rounds), compared(short, 32, 20, rounds)
    brief = compared(noop, 3, 100, rounds)
    ours, theirs = (statistics.median(column) * 1e6 for column in zip(*three, strict=True))
    late = sorted(overruns())
    nine_in_ten = late[DEADLINES * 9 // 10]
    submit = statistics.median(submitted() for _ in range(7))
    return [
        Row("fan-out of 3 calls that wait 1 ms ÷ stdlib submit + wait, CPU", ratio(three), floor=1.0, aim=0.8),
        Row("… of 32", ratio(many), floor=1.0, aim=0.8),
        Row("… of 3 that return at once", ratio(brief)),
        Row("… run, 3 calls that wait: CPU", ours, "µs"),
        Row("… stdlib submit + wait: CPU", theirs, "µs"),
        Row("submit, call, on_outcome, from another thread: CPU", submit * 1e6, "µs"),
        Row(f"return after the deadline, 9 of 10 within ({DEADLINES} runs)", nine_in_ten * 1e3, "ms", floor=20, aim=5),
        Row("… worst, with whatever else the machine did", late[-1] * 1e3, "ms"),
        Row("… median", statistics.median(late) * 1e3, "ms"),
    ]
