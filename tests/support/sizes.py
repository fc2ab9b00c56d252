"""How much of what is random runs: a part in `make test`, all of it in `make test-long`."""

import os

__all__ = ["part"]

PART = int(os.environ.get("PART", "4"))


def part(whole: int) -> int:
    """So many of ``whole`` examples: all if the environment says ``PART=1``."""
    return max(5, whole // PART)
