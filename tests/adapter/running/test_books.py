"""The books of a worker: what became of every task that it polled, and of every result."""

import threading
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from fault_kit import quick, until
from hearing import GUARD, Heard
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter import Books, DevServer, Task, TaskFailed, WorkerRunner, WorkerSpec, worker
from conductor_adapter.cli.bookkeeping import books_facts, books_sentence
from conductor_adapter.running.books import books_of
from conductor_adapter.running.counting import Counting
from resilience import DestinationView, GaveBack, GiveBackFailed, Tally
from resilience.consumer import EndpointCounts

FIELDS = [field.name for field in attrs.fields(Books)]
PLACES = ["finished", "given_back", "giving_back", "kept", "dropped", "held", "unfinished"]
counts = st.integers(0, 9)


@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, counts)), st.fixed_dictionaries(dict.fromkeys(FIELDS, counts)))
def test_books_of_two_servers_add_up(mine: dict[str, int], theirs: dict[str, int]) -> None:
    """Every count is the sum of both, and nothing is the sum of no books."""
    both = Books(**mine) + Books(**theirs)

    assert attrs.asdict(both) == {name: mine[name] + theirs[name] for name in FIELDS}
    assert Books(**mine) + Books() == Books(**mine)


@given(st.fixed_dictionaries(dict.fromkeys(PLACES, counts)), counts)
def test_books_balance_when_every_polled_task_is_in_one_place(places: dict[str, int], polled: int) -> None:
    """What was polled is what finished, went back, is going back, could not, is held, or runs; nothing else counts."""
    assert Books(polled=polled, started=7, late=3, **places).balanced == (polled == sum(places.values()))


def test_every_count_of_a_server_has_its_place_in_the_books() -> None:
    """The consumer's words become Conductor's."""
    names = [field.name for field in attrs.fields(Tally)]
    items = Tally(**{name: 10**place for place, name in enumerate(names, 1)})
    answers = DestinationView(
        waiting=1, unwritten=0, delivered=2, dead=3, written=4, inherited=5, passed=6, left=0, undelivered=0
    )

    books = books_of(EndpointCounts(items=items, answers=answers, repeated=9, lost_leases=8), re_executed=7)

    renamed = {"received": "polled", "executing": "unfinished"}
    assert {renamed.get(name, name): 10**place for place, name in enumerate(names, 1)} == {
        name: count for name, count in attrs.asdict(books).items() if count > 9
    }
    told = (books.waiting, books.updated, books.dead, books.outboxed, books.inherited, books.passed)
    assert (*told, books.re_executed, books.lost_lease, books.repeated) == (1, 2, 3, 4, 5, 6, 7, 8, 9)


def test_repeated_attempts_are_counted_by_server() -> None:
    """A task counts that started and was not its server's first attempt."""
    counting, task = Counting(), Task(task_id="t", workflow_id="w")
    for count in (0, 1, 2):
        counting.starts("eu", attrs.evolve(task, retry_count=count))

    assert (counting.re_executed("eu"), counting.re_executed("us")) == (2, 0)


@pytest.mark.parametrize(
    ("books", "failed", "words"),
    [
        (Books(), 0, "0 tasks polled; 0 results delivered"),
        (
            Books(polled=1, started=1, finished=1, updated=1),
            1,
            "1 task polled: 1 finished (1 failed); 1 result delivered",
        ),
        (
            Books(
                polled=44,
                started=9,
                finished=2,
                given_back=3,
                giving_back=4,
                kept=5,
                dropped=17,
                held=6,
                unfinished=7,
                late=8,
                re_executed=9,
                lost_lease=10,
                updated=11,
                waiting=12,
                dead=13,
                outboxed=14,
                inherited=15,
                passed=16,
                repeated=18,
            ),
            0,
            (
                "44 tasks polled: 2 finished, 3 given back, 4 being given back, 5 could not be given back, "
                "17 dropped after losing their lease, 6 not started, "
                "7 still running; 11 results delivered, 12 waiting, 13 refused permanently, "
                "14 sent through the outbox, 15 taken over from an earlier process, 16 taken over by another process; "
                "8 arrived late, 9 were retries, 10 lost the lease, "
                "18 reported again after a heartbeat"
            ),
        ),
    ],
)
def test_books_in_words(books: Books, failed: int, words: str) -> None:
    """What there is none of is not mentioned; machines get every count, and whether they balance."""
    assert books_sentence(books, failed) == words
    assert books_facts(books) == {**attrs.asdict(books), "balanced": True}


def test_books_tell_what_became_of_every_task() -> None:
    """One finishes, one fails and is tried again, one never starts: each is counted where it is, at every moment."""
    started, release = threading.Event(), threading.Event()
    failed: list[str] = []

    @worker("one", threads=1)
    def one(task: Task, fails: bool = False) -> None:
        if fails and task.retry_count == 0:
            failed.append(task.task_id)
            raise ValueError("not now")
        if not fails:
            started.set()
            assert release.wait(GUARD)

    heard = Heard()
    with DevServer(name="eu") as eu, DevServer(name="us") as us, ThreadPoolExecutor(1) as pool:
        run = eu.start_task("one", {"fails": True}, retryCount=1, retryDelaySeconds=0)
        runner = WorkerRunner([one], [eu.settings, us.settings], config=quick("requests"), on_event=heard)
        with runner:
            heard.wait_for(TaskFailed)
            assert eu.wait(run, GUARD).status == "COMPLETED"
            eu.start_tasks("one", 1)
            assert started.wait(GUARD)
            us.start_tasks("one", 1)
            until(lambda: runner.books()["us"].held, "the other server's task is held")
            assert attrs.asdict(runner.books()["eu"]).items() >= {"polled": 3, "finished": 2, "unfinished": 1}.items()
            assert runner.books()["eu"].balanced
            stopping = pool.submit(runner.stop)
            heard.wait_for(GaveBack, source="us")
            release.set()
            report = stopping.result(GUARD)

    assert report.clean
    assert report.books["eu"] == Books(polled=3, started=3, finished=3, re_executed=1, updated=3)
    given_back = report.books["us"].given_back
    assert report.books["us"] == Books(polled=given_back, given_back=given_back)
    assert given_back >= 1


def test_task_that_cannot_go_back_stays_in_the_books() -> None:
    """A server that refuses its un-started task keeps it: polled, not started, kept."""
    started, release, heard = threading.Event(), threading.Event(), Heard()

    def hold() -> None:
        started.set()
        assert release.wait(GUARD)

    with DevServer(name="eu") as eu, DevServer(name="us") as us, ThreadPoolExecutor(1) as pool:
        eu.start_task("one")
        spec = WorkerSpec(task_type="one", function=hold)
        with WorkerRunner([spec], [eu.settings, us.settings], config=quick("requests"), on_event=heard) as runner:
            assert started.wait(GUARD)
            us.start_task("one")
            until(lambda: runner.books()["us"].held, "the other server's task is held")
            us.faults.set(error=400, only="updates")
            stopping = pool.submit(runner.stop)
            heard.wait_for(GiveBackFailed)
            release.set()
            report = stopping.result(GUARD)

    assert (report.kept, report.clean) == (1, False)
    assert attrs.asdict(report.books["us"]).items() >= {"polled": 1, "started": 0, "kept": 1}.items()
    assert report.books["us"].balanced
