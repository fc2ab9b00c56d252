"""Prints what the poller's rules achieve, measured in virtual time: ``python tests/poller_figures.py``."""

import argparse
import sys

from scenarios import ALL

HEADER = "| scenario | plain reading | rules (target) | ours | ideal |\n|---|---|---|---|---|\n"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a target is not reached."""
    parser = argparse.ArgumentParser(prog="python tests/poller_figures.py", description=__doc__)
    parser.parse_args(arguments)
    return table()


def table() -> int:
    """Print every row as soon as it is measured; 1 if a target is not reached."""
    sys.stdout.write(HEADER)
    rows = []
    for scenario in ALL.values():
        rows.append(scenario())
        sys.stdout.write(rows[-1].line() + "\n")
        sys.stdout.flush()
    for note in [f"\n{row.scenario}: {row.note}.\n" for row in rows if row.note]:
        sys.stdout.write(note)
    missed = [row.scenario for row in rows if not row.reached]
    sys.stdout.write(f"\nnot reached: {'; '.join(missed)}\n" if missed else "\nall reached\n")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
