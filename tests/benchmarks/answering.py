"""How a measured process tells of itself: a line of JSON for each line that it is sent."""

import json
import logging
import os
import resource
import sys
import time

__all__ = ["answer_until_the_end"]


def answer_until_the_end(more=dict):
    """Answer each line on standard input; at its end the process ends, whatever it is doing."""
    logging.disable(logging.CRITICAL)
    for _ in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        usage = {"clock": time.monotonic(), "cpu": used.ru_utime + used.ru_stime, "switches": used.ru_nvcsw}
        sys.stdout.write(json.dumps({**usage, **more()}) + "\n")
        sys.stdout.flush()
    os._exit(0)
