"""A user's mistake is one line that says what to change, and exit status 2; never our stack trace."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from conductor_adapter.targets import TargetError

__all__ = ["BAD_USAGE", "refusing"]

BAD_USAGE = 2


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what options, environment, files and targets are refused with into one line and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, ImportError, TargetError) as error:
        sys.stderr.write(f"conductor-adapter: {error}\n")
        raise SystemExit(BAD_USAGE) from None
