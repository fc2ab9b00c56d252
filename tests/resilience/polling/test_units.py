"""Units on threads: items that chain, handlers that are left, and what comes late. No test waits for a time to pass."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hearing import GUARD, Heard

from resilience import GaveBack, HandlerFailed, Item, ItemsArrivedLate, PollConfig, Poller, PollFailed, Source
from resilience.polling import units

PATIENT = PollConfig(poll_wait=0.02, overdue_after=2.0, poll_timeout=10.0, give_up_after=20.0)


class Shop:
    """A source that also hands out its next value with the answer to a result."""

    def __init__(self, *values: object) -> None:
        self.values = deque(values)
        self.back: list[object] = []
        self.polls = 0

    def poll(self, count: int, wait: float) -> Sequence[object]:
        """At most ``count`` values."""
        self.polls += 1
        taken = [self.values.popleft() for _ in range(min(count, len(self.values)))]
        if not taken:
            threading.Event().wait(wait)
        return taken

    def next(self) -> list[object]:
        """One value, or none."""
        return [self.values.popleft()] if self.values else []

    def source(self, name: str = "a") -> Source[object]:
        """What a poller is told of it."""
        return Source(name, self.poll, give_back=self.back.extend)


def take_one(poller: Poller[object]) -> Item[object]:
    """The next item."""
    (item,) = poller.take(GUARD, 1)
    return item


def until(reached: Callable[[], object]) -> None:
    """Wait for something that nobody announces."""
    pause = threading.Event()
    for _ in range(int(GUARD * 1000)):
        if reached():
            return
        pause.wait(0.001)
    raise AssertionError("waited in vain")


def test_unit_goes_on_without_polls_in_the_same_thread() -> None:
    """Five hundred items, two units: as many threads, and hardly a poll."""
    shop, seen, threads = Shop(*range(500)), [], set()
    all_seen = threading.Event()

    def handle(item: Item[object]) -> None:
        threads.add(threading.get_ident())
        seen.append(item.value)
        if len(seen) == 500:
            all_seen.set()
        if item.may_chain():
            item.chain(shop.next())

    with Poller([shop.source()], capacity=2, config=PATIENT) as poller:
        poller.start(handle)
        assert all_seen.wait(GUARD)
        assert poller.stop(GUARD)
        view = poller.view()["a"]

    assert sorted(seen) == list(range(500))
    assert len(threads) <= 2
    assert (view.started, view.executing, view.held) == (500, 0, 0)
    assert view.chained >= 400
    assert shop.polls < 50


def test_taken_item_is_followed_by_what_came() -> None:
    """Without a handler the follower is the taker's to run and to end."""
    with Poller([Shop("first").source()], capacity=1, config=PATIENT) as poller:
        item = take_one(poller)
        follower = item.chain(["second"])

        assert follower is not None
        assert (follower.value, follower.source, follower.ended, item.ended) == ("second", "a", False, True)
        assert poller.view()["a"].executing == 1
        assert follower.chain([]) is None
        assert poller.view()["a"].executing == 0


class Thing:
    """A value whose end can be seen."""


def test_long_chain_does_not_hang_on_its_first_item() -> None:
    """Who keeps the item that was taken keeps none of those that its unit went on with."""
    with Poller([Shop("first").source()], capacity=1, config=PATIENT) as poller:
        first = take_one(poller)
        thing = Thing()
        gone = weakref.ref(thing)
        item = first.chain([thing])
        del thing
        assert item is not None
        item = item.chain(["last"])

        assert item is not None
        assert gone() is None
        item.done()


def test_unit_does_not_hang_its_items_on_the_first() -> None:
    """A handler's item that somebody keeps, such as the traceback of an error, keeps none of those that followed."""
    shop, kept, all_seen = Shop("first", Thing(), "last"), [], threading.Event()
    gone = weakref.ref(shop.values[1])

    def handle(item: Item[object]) -> None:
        if item.value == "last":
            all_seen.set()
        elif not kept:
            kept.append(item)
        item.chain(shop.next())

    with Poller([shop.source()], capacity=1, config=PATIENT) as poller:
        poller.start(handle)
        assert all_seen.wait(GUARD)
        until(lambda: gone() is None)
        assert poller.stop(GUARD)

    assert kept[0].value == "first"


def test_item_that_has_ended_chains_no_more() -> None:
    """The unit is somebody else's by then: it may not ask, and what comes all the same is late and runs."""
    heard = Heard()
    with Poller([Shop("first").source()], capacity=1, config=PATIENT, on_event=heard) as poller:
        item = take_one(poller)
        item.done()

        assert not item.may_chain()
        assert item.chain(["late"]) is None
        assert heard.wait_for(ItemsArrivedLate).count == 1
        late = take_one(poller)
        assert late.value == "late"
        late.done()
        item.done()
        assert poller.view()["a"].executing == 0


def test_handler_may_run_the_follower_itself() -> None:
    """What it ended is not run again; what it left open is."""
    shop, seen, all_seen = Shop(1, 2, 3, 4), [], threading.Event()

    def handle(item: Item[object]) -> None:
        seen.append(item.value)
        follower = item.chain(shop.next())
        if follower is not None and follower.value == 2:
            seen.append(follower.value)
            follower.chain(shop.next())
        if len(seen) == 4:
            all_seen.set()

    with Poller([shop.source()], capacity=1, config=PATIENT) as poller:
        poller.start(handle)
        assert all_seen.wait(GUARD)
        assert poller.stop(GUARD)

    assert seen == [1, 2, 3, 4]


def test_handler_that_raises_after_chaining_loses_nothing() -> None:
    """Its failure is told of, and its unit goes on with what came."""
    shop, seen, heard = Shop(1, 2), [], Heard()
    all_seen = threading.Event()

    def handle(item: Item[object]) -> None:
        seen.append(item.value)
        if item.value == 2:
            all_seen.set()
        item.chain(shop.next())
        raise RuntimeError("after all")

    with Poller([shop.source()], capacity=1, config=PATIENT, on_event=heard) as poller:
        poller.start(handle)
        assert all_seen.wait(GUARD)
        assert poller.stop(GUARD)

    assert seen == [1, 2]
    until(lambda: sum(isinstance(event, HandlerFailed) for event in heard) == 2)


def test_several_values_wake_other_units() -> None:
    """An answer that brings more than one unit can use is no reason for the others to sleep on."""
    shop, running = Shop("first"), threading.Barrier(3)

    def handle(item: Item[object]) -> None:
        if item.value == "first":
            item.chain([1, 2, 3])
        else:
            running.wait(GUARD)

    with Poller([shop.source()], capacity=3, config=PATIENT) as poller:
        poller.start(handle)
        until(lambda: poller.view()["a"].started == 4)
        assert poller.stop(GUARD)


@pytest.mark.parametrize("answer", ["text", 5, {1}])
def test_answer_that_is_no_list_teaches(answer: object) -> None:
    """The mistake is named, and the item still holds its unit."""
    with Poller([Shop("x").source()], capacity=1, config=PATIENT) as poller:
        item = take_one(poller)
        with pytest.raises(TypeError, match="chain\\(\\) takes a list, or None"):
            item.chain(answer)  # type: ignore[arg-type]
        assert not item.ended
        item.done()


def test_left_handler_is_replaced_and_its_thread_ends() -> None:
    """The unit works on while its old thread is held up; what that brings in the end runs as well."""
    shop, thaw, seen = Shop("hangs", 1), threading.Event(), []
    first: list[tuple[Item[object], threading.Thread]] = []
    hanging, all_seen = threading.Event(), threading.Event()

    def handle(item: Item[object]) -> None:
        seen.append(item.value)
        if item.value == "late":
            all_seen.set()
        if item.value == "hangs":
            first.append((item, threading.current_thread()))
            hanging.set()
            assert thaw.wait(GUARD)
            item.chain(["late"])

    with Poller([shop.source()], capacity=1, config=PATIENT) as poller:
        poller.start(handle)
        assert hanging.wait(GUARD)
        ((item, thread),) = first
        item.leave()
        item.leave()
        until(lambda: 1 in seen)
        assert thread.is_alive()
        thaw.set()
        assert all_seen.wait(GUARD)
        thread.join(GUARD)
        assert not thread.is_alive()
        assert poller.stop(GUARD)
        assert poller.view()["a"].started == 3

    assert seen == ["hangs", 1, "late"]


def test_item_that_was_taken_can_be_left() -> None:
    """Without a handler there is no thread to replace: it frees the unit."""
    with Poller([Shop("x", "y").source()], capacity=1, config=PATIENT) as poller:
        item = take_one(poller)
        item.leave()
        assert item.ended
        take_one(poller).done()


def test_left_handler_goes_on_as_a_unit_when_there_is_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is out of threads loses no unit for good."""
    shop, thaw, seen = Shop("hangs", 1), threading.Event(), []
    first: list[Item[object]] = []
    hanging, ran = threading.Event(), threading.Event()

    def handle(item: Item[object]) -> None:
        seen.append(item.value)
        if item.value == "hangs":
            first.append(item)
            hanging.set()
            assert thaw.wait(GUARD)
        else:
            ran.set()

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with Poller([shop.source()], capacity=1, config=PATIENT) as poller:
        poller.start(handle)
        assert hanging.wait(GUARD)
        with monkeypatch.context() as patched:
            patched.setattr(units.Units, "_add", refuse)
            first[0].leave()
        assert poller.view()["a"].executing == 0
        thaw.set()
        assert ran.wait(GUARD)
        assert poller.stop(GUARD)


def test_late_value_that_comes_after_the_stop_goes_back() -> None:
    """Nobody runs it any more, and it is not lost."""
    shop, thaw, heard = Shop("hangs"), threading.Event(), Heard()
    hanging, first = threading.Event(), []

    def handle(item: Item[object]) -> None:
        first.append(item)
        hanging.set()
        assert thaw.wait(GUARD)
        item.chain(["late"])

    with Poller([shop.source()], capacity=1, config=PATIENT, on_event=heard) as poller:
        poller.start(handle)
        assert hanging.wait(GUARD)
        first[0].leave()
        assert poller.stop(GUARD)
        thaw.set()
        assert heard.wait_for(GaveBack).count == 1

    assert shop.back == ["late"]


def test_no_chain_while_stopping_and_what_came_goes_back() -> None:
    """A stop ends chains; the value of an answer that was under way is given back un-started."""
    shop, thaw, asked = Shop("x"), threading.Event(), threading.Event()
    answers: list[object] = []

    def handle(item: Item[object]) -> None:
        answers.append(item.may_chain())
        asked.set()
        assert thaw.wait(GUARD)
        answers.append(item.may_chain())
        answers.append(item.chain(["y"]))

    with Poller([shop.source()], capacity=1, config=PATIENT) as poller:
        poller.start(handle)
        assert asked.wait(GUARD)
        stopper = threading.Thread(target=poller.stop, args=(GUARD,))
        stopper.start()
        until(lambda: poller._stopping)
        thaw.set()
        stopper.join(GUARD)
        until(lambda: len(answers) == 3)
        view = poller.view()["a"]

    assert answers == [True, False, None]
    assert shop.back == ["y"]
    assert (view.started, view.executing, view.held) == (1, 0, 0)


def test_failed_poll_ends_a_chain() -> None:
    """A source whose polls fail is looked at before it is trusted again."""
    heard, fails = Heard(), threading.Event()

    def poll(count: int, _: float) -> Sequence[object]:
        if fails.is_set():
            raise OSError("down")
        fails.set()
        return list(range(count))

    with Poller([Source("a", poll)], capacity=2, config=PATIENT, on_event=heard) as poller:
        item = take_one(poller)
        heard.wait_for(PollFailed)
        assert not item.may_chain()
        item.done()
