"""Prints what the poller's rules achieve, measured in virtual time; with ``--seed`` one random world instead."""

import argparse
import sys
from collections import Counter

from referee import Referee
from scenarios import ALL
from simulation.random_worlds import seeded_world
from simulation.survey import Outcome, outcome, part
from simulation.watch import Watch

HEADER = "| scenario | plain reading | rules (target) | ours | ideal |\n|---|---|---|---|---|\n"


def main(arguments: list[str] | None = None) -> int:
    """Print the table, or what one or many random worlds come to; 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python tests/worlds/poller_figures.py", description=__doc__)
    parser.add_argument("--seed", type=int, metavar="N", help="replay random world N, under the watch and the referee")
    parser.add_argument("--worlds", type=int, metavar="N", help="run so many random worlds")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return replay(options.seed)
    return table() if options.worlds is None else survey(options.worlds)


def table() -> int:
    """Print every row as soon as it is measured; 1 if a target is not reached."""
    tell(HEADER.rstrip())
    rows = []
    for scenario in ALL.values():
        rows.append(scenario())
        tell(rows[-1].line())
    for row in rows:
        if row.note:
            tell(f"\n† {row.scenario}: {row.note}.")
    missed = [row.scenario for row in rows if not row.reached]
    tell("\nnot reached (✗): " + "; ".join(missed) if missed else "\nall others reached")
    return int(bool(missed))


def replay(seed: int) -> int:
    """Print what is in a random world and what comes of it."""
    tell(f"world {seed}: {seeded_world(seed).describe()}")
    came = {name: outcome(seed, planner) for name, planner in (("watch", Watch), ("referee", Referee))}
    made = seeded_world(seed)
    tell(f"starts: {_counted(made.world.run(made.seconds).starts)}; polls: {_counted(made.world.polls)}")
    for name, it in came.items():
        tell(f"{name}: {it.broken or 'nothing broken'}; most give-backs of one task: {it.returns}; {_share(it)}")
    return int(any(it.broken for it in came.values()))


def survey(number: int) -> int:
    """Print what so many random worlds come to."""
    outcomes = [outcome(seed) for seed in range(number)]
    shares = [it.share for it in outcomes if it.share is not None]
    tell(f"share of an omniscient scheduler: {', '.join(f'p{p} {part(shares, p):.2f}' for p in (1, 10, 50, 90))}")
    tell(f"most give-backs of one task: {max(it.returns for it in outcomes)}")
    worst = sorted((it.share, it.seed) for it in outcomes if it.share is not None)[:10]
    tell("lowest: " + ", ".join(f"{share:.2f} (--seed {seed})" for share, seed in worst))
    broken = [it for it in outcomes if it.broken]
    for it in broken:
        tell(f"--seed {it.seed}: {it.broken}")
    return int(bool(broken))


def tell(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=lambda it: int(it[0][1:])))


def _share(came: Outcome) -> str:
    if came.share is None or came.of_prefetch is None:
        return "next to no work"
    return f"share of an omniscient scheduler {came.share:.2f}, of one that may prefetch {came.of_prefetch:.2f}"


if __name__ == "__main__":
    sys.exit(main())
