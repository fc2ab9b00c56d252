"""A relay with an outbox: what is sent after a restart, what is left, what may not be sent any more."""

import contextlib
import threading

import pytest
from hearing import GUARD, Heard

from resilience import (
    BacklogFull,
    Claimed,
    DeadLettered,
    DeliveryFailed,
    DeliveryResumed,
    Destination,
    MemoryStore,
    Outbox,
    OutboxFailed,
    OutboxResumed,
    Relay,
    RelayConfig,
    Row,
    RowsKept,
    Undeliverable,
    Undelivered,
)
from resilience.delivery.parcel import Parcel
from resilience.testing import Held, ManualClock, ScriptedCall

BOOM = ConnectionError("boom")
QUICK = RelayConfig(inline_timeout=0.02, retry_initial=0.001, retry_maximum=0.01, close_timeout=5.0)


@pytest.fixture
def shared(tmp_path):
    """Opens the same file for as many processes as a test has, each with a wall clock that it sets itself."""
    with contextlib.ExitStack() as opened:
        yield lambda wall: opened.enter_context(Outbox(tmp_path / "outbox.db", clock=wall))


@pytest.fixture
def outbox(tmp_path):
    """An outbox in a fresh file."""
    with Outbox(tmp_path / "outbox.db", claim_for=1000.0) as outbox:  # nobody's claim runs out in here
        yield outbox


class Durable(MemoryStore):
    """Rows that look as if they outlived the process."""

    durable = True
    claim_for = 1000.0


class Unit:
    """Somebody who can go on with a next value."""

    left = 0

    def may_chain(self):
        """It would."""
        return True

    def chain(self, _):
        """Something came."""

    def leave(self):
        """It is free."""
        self.left += 1


def of(heard, kind):
    """The events of a kind."""
    return [event for event in heard if isinstance(event, kind)]


def again(outbox):
    """The same file in the next process."""
    return Outbox(outbox.path)


def until(reached):
    """Wait for something that nobody announces."""
    pause = threading.Event()
    for _ in range(int(GUARD * 1000)):
        if reached():
            return
        pause.wait(0.001)
    raise AssertionError("waited in vain")


def eu(send, identity="http://eu"):
    """A destination whose sends may run in the unit's thread."""
    return Destination("eu", send, identity, bounded=True)


def without_thread(relay):
    """Whoever drives the relay by hand wants no thread that may do so at the same time."""
    relay._start_driver = relay._units._drive = lambda: None


def leave(outbox, *payloads, key="k"):
    """A process wrote these down, and ended in good order."""
    outbox.release([outbox.put(Row("eu", "http://eu", key, n, payload)) for n, payload in enumerate(payloads)])


def test_d4_nothing_is_written_while_inline_sends_succeed(outbox):
    """Not a byte, not a transaction."""
    before = outbox._desk._db.total_changes, _bytes(outbox)
    with Relay([eu(lambda *_: None)], store=outbox) as relay:
        for number in range(100):
            assert relay.deliver("eu", f"k{number}", number)
        assert (outbox._desk._db.total_changes, _bytes(outbox)) == before
    assert relay.view()["eu"].written == 0
    assert relay.view()["eu"].delivered == 100


def _bytes(outbox):
    return {file.name: file.read_bytes() for file in outbox.path.parent.iterdir() if not file.name.endswith("-shm")}


def test_d2_what_was_left_is_sent_at_the_next_start(outbox):
    """In its order, before anything new of the same key; it is counted, and no Undelivered is told of it."""
    heard, taken = Heard(), []
    leave(outbox, 1, 2, 3)

    send = eu(lambda payload, _: taken.append(payload))
    with again(outbox) as store, Relay([send], store=store, on_event=heard) as relay:
        relay.deliver("eu", "k", 4)
        assert relay.close(GUARD) == 0
        view = relay.view()["eu"]

    assert taken == [1, 2, 3, 4]
    assert (view.inherited, view.delivered, view.left, view.undelivered) == (3, 4, 0, 0)
    assert of(heard, Undelivered) == []
    assert outbox.stock() == ()


def test_d7_what_is_left_is_safe_and_only_the_rest_is_undelivered(outbox, caplog):
    """The counts of both are known; a result that is not final is not written and ends with the process."""
    heard = Heard()
    relay = Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=outbox, on_event=heard)
    relay.deliver("eu", "a", 1)
    relay.deliver("eu", "b", "half of it", final=False)
    relay.hand_over("eu", "c", "most of it", final=False)

    assert relay.close(0.0) == 3

    view = relay.view()["eu"]
    assert (view.written, view.left, view.undelivered) == (1, 1, 2)
    assert {event.key for event in of(heard, Undelivered)} == {"b", "c"}
    assert "left in the outbox, for whoever opens it next: eu 1" in caplog.text
    assert "results left undelivered: eu 2" in caplog.text
    until(lambda: [stock.free for stock in outbox.stock()] == [1])  # once its last attempt has ended


def test_d2_a_result_that_is_not_final_waits_in_memory_alone(outbox):
    """It is sent again as long as the process lives, and ends with it."""
    heard = Heard()
    with Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=outbox, on_event=heard) as relay:
        assert not relay.deliver("eu", "k", 1, final=False)
        assert relay.pending() == 1
        relay.close(0.0)

    assert relay.view()["eu"].written == 0
    assert outbox.stock() == ()
    assert of(heard, Undelivered) == [Undelivered("eu", "k")]


def test_d2_a_result_that_is_not_final_is_no_dead_letter(outbox):
    """Refused for good it is told of and gone: sent again later it would hurt."""
    heard = Heard()
    no = Undeliverable("no")
    with Relay([eu(ScriptedCall(no))], store=outbox, on_event=heard) as relay:
        assert not relay.deliver("eu", "k", 1, final=False)

    assert heard == [DeadLettered("eu", "k", "no", 1, no)]
    assert outbox.dead_letters() == ()
    assert outbox.stock() == ()


def test_d1_rows_that_nobody_serves_are_kept_and_reported(outbox, caplog):
    """Once, at the start; they wait for a relay that has their destination."""
    heard = Heard()
    leave(outbox, 1, 2)
    with again(outbox) as store, Relay([eu(ScriptedCall(None), "http://new")], store=store, on_event=heard) as relay:
        relay.start()
        assert relay.pending() == 0

    assert heard == [RowsKept("eu", "http://eu", 2)]
    assert "2 results wait for eu (http://eu)" in caplog.text
    assert outbox.stock()[0].free == 2


def test_d5_rows_on_the_disk_count_for_the_backlog(outbox):
    """A destination whose results of yesterday wait has no room for more than the rest."""
    leave(outbox, *range(3))
    config = RelayConfig(max_backlog=3, close_timeout=0.0)
    send, heard = ScriptedCall(Held(None)), Heard()
    with again(outbox) as store, Relay([eu(send)], config=config, store=store, on_event=heard) as relay:
        assert not relay.has_room("eu")
        assert heard == [BacklogFull("eu", 3)]
        send.release()
        assert relay.close(GUARD) == 0


def test_d6_dead_letters_are_sent_again_from_another_process(outbox):
    """A tool revives them while the worker runs; the worker finds them at its next look."""
    clock, send = ManualClock(), ScriptedCall(Undeliverable("no"), None)
    with Relay([eu(send)], store=outbox, clock=clock) as relay:
        assert not relay.deliver("eu", "k", 1)
        with again(outbox) as tool:
            assert tool.revive() == 1
        clock.advance(outbox.claim_for / 3)
        relay._keeper.look()
        until(lambda: relay.view()["eu"].inherited == 1)  # its own thread may have looked
        assert relay.close(GUARD) == 0
    assert send.ended == 2
    assert outbox.stock() == ()


def test_d6_r13_sending_again_after_a_jump_of_the_clock_takes_nothing_from_the_living(shared):
    """It is no second look at whose claims have run out: those who live have had no time to renew them."""
    wall, clock = ManualClock(1e9), ManualClock()
    living, ours = shared(wall), shared(wall)
    living.put(Row("eu", "http://eu", "theirs", 1, "theirs"))
    relay = Relay([eu(ScriptedCall(Undeliverable("no"), None))], store=ours, clock=clock)
    without_thread(relay)
    relay._keeper.look()
    relay.deliver("eu", "ours", "ours")
    wall.advance(3600.0)
    clock.advance(ours.claim_for / 3)
    relay._keeper.look()

    assert relay.send_again() == 1

    assert living.claim({}).lost == frozenset()
    clock.advance(ours.claim_for / 3)
    relay._keeper.look()
    assert [parcel.key for _, parcel in relay._ledger.due()] == ["ours"]
    relay.close(0.0)


def test_d6_what_cannot_be_read_is_told_of(outbox):
    """As a dead letter; the others are sent."""
    heard, taken = Heard(), []
    leave(outbox, 1)
    outbox._dump = lambda payload: payload
    outbox.release([outbox.put(Row("eu", "http://eu", "bad", 2, "{"))])

    with again(outbox) as store:
        relay = Relay([eu(lambda payload, _: taken.append(payload))], store=store, on_event=heard)
        relay.start()
        assert relay.close(GUARD) == 0

    assert taken == [1]
    assert [event.key for event in of(heard, DeadLettered)] == ["bad"]
    assert relay.view()["eu"].dead == 1


def test_d7_what_was_lost_while_frozen_is_not_sent(shared):
    """The relay looks whose its rows are before it sends; what another process has leaves the line."""
    wall, clock = ManualClock(1e9), ManualClock()
    frozen, other = shared(wall), shared(wall)
    send = ScriptedCall(BOOM, None)
    config = RelayConfig(retry_initial=60.0, retry_maximum=60.0)
    relay = Relay([eu(send)], config=config, store=frozen, clock=clock)
    without_thread(relay)
    relay.deliver("eu", "k", 1)
    relay.deliver("eu", "k", 2)
    other.claim({"eu": "http://eu"})
    for _ in range(2):
        wall.advance(20.0)
        other.claim({"eu": "http://eu"})

    clock.advance(100.0)
    relay._keeper.look()

    assert relay._ledger.due() == []
    assert (relay.pending(), relay.view()["eu"].passed) == (0, 2)
    assert relay.close(0.0) == 0
    assert send.started == 1
    assert other.stock()[0].waiting == 2


def full(outbox):
    """Let the outbox be full; returns what makes room again."""
    pages = outbox._desk._db.execute("PRAGMA page_count").fetchone()[0]
    outbox._desk._db.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: outbox._desk._db.execute("PRAGMA max_page_count = 100000")


def test_d5_a_full_disk_stops_the_work_and_loses_nothing(outbox):
    """What cannot be written waits in memory, its destination should bring no more, and it is written in the end."""
    heard, clock = Heard(), ManualClock()
    relay = Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=outbox, on_event=heard, clock=clock)
    without_thread(relay)
    make_room = full(outbox)

    assert not relay.deliver("eu", "a", "x" * 100_000)
    assert not relay.deliver("eu", "b", "y" * 100_000)

    (failed,) = of(heard, OutboxFailed)
    assert failed.destination == "eu"
    assert "the disk is full" in str(failed.error)
    assert relay.view()["eu"].unwritten == 2

    make_room()
    relay._keeper.rewrite()
    assert of(heard, OutboxResumed) == []  # not yet time
    clock.advance(2.0)
    relay._keeper.rewrite()
    assert of(heard, OutboxResumed) == [OutboxResumed("eu")]
    assert relay.view()["eu"].unwritten == 0
    assert relay.close(0.0) == 2
    assert outbox.stock()[0].waiting == 2


def test_d5_what_was_delivered_need_not_be_written(outbox):
    """The work goes on once nothing is unwritten, also because it was taken."""
    heard, send = Heard(), ScriptedCall(BOOM, None)
    full(outbox)
    with Relay([eu(send)], config=QUICK, store=outbox, on_event=heard) as relay:
        relay.deliver("eu", "a", "x" * 100_000)
        heard.wait_for(OutboxResumed)
        assert relay.close(GUARD) == 0

    assert [type(event) for event in heard if not isinstance(event, DeliveryResumed)] == [
        DeliveryFailed,
        OutboxFailed,
        OutboxResumed,
    ]


def test_writing_is_tried_once_more_at_the_end(outbox):
    """Room that was made in the meantime is used, and nothing is lost."""
    heard = Heard()
    relay = Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=outbox, on_event=heard)
    make_room = full(outbox)
    relay.deliver("eu", "a", "x" * 100_000)
    make_room()

    assert relay.close(0.0) == 1
    assert (relay.view()["eu"].left, of(heard, Undelivered)) == (1, [])


def test_write_first_has_every_result_on_the_disk_before_it_is_sent(outbox):
    """And off it once it was taken."""
    seen = []

    def send(payload, _):
        seen.append((payload, sum(stock.waiting for stock in outbox.stock())))

    config = RelayConfig(write_first=True)
    with Relay([eu(send)], config=config, store=outbox) as relay:
        assert relay.deliver("eu", "k", 1)
        assert relay.deliver("eu", "k", "half of it", final=False)

        assert outbox.stock() == ()
        assert relay.view()["eu"].written == 1
    assert seen == [(1, 1), ("half of it", 0)]


def test_write_first_counts_no_time_of_the_disk_against_an_exchange():
    """However slow the disk is, the unit does not leave before its result was sent, and one row is written."""
    clock, store, writing, written = ManualClock(), Durable(), threading.Event(), threading.Event()
    put = store.put

    def slowly(row):
        writing.set()
        assert written.wait(GUARD)
        return put(row)

    store.put = slowly
    exchange, unit = ScriptedCall([]), Unit()
    shop = Destination("eu", ScriptedCall(None), "http://eu", bounded=True, exchange=exchange)
    relay = Relay([shop], config=RelayConfig(write_first=True), store=store, clock=clock)
    without_thread(relay)
    delivering = threading.Thread(target=relay.deliver, args=("eu", "k", 1), kwargs={"chain": unit}, daemon=True)
    delivering.start()
    assert writing.wait(GUARD)
    for _ in range(3):
        clock.advance(5.0)
        relay._look_round()
    written.set()
    delivering.join(GUARD)

    assert (unit.left, exchange.started, relay.pending(), len(store)) == (0, 1, 0, 0)
    assert relay.view()["eu"].written == 1
    assert relay.close(0.0) == 0


def test_what_could_not_be_written_wakes_whoever_would_try_again_too_late():
    """It was asleep for longer than the disk is left alone; otherwise it is left alone itself."""
    clock, woken = ManualClock(), []
    relay = Relay([eu(ScriptedCall(None))], clock=clock, store=Durable())
    ledger = relay._ledger
    ledger.changed.notify_all = lambda: woken.append(clock())
    for sleeps_until in (1.0, 60.0):
        ledger._watch.wake_at = sleeps_until
        with ledger.lock:
            ledger.miss(relay._routes["eu"], Parcel(1, "k", 1, 0.0), OSError("full"), clock())
        clock.advance(0.5)

    assert woken == [0.5]


def test_a_start_needs_no_thread_where_nothing_is_durable():
    """In memory there is nothing to take in."""
    with Relay([eu(print)]) as relay:
        relay.start()
        assert relay._driver is None


def test_units_of_a_hung_destination_are_free_and_their_results_safe(outbox):
    """The row is written while the attempt runs, and crossed out when it succeeds after all."""
    send = ScriptedCall(Held(None))
    with Relay([Destination("eu", send, "http://eu")], config=QUICK, store=outbox) as relay:
        assert not relay.deliver("eu", "k", 1)
        assert outbox.stock()[0].waiting == 1
        send.release()
        assert relay.close(GUARD) == 0
    assert outbox.stock() == ()


def test_write_first_on_a_full_disk_sends_all_the_same(outbox):
    """The work is stopped, the result is not; and its time at the destination begins after the disk's."""
    heard = Heard()
    full(outbox)
    with Relay([eu(ScriptedCall(None))], config=RelayConfig(write_first=True), store=outbox, on_event=heard) as relay:
        assert relay.deliver("eu", "k", "x" * 100_000)

    assert [type(event) for event in heard] == [OutboxFailed, OutboxResumed]


def test_what_still_cannot_be_written_is_tried_again_later(outbox):
    """One attempt says how it is with all of them."""
    clock = ManualClock()
    relay = Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=outbox, clock=clock)
    without_thread(relay)
    make_room = full(outbox)
    for key in ("a", "b"):
        relay.deliver("eu", key, "x" * 100_000)
    clock.advance(2.0)
    relay._keeper.rewrite()
    assert relay.view()["eu"].unwritten == 2

    make_room()
    relay._keeper.rewrite()
    assert relay.view()["eu"].unwritten == 2
    clock.advance(2.0)
    relay._keeper.rewrite()
    assert relay.view()["eu"].unwritten == 0
    relay.close(0.0)


class Whimsical(MemoryStore):
    """A store whose methods can be made to do something else."""

    durable = True
    claim_for = 15.0


def test_a_result_taken_while_it_is_written_after_all_is_crossed_out():
    """It does not stay behind for the next process."""
    store, heard, clock = Whimsical(), Heard(), ManualClock()
    relay = Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=store, on_event=heard, clock=clock)
    without_thread(relay)
    store.put = ScriptedCall(OSError("full"))
    relay.deliver("eu", "a", 1)
    [parcel] = relay._routes["eu"].lane.leftovers()

    def put(row):
        parcel.gone = True  # its attempt succeeds now
        return MemoryStore.put(store, row)

    store.put = put
    clock.advance(2.0)
    relay._keeper.rewrite()

    assert of(heard, OutboxResumed) == [OutboxResumed("eu")]
    assert len(store) == 0
    parcel.gone = False
    relay.close(0.0)


def test_a_store_that_cannot_be_looked_into_is_in_the_log_once(caplog):
    """What we have is sent all the same, and the next look is tried again."""
    store, clock = Whimsical(), ManualClock()
    store.claim = ScriptedCall(OSError("claims"), OSError("claims"), Claimed(lost=frozenset({1})), OSError("claims"))
    store.stock = ScriptedCall(OSError("stock"))
    store.release = ScriptedCall(OSError("release"))
    relay = Relay([eu(ScriptedCall(None))], config=QUICK, store=store, clock=clock)
    for _ in range(4):
        relay._keeper.look()
        clock.advance(5.0)

    assert relay.deliver("eu", "k", 1)
    assert caplog.text.count("cannot be looked for") == 2
    assert "cannot be counted" not in caplog.text
    assert relay.view()["eu"].passed == 0


def test_rows_that_cannot_be_released_are_others_later(caplog):
    """That is no error: the claim runs out."""
    caplog.set_level("INFO")
    store = Whimsical()
    store.release = ScriptedCall(OSError("full"))
    relay = Relay([eu(ScriptedCall(BOOM))], config=RelayConfig(retry_initial=1000.0, retry_maximum=1000.0), store=store)
    relay.deliver("eu", "k", 1)
    assert relay.close(0.0) == 1

    assert "1 results on the disk could not be released: full" in caplog.text
    assert relay.view()["eu"].left == 1


def test_strangers_that_cannot_be_counted_are_in_the_log(caplog):
    """The start goes on."""
    store = Whimsical()
    store.stock = ScriptedCall(OSError("stock"))
    with Relay([eu(ScriptedCall(None))], store=store):
        pass
    assert "results on the disk cannot be counted" in caplog.text


def test_a_slow_disk_holds_a_bounded_number_of_threads():
    """Results that were taken and wait to be crossed out keep others from being sent, beyond a hundred."""
    store, gate = MemoryStore(), threading.Event()
    remove = store.remove

    def slowly(row):
        assert gate.wait(GUARD)
        remove(row)

    store.remove = slowly
    send = ScriptedCall(None)
    relay = Relay([eu(send)], store=store)
    for number in range(300):
        relay.hand_over("eu", f"k{number}", number)
    until(lambda: relay._ledger._crossing >= 100)
    assert relay._ledger.due() == []
    assert relay.pending() >= 180

    gate.set()
    until(lambda: send.started == 300)
    assert relay.close(GUARD) == 0
    assert len(store) == 0


def test_a_closed_relay_starts_no_more(outbox):
    """Nor does closing it again do anything."""
    relay = Relay([eu(ScriptedCall(None))], store=outbox)
    assert relay.close(1.0) == 0
    relay.start()
    assert relay._driver is None
    assert relay.close(1.0) == 0


def test_d2_results_whose_file_is_gone_are_in_memory_alone_again(outbox):
    """It is told with the next look, their destination brings no more work, and they are not said to be safe."""
    heard = Heard()
    relay = Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=outbox, on_event=heard)
    relay.hand_over("eu", "a", 1)
    outbox.path.unlink()

    relay._keeper.claim()

    until(lambda: [event.destination for event in of(heard, OutboxFailed)] == ["eu"])
    assert relay.close(0.05) == 1
    assert of(heard, Undelivered) == [Undelivered("eu", "a")]
    assert (relay.view()["eu"].left, relay.view()["eu"].undelivered) == (0, 1)


def test_d7_results_whose_file_is_gone_at_the_end_are_not_said_to_be_safe(outbox):
    """Nobody noticed before: there was nothing to write."""
    relay = Relay([eu(ScriptedCall(BOOM))], config=QUICK, store=outbox)
    relay.hand_over("eu", "a", 1)
    outbox.path.unlink()

    assert relay.close(0.05) == 1
    assert (relay.view()["eu"].left, relay.view()["eu"].undelivered) == (0, 1)


def test_d2_results_whose_file_is_gone_are_sent_all_the_same(outbox):
    """From memory, and once."""
    send = ScriptedCall(BOOM, BOOM, BOOM, None)
    heard = Heard()
    with Relay([eu(send)], config=QUICK, store=outbox, on_event=heard) as relay:
        relay.hand_over("eu", "a", 1)
        outbox.path.unlink()
        relay._keeper.claim()
        until(lambda: relay.view()["eu"].delivered == 1)

    assert [event.destination for event in of(heard, OutboxResumed)] == ["eu"] * len(of(heard, OutboxFailed))
    assert relay.pending() == 0


def test_d7_what_is_being_sent_at_the_end_is_others_when_that_has_ended(outbox):
    """And so is what stands behind it: until then another process must not send it at the same time."""
    send = ScriptedCall(Held(BOOM))
    relay = Relay([Destination("eu", send, "http://eu")], config=QUICK, store=outbox)
    relay.deliver("eu", "k", 1)
    relay.hand_over("eu", "k", 2)
    relay.hand_over("eu", "other", 3)
    assert relay.close(0.0) == 3
    assert [stock.free for stock in outbox.stock()] == [1]

    send.release()
    until(lambda: [stock.free for stock in outbox.stock()] == [3])


def test_d7_what_did_not_come_about_after_the_end_is_others_at_once(outbox):
    """Such as an attempt that was cancelled when everything closed."""
    relay = Relay([eu(ScriptedCall(Held(BOOM)))], config=QUICK, store=outbox)
    attempt = relay._ledger.admit(relay._routes["eu"], "k", 1, inline=True)
    relay._keeper.keep(attempt.route, attempt.parcel)
    assert relay.close(0.0) == 0  # its unit has it
    assert outbox.stock()[0].free == 0

    relay._ledger.bar(attempt, None)
    assert outbox.stock()[0].free == 1


def test_d3_a_result_that_cannot_be_written_keeps_no_other_off_the_disk():
    """It may be too large for what is left of the disk: those of other destinations, and then of its own, go first."""
    full, tried = [True], []

    class Small(MemoryStore):
        """A disk with room for small results."""

        durable = True

        def put(self, row):
            tried.append(row.payload)
            if full[0] or row.payload == "large":
                raise OSError("no room")
            return super().put(row)

    places = [Destination(name, ScriptedCall(BOOM)) for name in ("eu", "us")]
    relay = Relay(places, config=QUICK, store=Small(), clock=ManualClock())
    for name, payload in (("eu", "large"), ("eu", "small"), ("us", "other")):
        relay.hand_over(name, payload, payload)
    full[0] = False
    tried.clear()

    relay._keeper.rewrite(at_once=True)
    relay._keeper.rewrite(at_once=True)

    assert tried == ["large", "other", "small", "large"]
    relay.close(0.0)


def test_a_disk_that_takes_nothing_is_tried_three_times_at_once_and_not_once_for_every_destination():
    """Each try may have to wait for it; a result that was taken meanwhile has no place in the line."""
    tried = []

    class Full(MemoryStore):
        """A disk without any room, and a result that its destination takes while it is written."""

        durable = True

        def put(self, row):
            tried.append(row.destination)
            if len(tried) == 5:
                parcels = relay._ledger.unwritten.parcels["a"]
                relay._ledger.unwritten.remove("a", next(iter(parcels)))
            raise OSError("no room")

    relay = Relay(
        [Destination(name, ScriptedCall(BOOM)) for name in "abcd"], config=QUICK, store=Full(), clock=ManualClock()
    )
    for name in "abcd":
        relay.hand_over(name, "k", name)
    assert tried == ["a", "b", "c", "d"]

    relay._keeper.rewrite(at_once=True)

    assert tried[4:] == ["a", "b", "c"]
    assert list(relay._ledger.unwritten.parcels) == ["b", "c", "d"]
    relay.close(0.0)
