"""Whether this process can open as many files as its connections need."""

import resource

__all__ = ["descriptor_hint", "open_files"]

OTHERS = 32  # files that are open anyway: Python's, the worker's own
POLLS = 2  # of one worker to one server at the same time


def open_files() -> int:
    """How many files this process can have open at once; -1 for no limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def descriptor_hint(limit: int, servers: int, threads: list[int], each: int) -> str | None:
    """The hint to print when the limit is clearly too small; None otherwise.

    Args:
        limit: the number of files that can be open at once; -1 for no limit.
        servers: the number of servers.
        threads: the number of threads of each worker.
        each: the number of files that one connection uses.
    """
    connections = sum(threads) + servers * len(threads) * POLLS
    needed = OTHERS + connections * each
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return None
    return (
        f"this process can open {limit} files at once, but its {connections} connections might need {needed}: "
        f"raise the limit first, for example with ulimit -n {2 * needed}"
    )
