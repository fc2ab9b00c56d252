"""A process that has imported everything and forks a life whenever it is told to: a start costs no import."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import attrs

__all__ = ["Nursery"]

MEASURING = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COV_CORE_SOURCE")


class Nursery:
    """Starts lives, and tells how each ended. A context manager."""

    def __enter__(self):
        environment = {name: value for name, value in os.environ.items() if name not in MEASURING}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.nursery"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        return self

    def __exit__(self, *failure):
        self._process.communicate(timeout=60)

    def start(self, orders):
        """Begin a life; returns its process id."""
        self._process.stdin.write(json.dumps(attrs.asdict(orders)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self):
        """The exit code of the life that was begun, as `subprocess` has it: negative for a signal."""
        return int(self._process.stdout.readline())


def _serve():
    from crash.life import Orders, live  # noqa: PLC0415 - only in the process that forks

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                live(Orders(**json.loads(line)))
                code = 0
            except BaseException:  # noqa: BLE001 - the fork must not go on as a nursery
                traceback.print_exc()
            os._exit(code)
        _say(child)
        _say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _say(number):
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
