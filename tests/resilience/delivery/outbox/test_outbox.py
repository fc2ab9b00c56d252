"""The outbox by itself: what is on the disk, whose it is, and what it says when its file cannot be used."""

import itertools
import os
import re
import sqlite3
import stat
import threading
import weakref

import pytest

from resilience import Claimed, DeadLetter, Destination, Outbox, OutboxError, Relay, Row, Stock
from resilience.delivery.outbox import database
from resilience.delivery.outbox import desk as desk_module
from resilience.delivery.outbox import outbox as outbox_module
from resilience.delivery.outbox.claims import Claim, Looks
from resilience.testing import ManualClock

EU = {"eu": "http://eu"}


def result(number: int, destination: str = "eu", key: str = "k", payload: object = None) -> Row:
    """A result that waits."""
    return Row(destination, f"http://{destination}", key, number, payload)


@pytest.fixture
def clock() -> ManualClock:
    """The wall clock of all processes."""
    return ManualClock(1_000_000.0)


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return tmp_path / "outbox.db"


def numbers(rows) -> list[int]:
    """Which results these are."""
    return [row.number for row in rows]


def test_d2_what_was_put_is_there_for_the_next_process(path, clock):
    """A process that ends without a word loses nothing: its rows are others' once its claim has run out."""
    dead = Outbox(path, clock=clock)
    put = [dead.put(result(number, payload={"n": number})) for number in range(3)]
    dead._desk._disconnect()  # no close, no release

    with Outbox(path, clock=clock) as outbox:
        assert outbox.claim(EU).rows == ()
        clock.advance(15.0)
    with Outbox(path, clock=clock) as outbox:
        assert outbox.claim(EU).rows == tuple(put)


def test_d2_what_was_removed_is_gone(path, clock):
    """A row that was taken is not sent again; removing it again is no error."""
    with Outbox(path, clock=clock) as outbox:
        rows = [outbox.put(result(number)) for number in range(3)]
        outbox.remove(rows[1])
        outbox.remove(rows[1])
        outbox.release(rows)

        assert outbox.claim(EU).rows == (rows[0], rows[2])


def test_d7_released_rows_are_others_at_once(path, clock):
    """Who closes in good order keeps nobody waiting."""
    with Outbox(path, clock=clock) as first, Outbox(path, clock=clock) as second:
        row = first.put(result(1))
        assert second.claim(EU).rows == ()
        first.release([row])
        assert second.claim(EU).rows == (row,)
        assert first.claim(EU).rows == ()


def test_d7_rows_of_a_living_process_are_its_own(path, clock):
    """As long as it renews its claim nobody takes them, however long that goes on."""
    with Outbox(path, clock=clock) as first, Outbox(path, clock=clock) as second:
        first.put(result(1))
        for _ in range(20):
            clock.advance(5.0)
            assert first.claim(EU).lost == frozenset()
            assert second.claim(EU).rows == ()


def test_d7_who_was_frozen_hears_what_it_lost(path, clock):
    """A process that made no claim for too long may not send what another one has by now."""
    with Outbox(path, clock=clock) as frozen, Outbox(path, clock=clock) as other:
        rows = [frozen.put(result(number)) for number in range(2)]
        for _ in range(5):
            other.claim(EU)
            clock.advance(5.0)
        assert frozen.claim(EU).lost == {row.id for row in rows}
        assert frozen.claim(EU).lost == frozenset()


def test_d3_rows_come_in_the_order_of_their_writers_and_numbers(path, clock):
    """Of a former process first, each in the order in which its results came, whatever the disk made of that."""
    with Outbox(path, clock=clock) as first, Outbox(path, clock=clock) as second:
        second.release([second.put(result(number)) for number in (1, 2)])
        first.release([first.put(result(number)) for number in (20, 10, 30)])

        assert numbers(first.claim(EU).rows) == [10, 20, 30, 1, 2]


def test_d1_rows_of_another_identity_wait(path, clock):
    """A name that means another server now does not get the results of the former one."""
    with Outbox(path, clock=clock) as outbox:
        outbox.release([outbox.put(result(1)), outbox.put(result(2, "us"))])

        assert outbox.claim({"eu": "http://eu.new", "asia": "http://eu"}).rows == ()
        assert outbox.stock() == (Stock("eu", "http://eu", 1, 0, 1), Stock("us", "http://us", 1, 0, 1))
        assert numbers(outbox.claim(EU).rows) == [1]


def test_d6_dead_letters_have_their_reason_and_time_and_outlive_the_process(path, clock):
    """Also of a result that was never written down before."""
    with Outbox(path, clock=clock) as outbox:
        row = outbox.put(result(1, payload="one"))
        outbox.bury(row, "no such task")
        clock.advance(1.0)
        outbox.bury(result(2, "us", payload="two"), "never")
    with Outbox(path, clock=clock) as outbox:
        first, second = outbox.dead_letters()

        assert first == DeadLetter(row, "no such task", 1_000_000.0)
        assert (second.row.payload, second.reason, second.at) == ("two", "never", 1_000_001.0)
        assert outbox.dead_letters("us") == (second,)
        assert outbox.claim(EU).rows == ()


def test_d6_dead_letters_are_revived_and_purged_by_destination_or_id(path, clock):
    """From any process; whoever serves the destination has them with its next claim."""
    with Outbox(path, clock=clock) as worker, Outbox(path, clock=clock) as tool:
        for number in range(4):
            worker.bury(result(number, ("eu", "us")[number % 2]), "no")
        one, other, third, fourth = (letter.row for letter in tool.dead_letters())

        assert tool.revive("us", ids=[one.id, other.id]) == 1
        assert tool.purge(ids=[one.id, 99]) == 1
        assert tool.revive("eu") == 1
        assert tool.purge() == 1
        assert tool.purge() == tool.revive() == 0
        assert worker.claim({"eu": "http://eu", "us": "http://us"}).rows == (other, third)
        assert fourth not in worker.dead_letters()


def test_d6_a_payload_that_cannot_be_loaded_is_a_dead_letter(path, clock):
    """It holds nobody up, and can still be looked at."""
    with Outbox(path, clock=clock, dump=lambda payload: payload) as writer:
        writer.release([writer.put(result(number, payload=text)) for number, text in enumerate(["1", "{", "2"])])
    with Outbox(path, clock=clock) as outbox:
        claimed = outbox.claim(EU)

        assert [row.payload for row in claimed.rows] == [1, 2]
        (letter,) = claimed.spoiled
        assert "JSONDecodeError" in letter.reason
        assert [(found.row.payload, found.reason) for found in outbox.dead_letters()] == [("{", letter.reason)]


def test_rows_that_nobody_will_ever_send_can_be_discarded(path, clock):
    """Those that no living process has, of a destination and perhaps of one identity."""
    with Outbox(path, clock=clock) as outbox, Outbox(path, clock=clock) as tool:
        mine = outbox.put(result(1))
        outbox.release([outbox.put(result(2)), outbox.put(result(3, "us"))])

        assert tool.discard("eu", "http://other") == 0
        assert tool.discard("eu", "http://eu") == 1
        assert tool.discard("us") == 1
        assert tool.discard("eu") == 0
        clock.advance(15.0)
        assert tool.discard("eu") == 1
        assert outbox.claim(EU).lost == {mine.id}


@pytest.mark.parametrize("payload", ["text", b"\x00\xff", "\x00", ""])
def test_payloads_come_back_as_they_were_dumped(path, clock, payload):
    """Text as text, bytes as bytes."""
    with Outbox(path, clock=clock, dump=lambda it: it, load=lambda it: it) as outbox:
        outbox.release([outbox.put(result(1, payload=payload))])
        assert outbox.claim(EU).rows[0].payload == payload


def test_results_may_be_secret(tmp_path, clock):
    """The file and its folder are for this user alone."""
    path = tmp_path / "state" / "worker" / "outbox.db"
    with Outbox(path, clock=clock) as outbox:
        outbox.put(result(1))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_commits_are_on_the_disk_when_they_return(path, clock):
    """The live connection says so; a test beside this one counts the syncs."""
    with Outbox(path, clock=clock) as outbox:
        db = outbox._desk._db
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_threads_share_commits(path, clock):
    """What twenty threads put at the same time takes fewer transactions than results; each has its own row."""
    with Outbox(path, clock=clock) as outbox:
        begun = []
        outbox._desk._db.set_trace_callback(lambda statement: begun.append(statement.startswith("BEGIN")))
        go, rows = threading.Barrier(20), []

        def unit(number):
            go.wait()
            rows.extend(outbox.put(result(number * 100 + n)) for n in range(20))

        threads = [threading.Thread(target=unit, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outbox.release(rows)

        assert sum(begun) < 400
        assert len({row.id for row in rows}) == 400
        assert {(row.id, row.number) for row in outbox.claim(EU).rows} == {(row.id, row.number) for row in rows}


def test_a_closed_outbox_says_so(path, clock):
    """Whatever is asked of it; closing again is no error."""
    outbox = Outbox(path, clock=clock)
    outbox.close()
    outbox.close()
    for ask in (lambda: outbox.put(result(1)), lambda: outbox.claim(EU), outbox.stock, outbox.dead_letters):
        with pytest.raises(OutboxError, match="closed"):
            ask()
    assert "outbox.db" in repr(outbox)


def test_whoever_is_on_its_way_in_while_it_closes_hears_that(path, clock):
    """It does not open the file again."""
    outbox = Outbox(path, clock=clock)
    desk = outbox._desk
    outbox.close()

    with pytest.raises(OutboxError, match="closed"):
        desk.release([1])


@pytest.mark.parametrize(("span", "error"), [(0, ValueError), (-1, ValueError), (True, ValueError), ("1", TypeError)])
def test_a_claim_needs_a_time(path, span, error):
    """A wrong one is refused with its name."""
    with pytest.raises(error, match="claim_for"):
        Outbox(path, claim_for=span)


def test_d7_the_first_look_takes_what_ran_out_and_later_ones_look_twice():
    """A start comes from no clock jump; what is found later may, and whoever lives renews until the next look."""
    claims = [Claim(1, 100.0, 15.0), Claim(2, 110.0, 15.0)]

    assert Looks().next(claims, 105.0)[0] == [1]

    _, looks = Looks().next(claims, 90.0)
    over, looks = looks.next(claims, 105.0)
    assert over == []
    over, looks = looks.next([Claim(1, 101.0, 15.0), claims[1]], 105.0)  # it lives
    assert over == []
    over, looks = looks.next(claims[:1], 105.0)
    assert over == []
    assert looks.next(claims[:1], 105.0)[0] == [1]


def test_d7_a_claim_too_good_to_be_true_has_run_out():
    """The wall clock was set back: nobody waits an hour for a claim of fifteen seconds."""
    claim = Claim(1, 4000.0, 15.0)

    assert not claim.good(100.0)
    assert claim.good(3985.0)
    assert not claim.good(4000.0)
    assert [claim.due(now) for now in (100.0, 3985.0, 3990.0, 3990.1, 4000.0)] == [True, False, False, True, True]
    assert claim.renewed(100.0) == Claim(1, 115.0, 15.0)


def locked_out(outbox):
    """Another program keeps the file; returns what lets go of it."""
    lock = sqlite3.connect(outbox.path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    return lock


def test_d2_a_row_that_could_not_be_deleted_is_deleted_with_the_next_claim(path, clock):
    """What was taken is not sent once more because the disk was busy at that moment."""
    with Outbox(path, clock=clock) as outbox:
        row = outbox.put(result(1))
        lock = locked_out(outbox)
        with pytest.raises(OutboxError, match="locked"):
            outbox.remove(row)
        lock.close()
        assert outbox.stock()[0].waiting == 1

        outbox.claim(EU)
        assert outbox.stock() == ()


def test_d2_a_row_that_could_not_be_deleted_is_deleted_at_the_close(path, clock):
    """If there was no claim any more."""
    with Outbox(path, clock=clock) as outbox:
        row = outbox.put(result(1))
        lock = locked_out(outbox)
        with pytest.raises(OutboxError, match="locked"):
            outbox.remove(row)
        lock.close()
    with Outbox(path, clock=clock) as outbox:
        assert outbox.stock() == ()


def test_a_close_that_cannot_write_closes_all_the_same(path, clock, caplog):
    """At worst what was delivered last is sent once more."""
    outbox = Outbox(path, clock=clock)
    lock = locked_out(outbox)
    outbox.close()
    lock.close()

    assert "what was delivered last may be sent once more" in caplog.text
    assert "locked" in caplog.text


def test_a_claim_that_cannot_be_written_is_as_if_it_had_not_been(path, clock):
    """The first look is still to come, and who had lost something hears of it then."""
    with Outbox(path, clock=clock) as dead:
        dead.put(result(1))
        clock.advance(15.0)
        with Outbox(path, clock=clock) as outbox:
            lock = locked_out(outbox)
            with pytest.raises(OutboxError, match="locked"):
                outbox.claim(EU)
            lock.close()
            assert numbers(outbox.claim(EU).rows) == [1]


def test_whoever_is_interrupted_while_it_writes_leaves_no_transaction_open(path, clock):
    """The next one finds the outbox as it was."""
    with Outbox(path, clock=clock) as outbox:

        def interrupted(_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            outbox._desk._do(interrupted)
        assert not outbox._desk._db.in_transaction
        assert outbox.put(result(1)).id


def test_a_file_system_without_shared_memory_is_refused(path, monkeypatch):
    """Several processes could not share the outbox there."""
    pragma = database._pragma
    monkeypatch.setattr(database, "_pragma", lambda db, what: "delete" if "WAL" in what else pragma(db, what))

    with pytest.raises(OutboxError, match=r"cannot share memory between processes \(journal_mode is delete\)"):
        Outbox(path)


def test_another_process_that_is_faster_at_making_the_file_is_welcome(path, clock, monkeypatch):
    """Whoever comes second takes what is there."""
    Outbox(path, clock=clock).close()
    pragma, told = database._pragma, iter(["0"])
    monkeypatch.setattr(
        database,
        "_pragma",
        lambda db, what: next(told, pragma(db, what)) if what == "user_version" else pragma(db, what),
    )
    with Outbox(path, clock=clock) as outbox:
        assert outbox.put(result(1)).id


def test_opening_is_tried_again_while_others_make_the_file(path, monkeypatch):
    """For a moment; then it is an error."""
    opened, errors = database._opened, iter([sqlite3.OperationalError("database is locked")])

    def busy(path, *, check):
        for error in errors:
            raise error
        return opened(path, check=check)

    monkeypatch.setattr(database, "_opened", busy)
    Outbox(path).close()


def test_a_forked_child_starts_afresh(path, clock):
    """What the fork hooks do, seen from within one process: a new connection, a new claim, no rows."""
    with Outbox(path, clock=clock) as outbox:
        desk = outbox._desk
        row = outbox.put(result(1))
        desk.before_fork()
        assert desk._db is None
        desk.after_fork()
        assert outbox.put(result(2)).id > row.id

        desk.before_fork()
        outbox_module._after_fork()
        assert outbox.put(result(3)).id
        assert outbox._desk is not desk
        assert outbox.claim(EU).lost == frozenset()


def test_a_child_knows_nothing_of_the_desks_of_its_parent(monkeypatch):
    """They are not closed when it forks again."""
    desks, lock = weakref.WeakSet(), threading.Lock()
    monkeypatch.setattr(desk_module, "_desks", desks)
    monkeypatch.setattr(desk_module, "_all", lock)
    closed = []

    class Fake:
        def before_fork(self):
            closed.append(self)

        def after_fork(self):
            closed.remove(self)

    fake = Fake()
    desks.add(fake)
    desk_module._before_fork()
    assert closed == [fake]
    desk_module._after_fork()
    assert closed == []
    desk_module._before_fork()
    desk_module._in_child()
    assert not desks
    assert not lock.locked()


class WallClock:
    """Jumps both ways."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        """Seconds since the epoch."""
        return self.now


def test_d7_a_row_that_was_lost_and_is_ours_again_at_once_is_kept_like_any_other(tmp_path):
    """Another process took it over and was frozen in turn: both find that out in one look, and renew for it."""
    now = [1000.0]
    with (
        Outbox(tmp_path / "o.db", claim_for=15.0, clock=lambda: now[0]) as first,
        Outbox(tmp_path / "o.db", claim_for=15.0, clock=lambda: now[0]) as second,
    ):
        row = first.put(Row("eu", "http://eu", "k", 1, "x"))
        now[0] += 3600.0
        assert second.claim({"eu": "http://eu"}).rows == (row,)
        now[0] += 3600.0
        found = first.claim({"eu": "http://eu"})

        assert (found.rows, found.lost) == ((row,), frozenset({row.id}))
        assert first._desk._mine == {row.id}


def test_d7_a_process_that_others_have_forgotten_makes_its_claim_again(path):
    """It had no rows while the clock was an hour ahead; what it writes afterwards is its own."""
    clock = WallClock()
    with Outbox(path, clock=clock) as idle, Outbox(path, clock=clock) as other:
        clock.now += 3600.0
        other.claim(EU)
        clock.now -= 3600.0
        idle.put(result(1))

        with Outbox(path, clock=clock) as third:
            assert third.claim(EU).rows == ()
        assert idle.claim(EU).lost == frozenset()


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_d7_a_clock_that_jumps_takes_nothing_from_the_living(path, jump):
    """Whoever looks first after the jump finds all claims bad; by its second look those who live have renewed them."""
    clock = WallClock()
    with Outbox(path, clock=clock) as one, Outbox(path, clock=clock) as other:
        one.put(result(1))
        other.put(result(2))
        for outbox in (one, other):
            outbox.claim(EU)
        clock.now += jump
        for _ in range(4):
            for outbox in (one, other):
                assert outbox.claim(EU) == Claimed()
            clock.now += 5.0


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_d7_a_clock_that_jumps_keeps_nothing_of_the_dead(path, jump):
    """Two looks after the jump their rows are taken over: nobody waits an hour."""
    clock = WallClock()
    with Outbox(path, clock=clock) as dead, Outbox(path, clock=clock) as other:
        dead.put(result(1))
        other.claim(EU)
        clock.now += jump
        assert other.claim(EU).rows == ()
        clock.now += 5.0
        assert numbers(other.claim(EU).rows) == [1]


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_a_file_that_is_made_by_others_while_it_is_looked_at_is_an_outbox(path, monkeypatch, after):
    """Between whichever two looks that happens."""
    looks = itertools.count(1)

    class Watched(sqlite3.Connection):
        def execute(self, *args):
            if next(looks) == after:
                monkeypatch.undo()
                Outbox(path).close()
            return super().execute(*args)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Watched, **options))
    with Outbox(path) as outbox:
        assert outbox.put(result(1)).id


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"path": 3}, "path must be a text or a Path, not 3"),
        ({"path": b"o.db"}, "path must be a text or a Path, not b'o.db'"),
        ({"dump": None}, "dump must be a function, not None"),
        ({"load": "json"}, "load must be a function, not 'json'"),
    ],
)
def test_what_could_not_work_later_is_refused_at_once(tmp_path, wrong, says):
    """Not when the first result has to wait: then it would be in nobody's way but in no file either."""
    with pytest.raises(TypeError, match=says):
        Outbox(**{"path": tmp_path / "o.db", **wrong})

    assert not (tmp_path / "o.db").exists()


@pytest.mark.parametrize("store", [3, "o.db", object()])
def test_a_store_that_is_none_is_refused(store):
    """A path is no store: it has to be opened as an Outbox first."""
    with pytest.raises(TypeError, match="store must be a Store, such as an Outbox, not"):
        Relay([Destination("eu", print)], store=store)


def test_d1_an_identity_that_is_no_text_is_refused():
    """Read back from a file it would be another one, and its rows nobody's."""
    with pytest.raises(TypeError, match="identity must be a str, not 3"):
        Destination("eu", print, identity=3)


def test_r42_every_folder_that_is_made_is_for_this_user_alone(tmp_path, clock):
    """Not the last one alone: whoever may write into the others could put another folder in its place."""
    tmp_path.chmod(0o755)
    umask = os.umask(0)
    try:
        with Outbox(tmp_path / "a" / "b" / "c" / "outbox.db", clock=clock):
            pass
    finally:
        os.umask(umask)

    assert {stat.S_IMODE((tmp_path / folder).stat().st_mode) for folder in ("a", "a/b", "a/b/c")} == {0o700}


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ((0o600, 0o755), None),
        ((0o600, 0o1777), None),
        ((0o640, 0o700), "other users may use the file (its mode is 640): chmod 600 it"),
        ((0o602, 0o700), "other users may use the file (its mode is 602): chmod 600 it"),
        ((0o600, 0o777), "other users may replace the file (the mode of its folder is 777): chmod go-w the folder"),
    ],
)
def test_r42_a_file_that_others_may_use_is_told_of(tmp_path, clock, caplog, modes, said):
    """Results may be secret; a mode may also be meant, so it is left as it is."""
    path = tmp_path / "state" / "outbox.db"
    Outbox(path, clock=clock).close()
    path.chmod(modes[0])
    path.parent.chmod(modes[1])
    caplog.clear()

    Outbox(path, clock=clock).close()

    assert [record.getMessage() for record in caplog.records] == ([] if said is None else [f"outbox '{path}': {said}"])


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({1: "one"}, "a payload of type dict has the key 1, which would come back as a text: convert it with str()"),
        ([{"a": ({None: 1},)}], "a payload of type list has the key None, which would come back as a text"),
        ({("a", 1): 2}, "a payload of type dict cannot be written down: keys must be str"),
        (object(), "a payload of type object cannot be written down: Object of type object is not JSON serializable"),
    ],
)
def test_r19_r36_what_would_not_come_back_the_same_is_refused(path, clock, payload, said):
    """By whoever brought it, and before anything was done: else it were lost in the next outage, or changed by it."""
    sent = []
    with (
        Outbox(path, clock=clock) as outbox,
        Relay([Destination("eu", lambda payload, _: sent.append(payload))], store=outbox) as relay,
    ):
        for bring in (relay.deliver, relay.hand_over):
            with pytest.raises(TypeError, match=re.escape(said)):
                bring("eu", "k", payload)
        assert relay.pending() == 0
        assert relay.deliver("eu", "k", payload, final=False)
    assert sent == [payload]


def test_r19_a_dump_that_makes_neither_text_nor_bytes_is_refused(path, clock):
    """It says what it made."""
    with Outbox(path, clock=clock, dump=lambda payload: payload) as outbox:
        outbox.check("a text")
        with pytest.raises(TypeError, match="dump must make text or bytes of a payload of type dict, not dict"):
            outbox.check({})


@pytest.mark.parametrize("key", [7, ("a", 1), None, b"k"])
def test_r36_a_key_of_a_result_is_a_text(key):
    """Another one would come back as a text after a restart, and be another line then."""
    with Relay([Destination("eu", print)]) as relay, pytest.raises(TypeError, match="key of a result must be a text"):
        relay.deliver("eu", key, {})
