"""Schedules drawn at random."""

import random

from .plan import FAULTS, Event, Flow, Schedule, ServerPlan

SPAN = 8.0  # virtual seconds in which things begin to go wrong
DURABLE = 0.85
TROUBLED = 0.6  # schedules in which a server does not take results while a worker dies
SILENT = ("refuse", "hang", "swallow", "drop", "late", "error", "saved", "proxy", "broken", "garbage")
ON_FILE = 0.1
KINDS = (
    *FAULTS,
    *FAULTS,
    "die",
    "die",
    "forget",
    *["kill"] * 10,
    "stop",
    "stop",
    "freeze",
    "skip",
    "wall",
    "wall",
    "full",
)
POINTS = ("any", "any", "send", "sent", "lock", "store", "store", "stored")


def draw(seed: int) -> Schedule:
    """Schedule number ``seed``."""
    rng = random.Random(seed)
    servers = tuple(_server(rng) for _ in range(rng.choice([1, 2, 2, 2, 3])))
    workers = rng.choice([1, 1, 1, 2])
    events = [_event(rng, len(servers), workers) for _ in range(rng.choice([1, 1, 2, 2, 3, 5]))]
    if rng.random() < TROUBLED:
        events += _trouble(rng, servers, workers)
    return Schedule(
        seed,
        servers,
        tuple(sorted(events, key=lambda event: event.at)),
        workers=workers,
        capacity=rng.choice([1, 2, 2, 4]),
        bounded=rng.choice([True, False]),
        restless=rng.choice([0.0, 0.0, 0.02, 0.2]),
        backlog=rng.choice([2, 4, 50]),
        durable=rng.random() < DURABLE,
        on_file=rng.random() < ON_FILE,
    )


def _trouble(rng: random.Random, servers: tuple[ServerPlan, ...], workers: int) -> list[Event]:
    """A server takes no results for a while, and a worker dies meanwhile, or soon after."""
    number = max(range(len(servers)), key=lambda one: len(servers[one].flows))
    begin, length = round(rng.uniform(0, 1), 3), rng.choice([2.0, 5.0, 9.0])
    kind = rng.choice(SILENT)
    outage = Event(begin, kind, number, length, calls=rng.choice(["updates", "updates", "all"]))
    kills = [
        Event(
            round(rng.uniform(begin, begin + length + 1.0), 3),
            rng.choice(["kill", "kill", "kill", "stop", "freeze", "without", "swap"]),
            rng.randrange(workers),
            rng.choice([0.0, 0.3, 3.0, 10.0]),
            rng.choice(POINTS),
            int(rng.expovariate(1 / 15)),
        )
        for _ in range(rng.choice([1, 1, 1, 2]))
    ]
    return [outage, *kills]


def _server(rng: random.Random) -> ServerPlan:
    flows = tuple(_flow(rng) for _ in range(rng.choice([0, 1, 2, 3, 5])))
    return ServerPlan(
        trip=rng.choice([0.0005, 0.002, 0.05]),
        response_timeout=rng.choice([3, 15, 15, 20]),
        flows=flows,
        has_v2=rng.choice([True, True, False]),
    )


def _flow(rng: random.Random) -> Flow:
    steps = tuple(rng.choice([0.001, 0.001, 0.05, 0.05, 0.5, 0.5, 2.0, 5.0]) for _ in range(rng.choice([1, 1, 2])))
    how = rng.choice(["well"] * 8 + ["fails", "waits", "poison", "refused"])
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
    if kind == "full":
        return Event(at, kind, 0, rng.choice([0.7, 3.0, 9.0]))
    if kind == "wall":
        return Event(at, kind, 0, rng.choice([-3600.0, -5.0, 5.0, 3600.0]))
    return Event(at, kind, rng.randrange(workers), rng.choice([0.3, 2.0, 8.0, 20.0]))
