"""A failing schedule, made as small as it gets while it still fails the same way."""

import re
from collections.abc import Callable, Iterator

import attrs

from .plan import CLOCKS, Event, Flow, Schedule

MOST_TRIES = 600


def shrink(schedule: Schedule, found: Callable[[Schedule], str], tries: int = MOST_TRIES) -> Schedule:
    """Drop and simplify parts of ``schedule`` while ``found(schedule)`` stays the same kind of finding."""
    kind = kind_of(found(schedule))
    smaller: Schedule | None = schedule
    while smaller is not None:
        schedule, smaller = smaller, None
        for candidate in _simpler(schedule):
            tries -= 1
            if tries < 0:
                return schedule
            if kind_of(found(candidate)) == kind:
                smaller = candidate
                break
    return schedule


def kind_of(found: str) -> str:
    """What was found, without names and numbers; empty for nothing."""
    words = re.sub(r"^at [\d.]+ s: ", "", found)
    return " ".join(re.findall(r"[a-z]{3,}", words)[:8])


def _simpler(schedule: Schedule) -> Iterator[Schedule]:
    """Schedules that are a little simpler, the great leaps first."""
    evolve = attrs.evolve
    for index in range(len(schedule.events)):
        yield evolve(schedule, events=_without(schedule.events, index))
    yield from _fewer_parts(schedule)
    for index, event in enumerate(schedule.events):
        for changed in _simpler_events(event):
            yield evolve(schedule, events=(*schedule.events[:index], changed, *schedule.events[index + 1 :]))
    if schedule.restless:
        yield evolve(schedule, restless=0.0)
    if not schedule.bounded:
        yield evolve(schedule, bounded=True)


def _fewer_parts(schedule: Schedule) -> Iterator[Schedule]:
    if schedule.workers > 1:
        events = tuple(event for event in schedule.events if not (_is_of_a_worker(event) and event.whom))
        yield attrs.evolve(schedule, workers=1, events=events)
    for number, server in enumerate(schedule.servers):
        if len(schedule.servers) > 1 and not server.flows:
            yield _without_server(schedule, number)
        for index in range(len(server.flows)):
            yield _with_flows(schedule, number, _without(server.flows, index))
    for number, server in enumerate(schedule.servers):
        for index, flow in enumerate(server.flows):
            for simpler in _simpler_flows(flow):
                yield _with_flows(schedule, number, (*server.flows[:index], simpler, *server.flows[index + 1 :]))


def _simpler_flows(flow: Flow) -> Iterator[Flow]:
    if len(flow.steps) > 1:
        yield attrs.evolve(flow, steps=flow.steps[:1])
    if flow.how != "well":
        yield attrs.evolve(flow, how="well")
    if flow.at:
        yield attrs.evolve(flow, at=0.0)


def _simpler_events(event: Event) -> Iterator[Event]:
    if event.at:
        yield attrs.evolve(event, at=0.0)
        if event.at != round(event.at, 1):
            yield attrs.evolve(event, at=round(event.at, 1))
    if event.calls != "all":
        yield attrs.evolve(event, calls="all")
    if event.nth:
        yield attrs.evolve(event, nth=event.nth // 2)
    if event.kind == "kill" and event.seconds:
        yield attrs.evolve(event, seconds=0.0)
    if event.kind not in (*CLOCKS, "kill") and event.seconds > 1:
        yield attrs.evolve(event, seconds=event.seconds / 2)


def _is_of_a_worker(event: Event) -> bool:
    return event.kind in ("kill", "stop", "freeze", "skip", "without", "swap")


def _without_server(schedule: Schedule, number: int) -> Schedule:
    servers = _without(schedule.servers, number)
    events = tuple(
        attrs.evolve(event, whom=event.whom - (event.whom > number))
        if event.whom and not _is_of_a_worker(event)
        else event
        for event in schedule.events
        if _is_of_a_worker(event) or event.kind in ("wall", "full") or event.whom != number
    )
    return attrs.evolve(schedule, servers=servers, events=events)


def _with_flows(schedule: Schedule, number: int, flows: tuple[Flow, ...]) -> Schedule:
    servers = list(schedule.servers)
    servers[number] = attrs.evolve(servers[number], flows=flows)
    return attrs.evolve(schedule, servers=tuple(servers))


def _without(values: tuple, index: int) -> tuple:  # type: ignore[type-arg]
    return values[:index] + values[index + 1 :]
