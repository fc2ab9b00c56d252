"""Whether this process may open as many files as its connections need."""

import resource

__all__ = ["descriptor_hint", "open_files"]

OTHERS = 32  # files that are open anyway: Python's, the worker's own
POLLS = 2  # of one worker at one server at the same time


def open_files() -> int:
    """How many files this process may have open at once; -1 for no limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def descriptor_hint(limit: int, servers: int, threads: list[int], each: int) -> str | None:
    """What to say when the limit is clearly too small.

    Args:
        limit: files that may be open at once; -1 for no limit.
        servers: how many there are.
        threads: of each worker.
        each: files of one connection.
    """
    connections = sum(threads) + servers * len(threads) * POLLS
    needed = OTHERS + connections * each
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return None
    return (
        f"this process may open {limit} files at once, and {connections} connections may need {needed}: "
        f"raise the limit before it runs, for example ulimit -n {2 * needed}"
    )
