"""The same worker as ``worker_process``, by conductor-python: one server, and its own TaskRunner."""

import json
import logging
import sys
import threading
import time

from answering import answer_until_the_end
from conductor.client.automator.task_runner import TaskRunner
from conductor.client.configuration.configuration import Configuration
from conductor.client.worker.worker import Worker

TASK_TYPE = "bench"


def main(options):
    """Work until standard input ends."""
    logging.disable(logging.CRITICAL)
    seconds = options["work"]

    def work():
        if seconds:
            time.sleep(seconds)
        return {}

    (url,) = options["servers"].values()
    runner = TaskRunner(Worker(TASK_TYPE, work, thread_count=options["threads"]), Configuration(server_api_url=url))
    threading.Thread(target=runner.run, daemon=True).start()
    answer_until_the_end()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
