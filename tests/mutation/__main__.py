"""Mutation testing, a module at a time: ``python -m tests.mutation [MODULES…] [--minutes N]``, or ``make mutants``.

Each module of ``plan.toml`` is changed in one place after another (by mutmut), and each time its tests must fail. What
survives is a promise that nobody tests, or stands in ``survivors.toml`` with the reason why no test can or should see
it. What was tested before is not tested again unless its function changed; survivors are, for there may be new tests.
"""

import argparse
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

import attrs

from .running import change, prepare, run, verdicts

HERE = Path(__file__).parent
PLAN = tomllib.loads((HERE / "plan.toml").read_text())
ACCEPTED = tomllib.loads((HERE / "survivors.toml").read_text())["survivor"]
GOAL = 95.0  # per cent of the mutants that a test could see


@attrs.frozen
class Score:
    """What came of the mutants of one module."""

    module: str
    seconds: float
    counts: Counter
    accepted: int
    news: tuple  # survivors that nobody has accepted: (name, before, after)
    stale: tuple  # what was accepted and does not survive

    @property
    def percent(self):
        """Killed, of those that were reached and that a test could see."""
        seen = sum(self.counts.values()) - self.counts["not reached"] - self.accepted
        return 100.0 * (self.counts["killed"] + self.counts["timeout"]) / seen if seen else 0.0

    @property
    def missed(self):
        """Whether the module is below the goal, or was not looked at to the end."""
        return self.percent < GOAL or self.counts["not reached"] > 0


def main(arguments=None):
    """Test the modules and print their scores; 1 if one is below the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULES", help="some of those in plan.toml (default: all)")
    parser.add_argument("--minutes", type=float, default=15.0, help="the longest time for one module (default: 15)")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.modules) - set(PLAN))
    if unknown:
        parser.error(f"{unknown[0]!r} is not in {HERE / 'plan.toml'}; there are {', '.join(PLAN)}")
    scores = []
    for module in options.modules or PLAN:
        scores.append(tested(module, 60.0 * options.minutes))
        sys.stdout.write(told(scores[-1]))
        sys.stdout.flush()
    return int(any(score.missed for score in scores))


def tested(module, seconds):
    """The score of one module."""
    began = time.monotonic()
    prepare(module, PLAN[module])
    before = {name for name, verdict in verdicts(module).items() if verdict == "survived"}
    run(module, seconds)
    again = sorted(name for name, verdict in verdicts(module).items() if verdict == "survived" and name in before)
    left = seconds - (time.monotonic() - began)
    if again and left > 0:
        run(module, left, again)
    return judged(module, time.monotonic() - began)


def judged(module, seconds):
    """The score of what is known now."""
    found = verdicts(module)
    survivors = [(name, *change(module, name)) for name, verdict in found.items() if verdict == "survived"]
    entries = [entry for entry in ACCEPTED if entry["module"] == module]
    news = [one for one in survivors if not any(fits(entry, *one[1:]) for entry in entries)]
    stale = [entry for entry in entries if not any(fits(entry, *one[1:]) for one in survivors)]
    return Score(module, seconds, Counter(found.values()), len(survivors) - len(news), tuple(news), tuple(stale))


def fits(entry, before, after):
    """Whether a survivor is one of those accepted; without ``after`` an entry is about the words of a text alone."""
    if entry["before"] != before:
        return False
    return entry["after"] == after if "after" in entry else plain(before) == plain(after)


def plain(text):
    """A text without what mutmut does to words: XX around them, and their case."""
    return text.replace("XX", "").casefold()


def told(score):
    """A module's score in a line, and what is to be done about it."""
    counts = score.counts
    known = f"{counts['killed']} killed, {counts['timeout']} timed out, {len(score.news)} survived"
    rest = f"{score.accepted} accepted, {counts['not reached']} not reached; {score.seconds:.0f} s"
    lines = [f"{score.module}: {score.percent:.1f} % ({known}, {rest})"]
    for name, before, after in score.news:
        lines += [f"  {name.rpartition('.')[2]}", f"    - {before}", f"    + {after}"]
    lines += [f"  survives no longer, so take it out of survivors.toml: {entry['before']!r}" for entry in score.stale]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
