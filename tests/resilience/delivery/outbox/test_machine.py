"""The outbox against a model: several processes on one file, ending in every way, with a clock that jumps."""

import tempfile
from pathlib import Path

import attrs
import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import part

from resilience import Outbox, Row

SPAN = 15.0
PLACES = {"eu": "http://eu", "us": "http://us", "moved": "http://new"}


@attrs.define
class Result:
    """What the model knows of a result; ``owner`` is a process, or None for nobody; ``dead`` is the reason."""

    row: Row
    writer: int
    owner: int | None
    dead: str | None = None


@attrs.define
class Process:
    """What the model knows of a process."""

    outbox: Outbox
    number: int
    until: float = 0.0
    mine: set[int] = attrs.field(factory=set)  # what it thinks it may send
    saw: dict[int, float] | None = None  # claims that had run out at its last look
    alive: bool = True


class OutboxMachine(RuleBasedStateMachine):
    """Every row has one owner at most, and is where the model says."""

    processes = st.integers(0, 2)
    names = st.sampled_from(["eu", "us", "moved"])

    def __init__(self):
        super().__init__()
        self.now = 1_000_000.0
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "outbox.db")
        self.results: dict[int, Result] = {}
        self.processes: list[Process] = []
        self.claims: dict[int, float] = {}  # in the file, by process
        self.count = 0
        self.born = 0

    def teardown(self):
        """Nothing stays behind."""
        for process in self.processes:
            process.outbox.close()
        self.folder.cleanup()

    def living(self, which: int) -> Process:
        """One of those that run; the first one is started if there is none."""
        living = [process for process in self.processes if process.alive]
        if not living:
            self.start()
            living = [self.processes[-1]]
        return living[which % len(living)]

    def good(self, owner: int) -> bool:
        """Whether a claim holds."""
        return self.now < self.claims[owner] <= self.now + SPAN

    def claim_is_renewed(self, process: Process) -> None:
        """As it is after a third, or if it is not there."""
        age = self.now - (process.until - SPAN)
        if not 0 <= age <= SPAN / 3 or process.number not in self.claims:
            process.until = self.claims[process.number] = self.now + SPAN

    @initialize()
    def two_start(self):
        """There is somebody to share with."""
        self.start()
        self.start()

    @precondition(lambda self: sum(process.alive for process in self.processes) < 3)
    @rule()
    def start(self):
        """Another process."""
        self.born += 1
        outbox = Outbox(self.path, claim_for=SPAN, clock=lambda: self.now)
        outbox._desk._db.execute("PRAGMA synchronous = OFF")  # what a crash of the machine leaves is not asked here
        self.processes.append(Process(outbox, self.born, self.now + SPAN))
        self.claims[self.born] = self.now + SPAN

    @rule(which=processes, name=names, numbers=st.lists(st.integers(0, 9), min_size=1, max_size=4))
    def put(self, which, name, numbers):
        """Results have to wait; they may be written in another order than they came in."""
        process = self.living(which)
        for number in numbers:
            self.count += 1
            row = process.outbox.put(Row(name, f"http://{name}", "k", 10 * self.count + 17 * number, [self.count]))
            assert row.id not in self.results
            self.claim_is_renewed(process)
            self.results[row.id] = Result(row, process.number, process.number)
            process.mine.add(row.id)

    @rule(which=processes, data=st.data())
    def remove(self, which, data):
        """A result was taken, perhaps one that is another's by now."""
        process = self.living(which)
        if process.mine:
            number = data.draw(st.sampled_from(sorted(process.mine)))
            process.mine.discard(number)
            result = self.results.pop(number, None)
            process.outbox.remove(Row("eu", "", "", 0, None, number) if result is None else result.row)

    @rule(which=processes, data=st.data(), known=st.booleans())
    def bury(self, which, data, known):
        """A result was refused; it was written down before, or not."""
        process = self.living(which)
        if known and process.mine:
            number = data.draw(st.sampled_from(sorted(process.mine)))
            process.mine.discard(number)
            process.outbox.bury(Row("eu", "", "", 0, None, number), "no")
            if number in self.results:
                self.results[number].owner, self.results[number].dead = None, "no"
        elif not known:
            self.count += 1
            row = Row("eu", "http://eu", "a", -self.count, [self.count])
            process.outbox.bury(row, "never")
            (found,) = [d.row for d in process.outbox.dead_letters() if d.row.number == -self.count]
            self.results[found.id] = Result(found, process.number, None, "never")

    @rule(which=processes, names=st.just({"eu", "us", "moved"}) | st.sets(names))
    def claim(self, which, names):
        """A process looks for what it can have."""
        process = self.living(which)
        bad = {o: until for o, until in self.claims.items() if o != process.number and not self.good(o)}
        over = {o for o in bad if process.saw is None or process.saw.get(o) == bad[o]}
        process.saw = bad
        lost = {n for n in process.mine if n not in self.results or self.results[n].owner != process.number}
        free = [
            (result.writer, result.row.number, number)
            for number, result in self.results.items()
            if result.dead is None
            and (result.owner is None or result.owner in over)
            and result.row.destination in names
            and PLACES[result.row.destination] == result.row.identity
        ]

        claimed = process.outbox.claim({name: PLACES[name] for name in names})

        assert [row.id for row in claimed.rows] == [number for _, _, number in sorted(free)]
        assert claimed.rows == tuple(self.results[row.id].row for row in claimed.rows)
        assert claimed.lost == lost
        process.mine -= lost
        for row in claimed.rows:
            self.results[row.id].owner = process.number
            process.mine.add(row.id)
        if process.mine:
            self.claim_is_renewed(process)
        self.forget(over)

    def forget(self, owners):
        """Claims of those who have no rows."""
        for owner in owners:
            if all(result.owner != owner for result in self.results.values()):
                self.claims.pop(owner, None)

    @rule(which=processes, data=st.data())
    def release(self, which, data):
        """Some of its rows are nobody's."""
        process = self.living(which)
        numbers = data.draw(st.sets(st.sampled_from(sorted(process.mine)))) if process.mine else set()
        process.outbox.release([Row("eu", "", "", 0, None, number) for number in numbers])
        process.mine -= numbers
        for number in numbers & self.results.keys():
            if self.results[number].owner == process.number:
                self.results[number].owner = None

    @rule(which=processes, killed=st.booleans())
    def end(self, which, killed):
        """It ends in good order, or without a word."""
        process = self.living(which)
        process.alive = False
        if not killed:
            process.outbox.close()
            self.forget({process.number})
            return
        process.outbox._desk._disconnect()
        process.outbox._desk = None
        process.outbox._closed = True

    @rule(seconds=st.sampled_from([1.0, 4.0, 6.0, 15.0, 16.0]))
    def time_passes(self, seconds):
        """As it does."""
        self.now += seconds

    @rule(seconds=st.sampled_from([3600.0, -1.0, -10.0, -3600.0]))
    def time_jumps(self, seconds):
        """Both ways."""
        self.now += seconds

    @rule(which=processes, name=st.none() | names, data=st.data(), revive=st.booleans())
    def change_dead(self, which, name, data, revive):
        """Dead letters are sent again, or deleted."""
        process = self.living(which)
        dead = {n for n, result in self.results.items() if result.dead is not None}
        ids = data.draw(st.none() | st.sets(st.sampled_from(sorted(dead | {0})))) if dead else None
        these = {n for n in dead if name in (None, self.results[n].row.destination) and (ids is None or n in ids)}

        change = process.outbox.revive if revive else process.outbox.purge
        assert change(name, ids=ids) == len(these)

        for number in these:
            if revive:
                self.results[number].dead = None
            else:
                del self.results[number]

    @rule(which=processes, name=names)
    def discard(self, which, name):
        """Waiting rows that no living process has are given up."""
        process = self.living(which)
        these = [
            number
            for number, result in self.results.items()
            if result.dead is None
            and result.row.destination == name
            and (result.owner is None or (result.owner != process.number and not self.good(result.owner)))
        ]
        assert process.outbox.discard(name) == len(these)
        for number in these:
            del self.results[number]

    @invariant()
    def everything_is_where_it_should_be(self):
        """The file has what the model has, and says so to everybody."""
        for process in [process for process in self.processes if process.alive][:1]:
            dead = {n: result for n, result in self.results.items() if result.dead is not None}
            waiting = [result for n, result in self.results.items() if n not in dead]
            free = [result for result in waiting if result.owner is None or not self.good(result.owner)]
            assert {d.row.id: d.reason for d in process.outbox.dead_letters()} == {n: r.dead for n, r in dead.items()}
            for stock in process.outbox.stock():
                at = [result for result in self.results.values() if result.row.destination == stock.destination]
                assert stock.waiting == sum(result in waiting for result in at)
                assert stock.dead == len(at) - stock.waiting
                assert stock.free == sum(result in free for result in at)
            assert len(self.results) == sum(stock.waiting + stock.dead for stock in process.outbox.stock())


OutboxMachine.TestCase.settings = settings(max_examples=part(100), stateful_step_count=50, deadline=None)
TestOutbox = OutboxMachine.TestCase
