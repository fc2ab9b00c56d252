"""All benchmarks, as one table: ``python -m tests.benchmarks [NAMES…] [--quick]``."""

import argparse
import importlib
import sys
import time
from pathlib import Path

from .table import Row, render

PREFIX = "bench_"
NAMES = sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def main(arguments=None):
    """Run the benchmarks and print their table; 1 if a figure is below its floor, or could not be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAMES", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter windows: rougher figures")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    rows = [row for name in options.names or NAMES for row in measured(name, quick=options.quick)]
    sys.stdout.write(render(rows))
    return int(any(row.missed for row in rows))


def measured(name, *, quick):
    """The rows of one benchmark; says on standard error how long it took."""
    began = time.monotonic()
    sys.stderr.write(f"{name} … ")
    sys.stderr.flush()
    try:
        rows = importlib.import_module(f".{PREFIX}{name}", __package__).rows(quick=quick)
    except Exception as error:  # noqa: BLE001 - one that fails must not take the figures of the others with it
        rows = [Row(name, None, note=f"{type(error).__name__}: {error}", failed=True)]
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    return rows


if __name__ == "__main__":
    sys.exit(main())
