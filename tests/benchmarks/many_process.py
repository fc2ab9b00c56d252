"""A worker of many task types as a process of its own: ``python many_process.py JSON``; see ``worker_process``.

The JSON object has ``servers`` (name to URL), ``types`` (how many task types) and ``transport``.
"""

import json
import sys
import time

from answering import answer_until_the_end

from conductor_adapter import RunnerConfig, ServerSettings, WorkerRunner
from conductor_adapter.functions.decorator import WorkerSpec


def nothing():
    """A task."""


def main(options):
    """Start, and work until standard input ends."""
    specs = [WorkerSpec(task_type=f"bench-{number}", function=nothing) for number in range(options["types"])]
    servers = [ServerSettings(name, url) for name, url in options["servers"].items()]
    runner = WorkerRunner(specs, servers, config=RunnerConfig(transport=options["transport"]))
    began = time.monotonic()
    runner.start()
    took = time.monotonic() - began
    answer_until_the_end(lambda: {"start": took})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
