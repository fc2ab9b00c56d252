"""Commits that threads share: who leads, and that nobody waits for ever, whoever is interrupted."""

import threading

import pytest

from resilience.delivery.outbox.commits import Commits, Job

GUARD = 20.0


class Disk:
    """Does jobs, in batches that it remembers; may be held, and may be interrupted."""

    def __init__(self):
        self.batches = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self.interrupts = 0

    def commit(self, jobs):
        """Do all of them."""
        self.batches.append(len(jobs))
        self.begun.release()
        assert self.go.wait(GUARD)
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        for job in jobs:
            try:
                job.value = job.work(self)
            except ValueError as error:
                job.error = error
            job.over = True


def beside(call, *args):
    """Run a call on a thread of its own; returns the thread and the list that its outcome goes to."""
    outcomes = []

    def run():
        try:
            outcomes.append(call(*args))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcomes


def queued(commits, count):
    """Until so many wait."""
    pause = threading.Event()
    for _ in range(int(GUARD * 1000)):
        if len(commits._queue) >= count:
            return
        pause.wait(0.001)
    raise AssertionError("waited in vain")


def ended(*threads):
    """All of them, without waiting for ever."""
    for thread, _ in threads:
        thread.join(GUARD)
        assert not thread.is_alive()


@pytest.fixture
def disk():
    """A disk that works."""
    return Disk()


@pytest.fixture
def commits(disk):
    """What shares it."""
    return Commits(disk.commit)


def test_work_returns_its_value_or_raises_its_error(commits):
    """As if it had been done by whoever brought it."""
    assert commits.do(lambda _: 7) == 7
    with pytest.raises(ValueError, match="no"):
        commits.do(lambda _: (_ for _ in ()).throw(ValueError("no")))
    assert commits.do(lambda _: 8) == 8


def test_who_comes_during_a_commit_is_in_the_next_one_together(commits, disk):
    """However many: two commits for five."""
    disk.go.clear()
    first = beside(commits.do, lambda _: 0)
    assert disk.begun.acquire(timeout=GUARD)
    others = [beside(commits.do, lambda _, n=n: n) for n in range(1, 5)]
    queued(commits, 4)
    disk.go.set()
    ended(first, *others)

    assert [outcomes for _, outcomes in (first, *others)] == [[0], [1], [2], [3], [4]]
    assert disk.batches == [1, 4]


def test_where_several_came_together_the_next_leader_waits_for_them(commits, disk):
    """Until they are there, or a moment has passed: a lone one is not kept waiting for ever."""
    commits._usual = 3
    waited = []

    class Patient(Job):
        def wait(self, timeout=-1):
            if timeout > 0:
                waited.append(timeout)
                timeout = GUARD
            super().wait(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resilience.delivery.outbox.commits.Job", Patient)
        three = [beside(commits.do, lambda _: 0) for _ in range(3)]
        ended(*three)
    assert disk.batches == [3]
    assert len(waited) == 1

    assert commits.do(lambda _: 1) == 1  # after a moment
    assert disk.batches == [3, 1]


def test_an_interrupted_leader_leaves_the_work_of_the_others_to_the_next(commits, disk):
    """What it had not finished is done by one of them."""
    disk.go.clear()
    first = beside(commits.do, lambda _: 0)
    assert disk.begun.acquire(timeout=GUARD)
    others = [beside(commits.do, lambda _, n=n: n) for n in range(1, 4)]
    queued(commits, 3)
    disk.interrupts = 2
    disk.go.set()
    ended(first, *others)

    outcomes = [outcome for _, (outcome,) in (first, *others)]
    assert isinstance(outcomes[0], KeyboardInterrupt)
    assert sum(isinstance(outcome, KeyboardInterrupt) for outcome in outcomes[1:]) == 1
    assert {outcome for outcome in outcomes[1:] if isinstance(outcome, int)} < {1, 2, 3}
    assert disk.batches == [1, 3, 2]
    assert commits.do(lambda _: 5) == 5


@pytest.mark.parametrize("interrupted_first", [True, False])
def test_an_interrupted_follower_keeps_nobody_else_waiting(commits, disk, interrupted_first):
    """Its work is dropped if it was not begun, and it cannot lead any more."""

    class Impatient(Job):
        def wait(self, timeout=-1):
            raise KeyboardInterrupt(timeout)

    disk.go.clear()
    first = beside(commits.do, lambda _: 0)
    assert disk.begun.acquire(timeout=GUARD)
    later = []
    if not interrupted_first:
        later.append(beside(commits.do, lambda _: 1))
        queued(commits, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resilience.delivery.outbox.commits.Job", Impatient)
        with pytest.raises(KeyboardInterrupt):
            commits.do(lambda _: 2)
    if interrupted_first:
        later.append(beside(commits.do, lambda _: 1))
        queued(commits, 1)
    disk.go.set()
    ended(first, *later)

    assert disk.batches == [1, 1]
    assert [outcomes for _, outcomes in (first, *later)] == [[0], [1]]


def test_a_follower_that_is_interrupted_as_it_is_to_lead_passes_the_lead_on(commits, disk):
    """Nobody is left behind it."""

    class Doomed(Job):
        def wait(self, timeout=-1):
            super().wait(timeout)
            raise KeyboardInterrupt

    disk.go.clear()
    first = beside(commits.do, lambda _: 0)
    assert disk.begun.acquire(timeout=GUARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resilience.delivery.outbox.commits.Job", Doomed)
        doomed = beside(commits.do, lambda _: 1)
        queued(commits, 1)
    last = beside(commits.do, lambda _: 2)
    queued(commits, 2)
    disk.go.set()
    ended(first, doomed, last)

    assert isinstance(doomed[1][0], KeyboardInterrupt)
    assert last[1] == [2]
    assert disk.batches == [1, 1]


def test_abandoned_work_is_not_queued_again(commits, disk):
    """After an interrupted commit only those are done again who still wait."""
    gone = Job(lambda _: 1)
    commits._queue.append(gone)
    gone.abandoned = True
    disk.interrupts = 1
    with pytest.raises(KeyboardInterrupt):
        commits.do(lambda _: 0)

    assert commits._queue == []
    assert not commits._led
