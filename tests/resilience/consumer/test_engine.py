"""What a consumer decides: who may be polled, how it stops, what it reports."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import DestinationView, SourceView
from resilience.consumer.engine import ConsumerEngine, DeliveryEvent, EndpointCounts, Phase, Stage, view_of
from resilience.events import (
    BacklogDrained,
    BacklogFull,
    DeliveryFailed,
    DeliveryResumed,
    LeaseLost,
    OutboxFailed,
    OutboxResumed,
)

ERROR = OSError("no")
EVENTS: dict[str, DeliveryEvent] = {
    "failed": DeliveryFailed("eu", "a", 1, ERROR),
    "failed often": DeliveryFailed("eu", "a", 5, ERROR),
    "resumed": DeliveryResumed("eu"),
    "full": BacklogFull("eu", 50),
    "drained": BacklogDrained("eu"),
    "unwritten": OutboxFailed("eu", ERROR),
    "written": OutboxResumed("eu"),
}
NOTHING = DestinationView(
    waiting=0, unwritten=0, delivered=0, dead=0, written=0, inherited=0, passed=0, left=0, undelivered=0
)


@given(st.lists(st.sampled_from(sorted(EVENTS))))
def test_d5_p13_endpoint_is_polled_unless_it_fails_to_take_answers_or_takes_them_too_slowly(told: list[str]) -> None:
    """The reasons are independent: the end of one does not end the others."""
    engine, failing, full, often, unwritten = ConsumerEngine(), False, False, False, False
    for name in told:
        engine.note(EVENTS[name], waiting=1)
        often = (often or name == "failed often") and name != "resumed"
        failing = (failing or name == "failed") and name != "resumed" and not (often and "failed" in name)
        full = (full or name == "full") and name != "drained"
        unwritten = (unwritten or name == "unwritten") and name != "written"
        assert engine.may_poll("eu") is not (failing or full or unwritten)
        assert engine.may_poll("us")


@given(st.lists(st.floats(0, 100), min_size=3, max_size=3), st.floats(0, 100))
def test_answers_always_get_a_part_of_the_grace(took: list[float], grace: float) -> None:
    """The pollers stop, then the relay closes with at least a fifth of the grace, then what came last goes back."""
    engine, now = ConsumerEngine(), 5.0
    engine.start()
    assert engine.stop(grace, {}, now)
    stages = []
    for seconds in took:
        stage = engine.next_stage(now)
        assert stage is not None
        assert 0 <= stage.seconds <= grace
        stages.append(stage)
        now += seconds

    assert [stage.closes_relay for stage in stages] == [False, True, False]
    assert stages[0].seconds == pytest.approx(grace)
    assert stages[1].seconds >= grace * 0.2
    assert engine.phase is Phase.STOPPING
    assert engine.next_stage(now) is None
    assert engine.phase is Phase.STOPPED


def test_a_consumer_runs_once() -> None:
    """It can be started once, and its stop begins once."""
    engine = ConsumerEngine()
    engine.start()
    with pytest.raises(RuntimeError, match="as it is running: make a new one"):
        engine.start()
    assert engine.stop(1.0, {}, 0.0)
    assert not engine.stop(1.0, {}, 0.0)
    assert engine.next_stage(0.5) == Stage(closes_relay=False, seconds=0.5)


def test_a_consumer_that_never_ran_is_stopped_at_once() -> None:
    """There is no stage."""
    engine = ConsumerEngine()

    assert not engine.stop(1.0, {}, 0.0)
    assert engine.phase is Phase.STOPPED
    with pytest.raises(RuntimeError, match="as it is stopped"):
        engine.start()


def view(**counts: int) -> SourceView:
    """A source in one kind of work."""
    return SourceView(state="caught up", **{"in_flight": 0, **counts})


def test_counts_of_an_endpoint_are_those_of_all_kinds_of_work() -> None:
    """Items are added up; lost leases and repeated answers are counted by endpoint."""
    engine = ConsumerEngine()
    engine.repeats("eu")
    engine.loses_lease(LeaseLost("eu", "value", ERROR))
    views = [view(received=3, finished=2, executing=1), view(received=4, held=4)]

    counts = engine.counts("eu", views, attrs.evolve(NOTHING, delivered=2))

    assert (counts.items.received, counts.items.finished, counts.items.executing, counts.items.held) == (7, 2, 1, 4)
    assert counts.items.balanced
    assert (counts.answers.delivered, counts.repeated, counts.lost_leases) == (2, 1, 1)
    other = engine.counts("us", views, NOTHING)
    assert (other.repeated, other.lost_leases) == (0, 0)


def test_report_says_what_is_left() -> None:
    """Items that could not go back before it was to stop are not the stop's."""
    engine = ConsumerEngine()
    before = {"eu": engine.counts("eu", [view(received=2, kept=2)], NOTHING)}
    engine.start()
    engine.stop(1.0, before, 0.0)
    views = [view(received=15, kept=3, giving_back=4, held=1, executing=7)]
    counts: dict[str, EndpointCounts] = {"eu": engine.counts("eu", views, attrs.evolve(NOTHING, waiting=5, dead=6))}

    report = engine.report(counts)

    assert (report.undelivered, report.unfinished, report.not_returned, report.dead) == (5, 7, 3 - 2 + 4 + 1, 6)
    assert not report.clean
    assert engine.report({"eu": attrs.evolve(counts["eu"], items=before["eu"].items, answers=NOTHING)}).clean


def test_view_of_an_endpoint_is_the_best_of_all_kinds_of_work() -> None:
    """One kind of work that is served shows that the endpoint is well."""
    views = [view(executing=1, held=2, in_flight=3, started=4), view(executing=10), view()]
    views[0] = attrs.evolve(views[0], state="suspect")

    found = view_of("closed", "open", views, 9)

    assert (found.polls, found.sends, found.state) == ("closed", "open", "caught up")
    assert (found.executing, found.held, found.in_flight, found.started, found.waiting) == (11, 2, 3, 4, 9)
    assert view_of("closed", "open", [], 0).state == "suspect"
