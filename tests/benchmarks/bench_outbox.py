"""What an outbox writes in an outage, and how fast it is empty after it; the disk's own syncs beside it."""

import logging
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from resilience.delivery import Destination, Outbox, Relay, RelayConfig

from .table import Row

__all__ = ["rows"]

RESULTS = 20_000
BACKLOG = 10_000
ROUNDS = 5
SYNCS = 200
PAGE = bytes(4096)
WANTED = {10: (10_000, 20_000), 32: (10_000, 30_000)}  # results a second, by threads
PAYLOAD = {
    "taskId": "6c5f2f3e-2a0b-4b0e-9a55-0d3a1a0f1c11",
    "workflowInstanceId": "0b1f3a52-73a2-4be0-8a4f-8e1c2a9f7d20",
    "status": "COMPLETED",
    "outputData": {"amount": 3, "order": "7", "text": "x" * 200},
}
WAITS = RelayConfig(retry_initial=1000.0, retry_maximum=1000.0)  # nobody sends meanwhile: only writing is measured
WRITES_FIRST = RelayConfig(write_first=True)


def down(_payload, _timeout):
    """The destination in an outage."""
    raise ConnectionError("down")


def well(_payload, _timeout):
    """The destination after it."""


def in_threads(count, work):
    """How many seconds ``count`` threads take that call ``work(number)``."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def per_second(folder, threads, results, *, send=down, config=WAITS):
    """Results that ``threads`` units deliver in a second, to a destination that is down or well."""
    each = results // threads
    with Outbox(Path(folder, f"{time.monotonic_ns()}.db")) as outbox:
        relay = Relay([Destination("eu", send, bounded=True)], config=config, store=outbox)
        relay.deliver("eu", "first", PAYLOAD)

        def unit(number):
            for n in range(each):
                relay.deliver("eu", f"{number}-{n}", PAYLOAD)

        seconds = in_threads(threads, unit)
        relay._ledger.closed = True  # without a last try for each
        return threads * each / seconds


def seconds_to_drain(folder, results):
    """From the start of the process after the outage until nothing waits any more."""
    path = Path(folder, f"{time.monotonic_ns()}.db")
    with Outbox(path) as outbox:
        relay = Relay([Destination("eu", down, bounded=True)], config=WAITS, store=outbox)
        in_threads(20, lambda number: [relay.hand_over("eu", f"{number}-{n}", PAYLOAD) for n in range(results // 20)])
        relay._keeper.leave()
    began = time.perf_counter()
    with Outbox(path) as outbox, Relay([Destination("eu", well, bounded=True)], store=outbox) as relay:
        left = relay.close(60.0)
    if left:
        raise RuntimeError(f"{left} of {results} results were left")
    return time.perf_counter() - began


def milliseconds_of_a_sync(folder):
    """What the disk needs for one page, without a database."""
    file = os.open(Path(folder, "syncs"), os.O_CREAT | os.O_WRONLY)
    try:
        os.write(file, PAGE * SYNCS)
        os.fsync(file)
        began = time.perf_counter()
        for number in range(SYNCS):
            os.pwrite(file, PAGE, number * len(PAGE))
            os.fdatasync(file)
        return (time.perf_counter() - began) / SYNCS * 1e3
    finally:
        os.close(file)


def written(folder, threads, results, rounds):
    """The row of so many threads: no outbox can have more of their results in a second than syncs times threads."""
    pairs = [(per_second(folder, threads, results), milliseconds_of_a_sync(folder)) for _ in range(rounds)]
    rate, sync = (statistics.median(figures) for figures in zip(*pairs, strict=True))
    most, (floor, aim) = threads / sync * 1e3, WANTED[threads]
    limits = {"floor": floor, "aim": aim} if most > 1.5 * floor else {}
    note = f"{min(pairs)[0]:.0f} to {max(pairs)[0]:.0f}; with a sync of {sync:.2g} ms at most {most:.0f}"
    what = f"outbox: results written in an outage, {threads} threads"
    return Row(what, rate, "/s", note=note if limits else f"{note}: no limit on this disk", **limits)


def rows(*, quick=False):
    """What the design sets a limit for, and what belongs beside it."""
    rounds, results, backlog = (1, RESULTS // 10, BACKLOG // 10) if quick else (ROUNDS, RESULTS, BACKLOG)
    logging.getLogger("resilience").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        found = [written(folder, threads, results, rounds) for threads in WANTED]
        drains = [seconds_to_drain(folder, backlog) for _ in range(rounds)]
        found.append(Row(f"outbox: {backlog} results sent after an outage", statistics.median(drains), "s"))
        first = [per_second(folder, 10, results, send=well, config=WRITES_FIRST) for _ in range(rounds)]
        found.append(Row("outbox: results with write_first, 10 threads", statistics.median(first), "/s"))
        plain = [per_second(folder, 10, results, send=well) for _ in range(rounds)]
        found.append(Row("… results without, 10 threads", statistics.median(plain), "/s", note="nothing is written"))
    return found
