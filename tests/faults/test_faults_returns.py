"""Giving back under adverse conditions: after the end, in part, and answers that fail when they are read."""

import collections
import json
import time
from collections.abc import Iterator

import pytest
from fault_kit import until
from fault_sources import TIMES, Queue
from hearing import GUARD, Heard

from conductor_adapter import ServerSettings, Task
from conductor_adapter.client.messages import HttpAnswer, HttpCall
from conductor_adapter.functions.decorator import WorkerSpec
from conductor_adapter.running.links import Link
from resilience import GaveBack, GiveBackFailed, Incomplete, Poller, PollFailed, Source
from resilience.polling.holding import Held
from resilience.polling.returns import Returns
from resilience.polling.track import Track


def test_value_given_back_after_the_stop_goes_home() -> None:
    """Whoever holds an item longer than the grace can still give it back, and its unit is free again."""
    queue, heard = Queue("q", 1), Heard()
    poller = Poller([queue.source()], capacity=1, config=TIMES, on_event=heard)
    (item,) = poller.take(GUARD)
    assert poller.stop(0.0) is False

    item.give_back()

    heard.wait_for(GaveBack, source="q", count=1)
    assert list(queue.values) == [("q", 0)]
    assert poller.view()["q"].executing == 0


def test_partly_refused_give_back_counts_what_is_back() -> None:
    """A source that takes some values back says so with ``Incomplete``; only the others are reported as lost."""
    heard = Heard()

    def refuse_last(values: list[object]) -> None:
        raise Incomplete("one is gone", values[:-1])

    source = Source("q", lambda count, _: list(range(count)), give_back=refuse_last)
    settled: collections.deque[tuple[Track, int, int]] = collections.deque()
    returns = Returns(clock=time.monotonic, on_event=heard, on_settled=lambda *told: settled.append(told))
    track = Track(source)
    returns.send([Held(track, value, 0.0) for value in "abc"], lambda _: "a test")

    assert heard.wait_for(GaveBack) == GaveBack("q", 2, "a test")
    assert heard.wait_for(GiveBackFailed).count == 1
    until(lambda: settled, "it is told after the events")
    assert list(settled) == [(track, 2, 1)]
    returns.close()


class Refusing:
    """A transport to a server that has forgotten the task ``b``."""

    bounded = True

    def __init__(self, _: ServerSettings) -> None:
        self.sent: list[str] = []

    def send(self, call: HttpCall, _: float) -> HttpAnswer:
        """Refuse ``b``, take everything else."""
        task = json.loads(call.body or b"{}")["taskId"]
        self.sent.append(task)
        gone = json.dumps({"message": "No such task found by id: b"}).encode()
        return HttpAnswer(404, {}, gone) if task == "b" else HttpAnswer(200, {}, task.encode())


def test_one_task_that_cannot_go_back_keeps_no_other_from_it() -> None:
    """A server that has forgotten one of several un-started tasks gets the others back all the same."""
    link = Link(ServerSettings("eu", "http://eu/api"), Refusing, 5.0, print)
    spec = WorkerSpec(task_type="t", function=lambda: None, worker_id="me")
    tasks = [Task(task_id=name, workflow_id="w") for name in "abc"]

    with pytest.raises(Incomplete, match="No such task") as raised:
        link.endpoint(spec).give_back(tasks)

    assert link.transport.sent == ["a", "b", "c"]
    assert [task.task_id for task in raised.value.values] == ["a", "c"]


class Treacherous(list):
    """A sequence that fails once it is looked at."""

    def __iter__(self) -> Iterator[object]:
        raise OSError("the cursor is closed")


def test_answer_that_fails_when_it_is_read_is_a_failed_poll() -> None:
    """Sequences may compute what they hold: what that raises counts against the source, which is polled again."""
    heard, answers = Heard(), collections.deque([Treacherous(), ["fine"]])
    source = Source("q", lambda *_: answers.popleft() if answers else None)
    with Poller([source], capacity=1, config=TIMES, on_event=heard) as poller:
        (item,) = poller.take(GUARD)
        item.done()

    assert item.value == "fine"
    assert isinstance(heard.wait_for(PollFailed).error, OSError)
