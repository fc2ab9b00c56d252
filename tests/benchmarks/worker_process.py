"""A worker as a process of its own: ``python worker_process.py JSON``; a line on its standard input asks how it is.

The JSON object has ``servers`` (name to URL), ``threads``, ``work`` (seconds a task takes), ``transport``
and ``outbox`` (a path or null).
"""

import itertools
import json
import sys
import time
from collections import Counter, deque

from answering import answer_until_the_end

from conductor_adapter import ServerSettings, WorkerRunner, task_context, worker
from conductor_adapter.running import RunnerConfig

TASK_TYPE = "bench"
REMEMBERED = 5000


def main(options):
    """Work until standard input ends."""
    order = deque(maxlen=REMEMBERED)  # the servers, in the order in which their tasks ran
    seconds = options["work"]

    @worker(TASK_TYPE, threads=options["threads"])
    def work():
        order.append(task_context().server)
        if seconds:
            time.sleep(seconds)

    servers = [ServerSettings(name, url) for name, url in options["servers"].items()]
    config = RunnerConfig(transport=options["transport"], outbox=options["outbox"])
    WorkerRunner([work], servers, config=config).start()
    answer_until_the_end(lambda: told_of(order))


def told_of(order):
    """Tasks by server, and how many of one ran in a row at most, since this was asked last."""
    ran = [order.popleft() for _ in range(len(order))]
    runs = [len(list(run)) for _, run in itertools.groupby(ran)]
    return {"ran": Counter(ran), "longest_run": max(runs, default=0)}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
