"""Schedules drawn at random."""

import random

from .plan import FAULTS, Event, Flow, Schedule, ServerPlan

SPAN = 12.0  # virtual seconds in which things begin to go wrong
KINDS = (*FAULTS, *FAULTS, "die", "die", "forget", *["kill"] * 10, "stop", "stop", "freeze", "skip", "wall")
POINTS = ("any", "any", "send", "sent", "lock", "store")


def draw(seed: int) -> Schedule:
    """Schedule number ``seed``."""
    rng = random.Random(seed)
    servers = tuple(_server(rng) for _ in range(rng.choice([1, 2, 2, 2, 3])))
    workers = rng.choice([1, 1, 1, 2])
    events = [_event(rng, len(servers), workers) for _ in range(rng.choice([1, 2, 2, 3, 4, 6]))]
    return Schedule(
        seed,
        servers,
        tuple(sorted(events, key=lambda event: event.at)),
        workers=workers,
        capacity=rng.choice([1, 2, 2, 4]),
        bounded=rng.choice([True, False]),
        restless=rng.choice([0.0, 0.0, 0.02, 0.2]),
        backlog=rng.choice([2, 4, 50]),
    )


def _server(rng: random.Random) -> ServerPlan:
    flows = tuple(_flow(rng) for _ in range(rng.choice([0, 1, 2, 3, 5])))
    return ServerPlan(
        trip=rng.choice([0.0005, 0.002, 0.05]),
        response_timeout=rng.choice([15, 20]),
        flows=flows,
        has_v2=rng.choice([True, True, False]),
    )


def _flow(rng: random.Random) -> Flow:
    steps = tuple(rng.choice([0.001, 0.05, 0.5, 2.0]) for _ in range(rng.choice([1, 1, 2])))
    how = rng.choice(["well"] * 8 + ["fails", "waits", "poison"])
    return Flow(round(rng.choice([0.0, 0.0, rng.uniform(0, SPAN)]), 3), steps, how)


def _event(rng: random.Random, servers: int, workers: int) -> Event:
    at = round(rng.choice([0.0, rng.uniform(0, 2), rng.uniform(0, SPAN)]), 4)
    kind = rng.choice(
        [*FAULTS, *FAULTS, "die", "die", "forget", *["kill"] * 10, "stop", "stop", "freeze", "skip", "wall"]
    )
    if kind in FAULTS:
        calls = rng.choice(["all", "all", "polls", "updates", "updates"])
        return Event(at, kind, rng.randrange(servers), rng.choice([0.2, 0.7, 2.0, 7.0]), calls=calls)
    if kind in ("die", "forget"):
        return Event(at, kind, rng.randrange(servers), rng.choice([0.2, 0.7, 2.0, 7.0]))
    if kind == "kill":
        point = rng.choice(POINTS)
        return Event(at, kind, rng.randrange(workers), rng.choice([0.0, 0.3, 3.0]), point, int(rng.expovariate(1 / 30)))
    if kind == "wall":
        return Event(at, kind, 0, rng.choice([-3600.0, -5.0, 5.0, 3600.0]))
    return Event(at, kind, rng.randrange(workers), rng.choice([0.3, 2.0, 8.0, 20.0]))
