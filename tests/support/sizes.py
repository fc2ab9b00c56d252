"""How much of what is random runs: a part in `make test`, all of it in `make test-long`."""

import os

__all__ = ["part"]

PART = int(os.environ.get("PART", "4"))
if PART < 1:
    raise ValueError(f"PART must be a whole number of at least 1, not {PART}: 1 runs all examples, 4 a quarter of them")


def part(whole: int) -> int:
    """So many of ``whole`` examples: all if the environment says ``PART=1``."""
    return max(5, whole // PART)
