"""Runs delivery in virtual time through random faults: many schedules, or one; a failing one is made small."""

import argparse
import sys

from simulation.delivery import Schedule, draw, play
from simulation.delivery.shrink import shrink


def main(arguments: list[str] | None = None) -> int:
    """Print what came of one schedule or of many; 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python tests/worlds/delivery_figures.py", description=__doc__)
    parser.add_argument("--seed", type=int, metavar="N", help="run schedule N")
    parser.add_argument("--schedule", metavar="JSON", help="run this schedule, as it was printed")
    parser.add_argument("--number", type=int, default=10_000, metavar="N", help="run so many (10000)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="from this one on (0)")
    options = parser.parse_args(arguments)
    if options.schedule is not None:
        return one(Schedule.from_text(options.schedule))
    if options.seed is not None:
        return one(draw(options.seed))
    return many(range(options.first, options.first + options.number))


def one(schedule: Schedule) -> int:
    """Run one, and make it small if it fails."""
    tell(schedule.to_text())
    verdict = play(schedule)
    extra = sum(verdict.executions.values()) - len(verdict.executions)
    tell(f"{verdict.steps} steps; {len(verdict.executions)} tasks executed, {extra} of them once more")
    if not verdict.found:
        tell(f"nothing found; at rest {verdict.rest:.1f} s after the last fault")
        return 0
    tell(f"found {verdict.found}")
    return report(schedule)


def many(seeds: range) -> int:
    """Run many; stop at the first that fails."""
    longest = 0.0
    for seed in seeds:
        verdict = play(draw(seed))
        longest = max(longest, verdict.rest)
        if verdict.found:
            tell(f"schedule {seed}: {verdict.found}")
            return report(draw(seed))
    tell(f"{len(seeds)} schedules, nothing found; at rest {longest:.0f} s after the last fault at the latest")
    return 0


def report(schedule: Schedule) -> int:
    """Print the smallest schedule that fails in the same way."""
    small = shrink(schedule, lambda candidate: play(candidate).found)
    tell(f"the smallest that fails so: {play(small).found}")
    tell(f"  python tests/worlds/delivery_figures.py --schedule '{small.to_text()}'")
    return 1


def tell(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
