"""The consumer on threads, over services in memory; nothing here depends on how fast the machine is."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fault_kit import until
from hearing import GUARD, Heard

from resilience import (
    BreakerChanged,
    BreakerState,
    Consumer,
    ConsumerConfig,
    DeliveryFailed,
    Endpoint,
    HandlerFailed,
    Item,
    LeaseLost,
    Outbox,
    Phase,
    PollConfig,
    RelayConfig,
    Work,
)

QUICK = ConsumerConfig(
    poll=PollConfig(poll_wait=0.02, overdue_after=2.0, poll_timeout=10.0, give_up_after=20.0),
    relay=RelayConfig(retry_initial=0.01, retry_maximum=0.05),
    grace=GUARD,
)


class Service:
    """A service in memory: a queue of items, and the answers that it took.

    Attributes:
        ill: it takes no answers.
        gate: an answer waits for it.
        brings: what the reply to the next answer brings.
    """

    def __init__(self, name: str, *values: object) -> None:
        self.name = name
        self.values = deque(values)
        self.answers: list[object] = []
        self.back: list[object] = []
        self.brings: deque[object] = deque()
        self.extended: Counter[object] = Counter()
        self.ill = False
        self.polls = 0
        self.gate = threading.Event()
        self.gate.set()

    def endpoint(self, **options: Any) -> Endpoint[object]:
        """The service as an endpoint."""
        return Endpoint(self.name, poll=self.poll, send=self.send, give_back=self.give_back, **options)

    def poll(self, count: int, wait: float) -> Sequence[object]:
        """At most ``count`` values."""
        self.polls += 1
        taken = [self.values.popleft() for _ in range(min(count, len(self.values)))]
        if not taken:
            threading.Event().wait(wait)
        return taken

    def send(self, answer: object, timeout: float) -> None:
        """Take an answer, or raise."""
        assert self.gate.wait(min(timeout, GUARD))
        if self.ill:
            raise OSError("ill")
        self.answers.append(answer)

    def exchange(self, answer: object, timeout: float) -> Sequence[object]:
        """Take an answer, and bring the next value."""
        self.send(answer, timeout)
        return [self.brings.popleft()] if self.brings else []

    def give_back(self, values: Sequence[object]) -> None:
        """Take values back."""
        self.back += values


@pytest.fixture
def apart() -> Iterator[ThreadPoolExecutor]:
    """Threads to stop in."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def answer(item: Item[object]) -> object:
    """The simplest handler."""
    return {"value": item.value}


def test_each_answer_goes_to_where_its_item_came_from() -> None:
    """All of them, also while one endpoint fails; then it is served again, and everything adds up."""
    eu, us = Service("eu", *range(30)), Service("us", *range(100, 130))
    us.ill, heard = True, Heard()
    with Consumer([eu.endpoint(), us.endpoint()], config=QUICK, on_event=heard) as consumer:
        consumer.start(answer, capacity=4)
        heard.wait_for(DeliveryFailed, destination="us")
        until(lambda: len(eu.answers) == 30, lambda: f"{eu.answers}")
        us.ill = False
        until(lambda: len(us.answers) == 30, lambda: f"{us.answers}")
        report = consumer.stop()

    assert sorted(one["value"] for one in eu.answers) == list(range(30))  # type: ignore[index]
    assert sorted(one["value"] for one in us.answers) == list(range(100, 130))  # type: ignore[index]
    assert report.clean
    for counts in report.counts.values():
        assert counts.items.balanced
        assert (counts.items.received, counts.items.finished, counts.answers.delivered) == (30, 30, 30)
    assert consumer.phase is Phase.STOPPED
    assert repr(consumer) == "<Consumer of eu, us: stopped>"


def test_p13_an_endpoint_that_takes_no_answers_is_not_polled() -> None:
    """What it brought would have to wait."""
    eu, heard = Service("eu", 1), Heard()
    eu.ill = True
    with Consumer([eu.endpoint()], config=QUICK, on_event=heard) as consumer:
        consumer.start(answer, capacity=4)
        heard.wait_for(DeliveryFailed, attempt=3)
        eu.values.extend(range(10))
        polls = eu.polls
        heard.wait_for(DeliveryFailed, attempt=4)
        assert eu.polls <= polls + 1  # one may have been on its way
        assert consumer.view()["eu"].waiting >= 1
        eu.ill = False
        until(lambda: len(eu.answers) == 11, lambda: f"{eu.answers}")


def test_a_handler_that_raises_sends_no_answer() -> None:
    """The item is done, an event says why, and the others go on; None needs no answer."""
    eu, heard = Service("eu", 0, 1, 2), Heard()

    def handle(item: Item[object]) -> object:
        return None if item.value == 0 else {"share": 6 // (item.value - 1)}  # type: ignore[operator]

    with Consumer([eu.endpoint()], config=QUICK, on_event=heard) as consumer:
        consumer.start(handle, capacity=1)
        failed = heard.wait_for(HandlerFailed)
        until(lambda: eu.answers == [{"share": 6}], lambda: f"{eu.answers}")
        counts = consumer.stop().counts["eu"]

    assert isinstance(failed.error, ZeroDivisionError)
    assert (counts.items.finished, counts.answers.delivered) == (3, 1)


def test_an_answer_that_has_not_run_is_refused() -> None:
    """A coroutine is not an answer."""
    eu, heard = Service("eu", 1), Heard()

    async def later() -> None:
        """Never run."""

    with Consumer([eu.endpoint()], config=QUICK, on_event=heard) as consumer:
        consumer.start(lambda _: later(), capacity=1)
        failed = heard.wait_for(HandlerFailed)

    assert "handler returned a 'coroutine', which has not run" in str(failed.error)


def test_an_answer_may_bring_the_next_item() -> None:
    """A backlogged endpoint with ``exchange`` needs no poll between."""
    eu = Service("eu", *range(8))
    eu.brings.extend(range(100, 140))
    with Consumer([eu.endpoint(exchange=eu.exchange)], config=QUICK) as consumer:
        consumer.start(answer, capacity=4)
        until(lambda: len(eu.answers) == 48, lambda: f"{eu.answers}")
        report = consumer.stop()

    assert report.counts["eu"].items.received == 48
    assert eu.polls < 48


def test_answers_of_one_key_and_those_that_need_not_arrive() -> None:
    """``key`` names them in events; what ``persist`` refuses ends with the process."""
    eu, heard = Service("eu", 1), Heard()
    eu.ill = True
    endpoint = eu.endpoint(key=lambda _: "progress", persist=lambda _: False)
    consumer = Consumer([endpoint], config=QUICK, on_event=heard)
    consumer.start(answer, capacity=1)
    heard.wait_for(DeliveryFailed, key="progress")

    report = consumer.stop(0.0)

    assert (report.undelivered, report.stored) == (1, 0)


def test_answers_that_wait_outlive_the_process(tmp_path: Path) -> None:
    """They stay in the outbox, and the next consumer sends them."""
    eu = Service("eu", 1, 2)
    eu.ill = True
    first = Consumer([eu.endpoint()], config=QUICK, outbox=tmp_path / "answers.db")
    first.start(answer, capacity=2)
    until(lambda: first.counts()["eu"].items.finished == 2, "both wait, and are written down")
    report = first.stop(0.0)
    assert (report.undelivered, report.stored, report.clean) == (2, 2, False)
    eu.ill = False

    with Outbox(tmp_path / "answers.db") as store, Consumer([eu.endpoint()], config=QUICK, outbox=store) as second:
        second.start(answer, capacity=1)
        until(lambda: len(eu.answers) == 2, lambda: f"{eu.answers}")

    assert sorted(one["value"] for one in eu.answers) == [1, 2]  # type: ignore[index]


def test_a_lost_lease_is_counted() -> None:
    """The handler goes on, and its answer is sent."""
    eu, lost = Service("eu", 1), threading.Event()

    def extend(_: object, timeout: float) -> None:
        raise OSError(f"no heartbeat within {timeout}")

    def hear(event: object) -> None:
        if isinstance(event, LeaseLost):
            lost.set()

    endpoint = eu.endpoint(extend=extend, lease=lambda _: 0.2)
    with Consumer([endpoint], config=QUICK, on_event=hear) as consumer:
        consumer.start(lambda item: {"late": item.value, "waited": lost.wait(GUARD)}, capacity=1)
        until(lambda: eu.answers == [{"late": 1, "waited": True}], lambda: f"{eu.answers}")
        assert consumer.stop().counts["eu"].lost_leases == 1


def test_an_answer_is_sent_once_more_after_a_heartbeat_beside_it() -> None:
    """The service may have handled the heartbeat last, and written back what it had read before."""
    eu, beating, gate = Service("eu", 1), threading.Event(), threading.Event()

    def extend(_: object, timeout: float) -> None:
        del timeout
        beating.set()
        assert gate.wait(GUARD)

    config = ConsumerConfig(poll=QUICK.poll, relay=RelayConfig(inline_timeout=0.05), grace=GUARD)
    with Consumer([eu.endpoint(extend=extend, lease=lambda _: 1.0)], config=config) as consumer:
        consumer.start(lambda item: {"value": item.value, "beat": beating.wait(GUARD)}, capacity=1)
        until(lambda: len(eu.answers) == 1, "it is sent though the heartbeat hangs")
        gate.set()
        until(lambda: len(eu.answers) == 2, "it is sent once more")
        assert consumer.counts()["eu"].repeated == 1


def test_several_kinds_of_work_share_their_destinations() -> None:
    """Each has its own items, handler and capacity."""
    eu, slow = Service("eu", "a"), Service("eu", "b")
    slow.answers = eu.answers
    first, second = eu.endpoint(), Endpoint("eu", poll=slow.poll, send=eu.send, give_back=eu.give_back)
    works = [
        Work("loud", lambda item: str(item.value).upper(), [first], 1),
        Work("quiet", lambda item: item.value, [second], 2),
    ]
    with Consumer(works, config=QUICK) as consumer:
        assert consumer.counts()["eu"].items.received == 0
        consumer.start()
        until(lambda: sorted(map(str, eu.answers)) == ["A", "b"], lambda: f"{eu.answers}")
        assert set(consumer.explain()) == {"loud", "quiet"}
        consumer.set_capacity(3, "loud")
        with pytest.raises(ValueError, match="unknown kind of work 'odd': known are 'loud', 'quiet'"):
            consumer.set_capacity(3, "odd")
        assert consumer.counts()["eu"].items.received == 2


def test_a_kind_of_work_is_not_disturbed_by_endpoints_of_another() -> None:
    """Each is told of the deliveries to its own."""
    eu, us, heard = Service("eu", 1), Service("us", 2), Heard()
    eu.ill = True
    works = [Work("a", answer, [eu.endpoint()], 1), Work("b", answer, [us.endpoint()], 1)]
    with Consumer(works, config=QUICK, on_event=heard) as consumer:
        consumer.start()
        heard.wait_for(DeliveryFailed, destination="eu")
        until(lambda: us.answers == [{"value": 2}], lambda: f"{us.answers}")
        consumer.pause("us")
        eu.ill = False
        until(lambda: eu.answers == [{"value": 1}], lambda: f"{eu.answers}")


def test_p7_an_endpoint_can_be_paused_and_get_another_weight() -> None:
    """While it runs; a name that does not exist is refused with those that do."""
    eu = Service("eu")
    consumer = Consumer([eu.endpoint()], config=QUICK)
    with pytest.raises(RuntimeError, match="start it first"):
        consumer.pause("eu")
    with consumer:
        consumer.start(answer, capacity=1)
        consumer.pause("eu")
        eu.values.append(1)
        consumer.set_weight("eu", 2)
        assert eu.answers == []
        consumer.resume("eu")
        until(lambda: len(eu.answers) == 1, "it is polled again")
        for change in (consumer.pause, consumer.resume, lambda name: consumer.hand_over(name, 1)):
            with pytest.raises(ValueError, match="unknown endpoint 'asia': known are 'eu'"):
                change("asia")


def test_an_answer_without_an_item_can_be_handed_over() -> None:
    """It goes out like the others."""
    eu = Service("eu")
    with Consumer([eu.endpoint()], config=QUICK) as consumer:
        consumer.start(answer, capacity=1)
        consumer.hand_over("eu", {"by": "hand"})
        until(lambda: eu.answers == [{"by": "hand"}], lambda: f"{eu.answers}")


def test_breakers_are_labelled_and_can_be_forced() -> None:
    """One for polls and one for answers; the events say which."""
    eu, heard = Service("eu"), Heard()
    with Consumer([eu.endpoint()], config=QUICK, on_event=heard) as consumer:
        consumer.start(answer, capacity=1)
        consumer.poll_breakers.get("eu").force_open()
        consumer.send_breakers.get("eu").force_open()
        for calls in ("polls", "sends"):
            heard.wait_for(BreakerChanged, calls=calls, after=BreakerState.OPEN)
        view = consumer.view()["eu"]

    assert (view.polls, view.sends) == ("open", "open")


def test_run_waits_until_it_has_stopped(apart: ThreadPoolExecutor) -> None:
    """A handler may stop its own consumer: it hears what is left now, and its answer goes home."""
    eu, reports, closed = Service("eu", 1), [], threading.Event()

    def handle(item: Item[object]) -> object:
        reports.append(consumer.stop())
        return item.value

    consumer = Consumer([eu.endpoint()], config=QUICK, on_stopped=closed.set)
    apart.submit(consumer.run, handle, capacity=1).result(GUARD)

    assert (reports[0].unfinished, reports[0].clean) == (1, False)
    assert closed.is_set()
    assert eu.answers == [1]
    assert consumer.stop().clean
    with pytest.raises(RuntimeError, match="as it is stopped: make a new one"):
        consumer.start(handle, capacity=1)


def test_a_consumer_that_never_started_stops_cleanly() -> None:
    """Nothing is left."""
    closed = threading.Event()
    with Consumer([Service("eu").endpoint()], on_stopped=closed.set) as consumer:
        pass

    assert closed.is_set()
    assert consumer.stop().clean


USES: dict[str, Callable[[Consumer[object]], object]] = {
    "start": lambda consumer: consumer.start(answer, capacity=1),
    "stop": lambda consumer: consumer.stop(),
    "view": lambda consumer: consumer.view(),
    "counts": lambda consumer: consumer.counts(),
    "explain": lambda consumer: consumer.explain(),
    "pause": lambda consumer: consumer.pause("eu"),
    "set_capacity": lambda consumer: consumer.set_capacity(2),
}


@pytest.mark.parametrize("use", USES)
def test_a_forked_consumer_says_so(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was forked from the consumer's must not look as if it worked, and ends nothing."""
    with Consumer([Service("eu").endpoint()], config=QUICK) as consumer:
        consumer.start(answer, capacity=1)
        here = os.getpid()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match=rf"started by process {here} and runs there; process -1 was forked"):
                USES[use](consumer)
            consumer.__exit__(None, None, None)
        assert consumer.phase is Phase.RUNNING
