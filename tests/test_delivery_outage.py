"""P12 for results: when every destination is down, nobody waits for a breaker's reset."""

import math
import random
import threading

from resilience.breaker import BreakerConfig
from resilience.delivery import Destination, Relay, RelayConfig
from resilience.delivery.outage import Outage
from resilience.delivery.routes import routes
from resilience.registry import BreakerRegistry
from resilience.testing import ManualClock

NEVER = math.inf
LONG = BreakerConfig(fail_max=1, reset_timeout=600.0, max_reset_timeout=600.0)
BOOM = ConnectionError("boom")


class World:
    """Destinations ``a`` and ``b``, their breakers, and what waits for them, in virtual time."""

    def __init__(self, *, breakers=True):
        self.clock = ManualClock()
        self.updates, self.polls = BreakerRegistry(LONG, clock=self.clock), BreakerRegistry(LONG, clock=self.clock)
        self.pending = {"a": 1, "b": 1}
        destinations = [Destination(name, print) for name in "ab"]
        self.routes = routes(destinations, RelayConfig(), self.updates if breakers else None, random.Random(0))
        self.outage = Outage(self.routes, self.polls, self.pending.__getitem__, random.Random(0))

    def down(self, name, after=0.0):
        """The breaker of results opens, so many seconds from now."""
        self.clock.advance(after)
        self.updates.get(name).try_acquire().failure(BOOM)

    def early_at(self, name):
        """From when on something may be sent there early."""
        return self.outage.early_at(self.routes[name], self.clock())


def test_p12_who_has_been_open_longest_is_sent_to_after_a_pause():
    """Not before 5 s after the last of them opened, and after 7.5 s at the latest; the others wait."""
    world = World()
    world.down("b")
    world.down("a", after=3.0)
    opened = world.clock()

    assert opened + 5.0 <= world.early_at("b") <= opened + 7.5
    assert world.early_at("a") == NEVER


def test_p12_the_next_one_has_its_turn_after_an_early_attempt_has_failed():
    """They are asked in turn, one pause after another."""
    world = World()
    world.down("b")
    world.down("a")
    world.clock.advance(10.0)
    world.updates.get("b").try_acquire(early=True).failure(BOOM)
    failed = world.clock()

    assert failed + 5.0 <= world.early_at("a") <= failed + 7.5
    assert world.early_at("b") == NEVER


def test_p12_nobody_is_sent_to_early_while_one_destination_is_well():
    """Then the fault is the others'."""
    world = World()
    world.down("a")

    assert world.early_at("a") == NEVER
    assert world.early_at("b") == NEVER


def test_p12_when_one_is_back_the_others_are_sent_to_at_once_and_once():
    """The outage was ours and is over; who fails then has a fault of its own, and its breaker's wait."""
    world = World()
    world.down("b")
    world.down("a", after=1.0)
    world.clock.advance(10.0)
    assert world.early_at("b") <= world.clock()
    world.updates.get("b").try_acquire(early=True).success()

    assert world.early_at("a") == world.clock()
    world.updates.get("a").try_acquire(early=True).failure(BOOM)
    assert world.early_at("a") == NEVER


def test_p12_nobody_else_is_sent_to_while_an_early_attempt_is_under_way():
    """It has not shown yet that the outage is over."""
    world = World()
    world.down("b")
    world.down("a", after=1.0)
    world.clock.advance(10.0)
    assert world.early_at("b") <= world.clock()
    assert world.updates.get("b").try_acquire(early=True)

    assert world.early_at("a") == NEVER


def test_p12_who_asks_for_a_pause_after_an_outage_has_it():
    """Also when the others are back."""
    world = World()
    world.down("a")
    world.down("b")
    assert world.early_at("a") < NEVER
    world.clock.advance(10.0)
    world.updates.get("a").try_acquire(early=True).failure(BOOM, retry_after=60.0)
    world.updates.get("b").try_acquire(early=True).success()

    assert world.early_at("a") == NEVER


def test_p12_a_destination_that_cannot_be_polled_is_down_too():
    """Nothing was sent to it, so only its polls can tell."""
    world = World()
    world.down("a")
    world.polls.get("b").try_acquire().failure(BOOM)

    assert world.early_at("a") < NEVER


def test_p12_one_that_was_forced_open_does_not_count():
    """Somebody wanted that."""
    world = World()
    world.down("a")
    world.updates.get("b").force_open()

    assert world.early_at("a") < NEVER
    assert world.early_at("b") == NEVER


def test_p12_whose_results_are_all_gone_is_not_waited_for():
    """It has nothing to be probed with."""
    world = World()
    world.down("a")
    world.down("b")
    world.pending["a"] = 0

    assert world.early_at("b") < NEVER


def test_p12_a_pause_that_was_asked_for_stands():
    """Retry-After is the destination's own word."""
    world = World()
    for name in "ab":
        world.updates.get(name).try_acquire().failure(BOOM, retry_after=60.0)

    assert world.early_at("a") == world.early_at("b") == NEVER


def test_p12_there_is_nothing_to_hurry_without_breakers():
    """Nothing keeps a result from being sent then."""
    assert World(breakers=False).early_at("a") == NEVER


def test_p12_the_relay_sends_early_when_everything_is_down(monkeypatch):
    """What waits arrives soon after the end of an outage, and not at the end of a breaker's long wait."""
    monkeypatch.setattr("resilience.outage.PAUSE", 0.01)
    failures, arrived = iter([BOOM] * 4), threading.Event()

    def send(*_):
        if (error := next(failures, None)) is not None:
            raise error
        arrived.set()

    config = RelayConfig(retry_initial=0.001, retry_maximum=60.0)
    with Relay([Destination("a", send, bounded=True)], config=config, breakers=BreakerRegistry(LONG)) as relay:
        assert not relay.deliver("a", "k", 1)
        assert arrived.wait(20.0)
