"""Results whose answer brings the next value: who asks, who waits, and that nothing is lost or sent twice at once."""

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hearing import GUARD, Heard

from resilience import (
    BreakerConfig,
    BreakerRegistry,
    DeadLettered,
    DeliveryFailed,
    DeliveryResumed,
    Destination,
    Relay,
    RelayConfig,
    Undeliverable,
)
from resilience.delivery.attempt import Attempt
from resilience.delivery.watch import Watch
from resilience.testing import Held, ScriptedCall

BOOM = ConnectionError("boom")
QUICK = RelayConfig(inline_timeout=0.02, retry_initial=0.001, retry_maximum=0.01, close_timeout=5.0)
PATIENT = RelayConfig(inline_timeout=GUARD, slow_after=GUARD, send_timeout=GUARD)


class Unit:
    """Somebody who can go on with a next value, and remembers what happened."""

    def __init__(self, wants: bool = True, refuses_to_leave: bool = False) -> None:
        self.wants = wants
        self.refuses_to_leave = refuses_to_leave
        self.came: list[object] = []
        self.left = threading.Event()
        self.told = threading.Event()

    def may_chain(self) -> bool:
        """Whether it wants one."""
        return self.wants

    def chain(self, values: Sequence[object] | None) -> None:
        """Something came."""
        self.came.append(values)
        self.told.set()

    def leave(self) -> None:
        """It is free."""
        self.left.set()
        if self.refuses_to_leave:
            raise RuntimeError("not me")


def shop(send: Callable[..., object], exchange: Callable[..., object], **options: float) -> Destination:
    """A destination that can do both."""
    return Destination("eu", send, bounded=True, exchange=exchange, **options)  # type: ignore[arg-type]


def in_thread(call: Callable[[], object]) -> threading.Thread:
    """Run something beside the test."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def until(reached: Callable[[], object]) -> None:
    """Wait for something that nobody announces."""
    pause = threading.Event()
    for _ in range(int(GUARD * 1000)):
        if reached():
            return
        pause.wait(0.001)
    raise AssertionError("waited in vain")


def test_answer_brings_the_next_value() -> None:
    """The result is taken, in the unit's own thread, and whoever delivered it goes on with what came."""
    threads, unit = [], Unit()

    def exchange(payload: object, timeout: float) -> list[object]:
        threads.append((threading.get_ident(), payload, timeout))
        return ["next"]

    send = ScriptedCall(None)
    with Relay([shop(send, exchange)], config=PATIENT) as relay:
        assert relay.deliver("eu", "k", "result", chain=unit)
        assert relay.pending() == 0

    assert threads == [(threading.get_ident(), "result", GUARD)]
    assert unit.came == [["next"]]
    assert send.started == 0


@pytest.mark.parametrize(("brought", "told"), [((), [[]]), (None, []), (("a", "b"), [["a", "b"]])])
def test_no_value_and_no_question_differ(brought: Sequence[object] | None, told: list[object]) -> None:
    """Nothing: the source has no more for now. None: it was not asked, so nobody learns anything."""
    unit = Unit()
    with Relay([shop(ScriptedCall(None), lambda *_: brought)], config=PATIENT) as relay:
        assert relay.deliver("eu", "k", 1, chain=unit)

    assert unit.came == told


def test_plain_send_unless_a_next_value_is_wanted() -> None:
    """Nobody to go on, nobody who wants to, or a destination that cannot: then it is sent as ever."""
    exchange, send = ScriptedCall([]), ScriptedCall(None)
    with Relay([shop(send, exchange), Destination("us", send, bounded=True)], config=PATIENT) as relay:
        assert relay.deliver("eu", "1", 1)
        assert relay.deliver("eu", "2", 2, chain=Unit(wants=False))
        assert relay.deliver("us", "3", 3, chain=Unit())

    assert (send.started, exchange.started) == (3, 0)


def test_failure_is_repeated_with_the_plain_send() -> None:
    """A lost answer may have been a value: asked again, another one would be lost."""
    exchange, send, heard, unit = ScriptedCall(BOOM), ScriptedCall(None), Heard(), Unit()
    with Relay([shop(send, exchange)], config=QUICK, on_event=heard) as relay:
        assert not relay.deliver("eu", "k", "result", chain=unit)
        heard.wait_for(DeliveryResumed)

    assert (exchange.started, send.started) == (1, 1)
    assert send.calls[0][0][0] == "result"
    assert [type(event) for event in heard] == [DeliveryFailed, DeliveryResumed]
    assert (unit.came, unit.left.is_set()) == ([], False)


def test_refusal_for_good_is_a_dead_letter() -> None:
    """As with the plain send."""
    heard, unit = Heard(), Unit()
    with Relay([shop(ScriptedCall(None), ScriptedCall(Undeliverable("no such task")))], on_event=heard) as relay:
        assert not relay.deliver("eu", "k", 1, chain=unit)
        assert [letter.reason for letter in relay.dead_letters()] == ["no such task"]

    assert [type(event) for event in heard] == [DeadLettered]
    assert unit.came == []


def test_d4_unit_leaves_an_exchange_that_takes_too_long_and_the_value_comes_late() -> None:
    """It is told to leave after the inline timeout; nothing is cut off, and nothing is sent a second time."""
    held = ScriptedCall(Held(["late"]))
    send, heard, unit = ScriptedCall(None), Heard(), Unit()
    with Relay([shop(send, held)], config=QUICK, on_event=heard) as relay:
        thread = in_thread(lambda: relay.deliver("eu", "k", "result", chain=unit))
        assert unit.left.wait(GUARD)
        assert heard.wait_for(DeliveryFailed).key == "k"  # type: ignore[union-attr]
        until(relay.pending)
        assert (unit.came, send.started) == ([], 0)
        held.release()
        thread.join(GUARD)
        assert unit.came == [["late"]]
        heard.wait_for(DeliveryResumed)

    assert (held.started, send.started) == (1, 0)


def test_relay_that_sleeps_keeps_no_unit_alive() -> None:
    """Not that of an exchange which was left either: what such a unit goes on with would pile up behind it."""
    held, unit = ScriptedCall(Held(["late"])), Unit()
    gone, left = weakref.ref(unit), unit.left
    with Relay([shop(ScriptedCall(None), held)], config=QUICK) as relay:
        thread = in_thread(partial(relay.deliver, "eu", "k", "result", chain=unit))
        del unit
        assert left.wait(GUARD)
        held.release()
        thread.join(GUARD)
        del thread
        until(lambda: relay.pending() == 0 and gone() is None)


def test_d4_left_exchange_that_fails_in_the_end_is_sent_plainly() -> None:
    """The relay has the result from the moment that the unit left."""
    held, send, unit = ScriptedCall(Held(BOOM)), ScriptedCall(None), Unit()
    with Relay([shop(send, held)], config=QUICK) as relay:
        thread = in_thread(lambda: relay.deliver("eu", "k", "result", chain=unit))
        assert unit.left.wait(GUARD)
        until(relay.pending)
        held.release()
        thread.join(GUARD)
        send.wait_ended()
        assert relay.close(GUARD) == 0

    assert (held.started, send.started, unit.came) == (1, 1, [])


def test_no_second_exchange_while_one_has_not_come_back() -> None:
    """One value that may be lost is enough; other results are sent plainly."""
    held, send, unit = ScriptedCall(Held([]), ["next"]), ScriptedCall(None), Unit()
    heard = Heard()
    with Relay([shop(send, held)], config=QUICK, on_event=heard) as relay:
        thread = in_thread(lambda: relay.deliver("eu", "k", "result", chain=unit))
        heard.wait_for(DeliveryFailed)
        relay.deliver("eu", "k2", 2, chain=Unit())
        send.wait_ended()
        until(lambda: relay.is_prompt("eu"))
        assert relay.deliver("eu", "k3", 3, chain=Unit())
        assert (held.started, send.started) == (1, 2)
        held.release()
        thread.join(GUARD)
        until(lambda: relay.is_prompt("eu"))
        fresh = Unit()
        assert relay.deliver("eu", "k4", 4, chain=fresh)

    assert fresh.came == [["next"]]


def test_wait_for_a_next_value_is_no_silence() -> None:
    """An answer that took as long as it may wait for a value makes its destination neither overdue nor slow."""
    now = [0.0]
    config = RelayConfig(slow_after=0.05, inline_timeout=1.0)

    def wait(*_: object) -> list[object]:
        now[0] += 0.1
        prompt.append(relay.is_prompt("eu"))
        return []

    prompt: list[bool] = []
    with Relay([shop(ScriptedCall(None), wait, exchange_wait=0.1)], config=config, clock=lambda: now[0]) as relay:
        for n in range(5):
            assert relay.deliver("eu", str(n), n, chain=Unit())
            assert relay.is_prompt("eu")

    assert prompt == [True] * 5


def test_others_ask_no_more_while_one_waits_for_a_value() -> None:
    """Who waits for longer than usual finds out whether there is a next value, or an answer at all; others send."""
    now, send = [0.0], ScriptedCall(None)
    others: list[bool] = []

    def wait(*_: object) -> list[object]:
        now[0] += 0.06
        others.append(relay.deliver("eu", "2", 2, chain=unit))
        return []

    unit = Unit()
    destination = shop(send, wait, exchange_wait=0.1)
    with Relay([destination], config=RelayConfig(slow_after=0.2), clock=lambda: now[0]) as relay:
        assert relay.deliver("eu", "1", 1, chain=Unit())

    assert (others, send.started, unit.came) == ([True], 1, [])


def test_plain_send_that_is_silent_is_seen_behind_an_exchange_that_waits() -> None:
    """The exchange may be silent for a while; the send that began later may not."""
    now, prompt = [0.0], []

    def wait(*_: object) -> list[object]:
        now[0] += 0.02
        relay.deliver("eu", "2", 2)
        return []

    def send(*_: object) -> None:
        now[0] += 0.06
        prompt.append(relay.is_prompt("eu"))

    destination = shop(send, wait, exchange_wait=1.0)
    with Relay([destination], config=RelayConfig(slow_after=0.2), clock=lambda: now[0]) as relay:
        relay.deliver("eu", "1", 1, chain=Unit())

    assert prompt == [False]


def test_answer_with_a_value_that_took_long_is_slow() -> None:
    """It did not wait for the value, so the time is its own."""
    now = [0.0]

    def wait(*_: object) -> list[object]:
        now[0] += 0.1
        return ["next"]

    config = RelayConfig(slow_after=0.05, inline_timeout=1.0)
    with Relay([shop(ScriptedCall(None), wait, exchange_wait=0.1)], config=config, clock=lambda: now[0]) as relay:
        relay.deliver("eu", "1", 1, chain=Unit())
        assert not relay.is_prompt("eu")


def test_breaker_that_is_not_closed_gets_no_exchange() -> None:
    """Its probe is a plain send: the destination may well be hanging."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=1, reset_timeout=0.001, jitter=0.0))
    exchange, send, heard = ScriptedCall(BOOM), ScriptedCall(None), Heard()
    with Relay([shop(send, exchange)], config=QUICK, breakers=breakers, on_event=heard) as relay:
        relay.deliver("eu", "1", 1, chain=Unit())
        heard.wait_for(DeliveryResumed)
        breakers.get("eu").force_open()
        assert not relay.deliver("eu", "2", 2, chain=Unit())
        breakers.get("eu").reset()
        until(lambda: relay.pending() == 0)

    assert (exchange.started, send.started) == (1, 2)


def test_breaker_that_opens_in_between_bars_the_exchange() -> None:
    """The value was wanted, and the permit refused: nobody waits for anything."""
    breakers = BreakerRegistry()
    exchange, send = ScriptedCall([]), ScriptedCall(None)

    class Opens(Unit):
        def may_chain(self) -> bool:
            breakers.get("eu").force_open()
            return True

    unit = Opens()
    with Relay([shop(send, exchange)], config=QUICK, breakers=breakers) as relay:
        assert not relay.deliver("eu", "1", 1, chain=unit)
        breakers.get("eu").reset()
        until(lambda: relay.pending() == 0)

    assert (exchange.started, send.started, unit.left.is_set()) == (0, 1, False)


@pytest.mark.parametrize("leaves", [False, True])
def test_result_survives_whoever_ends_its_thread(leaves: bool) -> None:
    """Ctrl-C in the middle of an exchange: it is raised, and the result is the relay's."""
    exchange = ScriptedCall(Held(KeyboardInterrupt())) if leaves else ScriptedCall(KeyboardInterrupt)
    send, unit, raised = ScriptedCall(None), Unit(), threading.Event()
    relay = Relay([shop(send, exchange)], config=QUICK if leaves else PATIENT)

    def deliver() -> None:
        try:
            relay.deliver("eu", "k", 1, chain=unit)
        except KeyboardInterrupt:
            raised.set()

    thread = in_thread(deliver)
    if leaves:
        assert unit.left.wait(GUARD)
        until(relay.pending)
        exchange.release()
    thread.join(GUARD)
    assert raised.is_set()
    assert relay.close(GUARD) == 0
    assert send.started == 1


def test_answer_that_is_no_sequence_is_a_failure() -> None:
    """It is told of, and the result is sent plainly."""
    heard, send = Heard(), ScriptedCall(None)
    with Relay([shop(send, ScriptedCall(5))], config=QUICK, on_event=heard) as relay:
        assert not relay.deliver("eu", "k", 1, chain=Unit())
        heard.wait_for(DeliveryResumed)

    assert send.started == 1


def test_unit_that_cannot_leave_stops_nobody() -> None:
    """What it raises is logged, and the relay has the result all the same."""
    held, heard = ScriptedCall(Held([])), Heard()
    unit = Unit(refuses_to_leave=True)
    with Relay([shop(ScriptedCall(None), held)], config=QUICK, on_event=heard) as relay:
        thread = in_thread(lambda: relay.deliver("eu", "k", 1, chain=unit))
        assert unit.left.wait(GUARD)
        heard.wait_for(DeliveryFailed)
        until(relay.pending)
        held.release()
        thread.join(GUARD)
        assert relay.close(GUARD) == 0


def test_exchanges_leave_nothing_behind() -> None:
    """Memory does not grow with what was exchanged, and the relay's thread is not woken for each."""
    wakes = [0]
    relay = Relay([shop(ScriptedCall(None), lambda *_: ["next"])], config=PATIENT)
    unit, sleep = Unit(), relay._ledger.sleep

    def counting(deadline: float | None) -> None:
        wakes[0] += 1
        sleep(deadline)

    relay._ledger.sleep = counting  # type: ignore[method-assign]
    for n in range(500):
        assert relay.deliver("eu", str(n), n, chain=unit)
    assert not relay._ledger._watch._deadlines
    assert len(unit.came) == 500
    assert wakes[0] < 50
    assert relay.close(GUARD) == 0


def test_exchange_must_be_callable_and_its_wait_a_time() -> None:
    """A mistake is named when the destination is made."""
    with pytest.raises(TypeError, match="exchange"):
        Destination("eu", print, exchange=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exchange_wait"):
        Destination("eu", print, exchange_wait=-1.0)


def test_time_out_of_an_exchange_that_has_just_ended_changes_nothing() -> None:
    """The answer was first: the result is not sent again."""
    heard = Heard()
    held = ScriptedCall(Held([]))
    relay = Relay([shop(ScriptedCall(None), held)], config=PATIENT, on_event=heard)
    unit, ledger = Unit(), relay._ledger
    thread = in_thread(lambda: relay.deliver("eu", "k", 1, chain=unit))
    held.wait_started()
    (attempt,) = ledger._watch._deadlines
    attempt.left = True
    attempt.route.astray = 1
    held.release()
    thread.join(GUARD)

    ledger.time_out(attempt, 1.0)

    assert list(heard) == []
    assert attempt.route.astray == 0
    assert relay.close(GUARD) == 0


def test_watch_tells_who_is_due() -> None:
    """Deadlines in any order; whether somebody must look earlier than planned."""
    watch = Watch()
    one, two = (Attempt(None, None) for _ in range(2))  # type: ignore[arg-type]
    assert not watch.set(one, 5.0), "whoever is awake looks anyway"
    watch.wake_at = 5.0
    assert not watch.set(two, 6.0)
    assert watch.set(two, 4.0)
    assert (watch.next_at(), watch.due(4.5)) == (4.0, [two])
    watch.remove(two)
    watch.remove(two)
    assert one in watch
    assert watch.due(5.0) == [one]
