"""The server's clock."""

import time

__all__ = ["wall_clock_ms"]


def wall_clock_ms() -> int:
    """Milliseconds since the epoch: times go onto the wire and outlive the process."""
    return time.time_ns() // 1_000_000
