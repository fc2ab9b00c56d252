"""``conductor-adapter outbox``: shows the results that are waiting in an outbox, and manages its dead letters.

A worker can be running on the same file: it sends a revived dead letter within seconds.
"""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import platformdirs
from rich.console import Console
from rich.table import Table

from conductor_adapter.cli.lines import counted, without_name
from conductor_adapter.cli.streams import put, say, written
from conductor_adapter.cli.usage import refusing
from conductor_adapter.running.outbox import open_outbox
from conductor_adapter.settings.server_settings import ServerSettings
from resilience import DeadLetter, Outbox, OutboxError, Stock
from resilience._texts import one_line, printable

__all__ = ["NO_OUTBOX", "elsewhere", "outbox_path", "purge", "retry", "show"]

NO_OUTBOX = "none"
_NAME = "conductor-adapter"
_ALL: Sequence[str | None] = (None,)
_NOTHING = 1  # exit status: nothing matched
_NO_LETTER = f"no matching dead letter: see '{_NAME} outbox list'"


def outbox_path(given: str) -> Path | None:
    """The file that ``--outbox`` names: the user's own if it is empty, None if it says ``none``.

    Raises:
        ValueError: the user has no home directory for a default; or the name is blank; or the default is a symbolic
            link.
    """
    if given and not given.strip():
        raise ValueError(f"--outbox is {given!r}: name a file, or leave it out")
    if given == NO_OUTBOX:
        return None
    if given:
        return Path(given)
    path = _own_folder() / "outbox.db"
    for place in (path.parent, path):
        if place.is_symlink():
            raise ValueError(f"{place}, the default, is a symbolic link: remove it, or name the file with --outbox")
    return path


def elsewhere(path: Path | None, servers: Iterable[ServerSettings]) -> dict[str, str]:
    """By server, a sentence about results claimed by another process: a killed one keeps its claim for a while."""
    if path is None:
        return {}
    ours = {(server.name, server.identity) for server in servers}
    with open_outbox(path) as outbox:
        taken = {one.destination: _taken(one) for one in outbox.stock() if (one.destination, one.identity) in ours}
        within = outbox.claim_for * 4 / 3  # a worker looks for such results after every third
    return {
        name: f"another worker has claimed {counted(count, 'result')} for this server in the outbox; if that worker was"
        f" killed, this one will send them within {within:g} s"
        for name, count in taken.items()
        if count
    }


def show(given: str, servers: Collection[str], *, as_json: bool) -> int:
    """Print the number of waiting results for each server, and every dead letter with its reason."""
    with _opened(given) as outbox, written():
        found = outbox.stock()
        stocks = [stock for stock in found if not servers or stock.destination in servers]
        letters = [letter for letter in outbox.dead_letters() if not servers or letter.row.destination in servers]
        if as_json:
            _print_objects(stocks, letters)
        elif found and not stocks:
            put(f"{outbox.path}: {_nothing_of(servers, found)}")
        else:
            _print(outbox, stocks, letters)
    return 0


def retry(given: str, servers: Sequence[str], ids: Collection[int]) -> int:
    """Let dead letters be sent again; exit status 1 if none matches."""
    with _opened(given) as outbox:
        revived = sum(outbox.revive(server, ids=ids or None) for server in servers or _ALL)
    if not revived:
        say(_NO_LETTER)
        return _NOTHING
    say(f"{counted(revived, 'dead letter')} will be retried by the running worker, or by the next one to start")
    return 0


def purge(given: str, servers: Sequence[str], ids: Collection[int], *, waiting: bool, sure: bool) -> int:
    """Delete dead letters, or unclaimed results waiting for ``servers``; exit status 1 if nothing matches."""
    with refusing():
        if waiting and (ids or not servers):
            raise ValueError("--waiting deletes results that were not delivered: it needs --server NAME, and no IDs")
        if not sure:
            raise ValueError("purging is permanent: check 'outbox list', then repeat the command with --yes")
    with _opened(given) as outbox:
        if waiting:
            deleted, what = sum(map(outbox.discard, servers)), "waiting result"
        else:
            deleted, what = sum(outbox.purge(server, ids=ids or None) for server in servers or _ALL), "dead letter"
    if not deleted and not waiting:
        say(_NO_LETTER)
        return _NOTHING
    say(f"{counted(deleted, what)} deleted")
    return 0 if deleted else _NOTHING


def _own_folder() -> Path:
    try:
        folder = platformdirs.user_state_path(_NAME)
    except RuntimeError as error:
        raise ValueError(f"{error}; or name a file with --outbox, or '--outbox {NO_OUTBOX}'") from None
    if not folder.is_absolute():  # platformdirs' behaviour here depends on its version
        raise ValueError(
            f"there is no home directory: set HOME, or name a file with --outbox, or '--outbox {NO_OUTBOX}'"
        )
    return folder


@contextmanager
def _opened(given: str) -> Iterator[Outbox]:
    """The outbox, which must exist: one that is created because of a typo would be empty and misleading."""
    with refusing():
        outbox = open_outbox(_there(given))
    try:
        with outbox:
            yield outbox
    except OutboxError as error:  # it was usable when it was opened
        with refusing():
            raise error from None


def _there(given: str) -> Path:
    path = outbox_path(given)
    if path is None:
        raise ValueError(f"--outbox is {NO_OUTBOX!r}: name the file that the workers use")
    try:
        path.stat()
    except FileNotFoundError:
        raise ValueError(f"there is no outbox at {path}: no worker has made one; name another with --outbox") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ValueError(f"outbox {str(path)!r} cannot be read: {said}; name another with --outbox") from None
    return path


def _print_objects(stocks: Sequence[Stock], letters: Sequence[DeadLetter]) -> None:
    for stock in stocks:
        print(json.dumps({"kind": "server", **attrs.asdict(stock)}))  # noqa: T201 - output of a command
    for letter in letters:
        row = {"id": letter.row.id, "server": letter.row.destination, "task": letter.row.key}
        print(json.dumps({"kind": "dead letter", **row, "at": letter.at, "reason": letter.reason}))  # noqa: T201 - likewise


def _nothing_of(servers: Collection[str], found: Sequence[Stock]) -> str:
    """The text for names that are not in the outbox: they are likely typos."""
    there = ", ".join(dict.fromkeys(stock.destination for stock in found))
    return f"nothing for {', '.join(servers)}; the outbox has entries for {there}"


def _taken(stock: Stock) -> int:
    return stock.waiting - stock.free


def _print(outbox: Outbox, stocks: Sequence[Stock], letters: Sequence[DeadLetter]) -> None:
    if not stocks:
        put(f"{outbox.path}: empty")
        return
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if console.is_terminal:
        heads = [(stock.destination, stock.identity, str(stock.waiting), str(stock.dead)) for stock in stocks]
        _print_table(console, ("server", "url", "waiting", "dead letters"), heads)
    else:
        _print_lines((one.destination, one.identity, *_amounts(one)) for one in stocks)
    if taken := sum(map(_taken, stocks)):
        put(
            f"{taken} of the waiting results: claimed by a running worker, or by one killed less than"
            f" {outbox.claim_for:g} s ago"
        )
    _print_letters(console, letters)


def _amounts(stock: Stock) -> Sequence[str]:
    return f"{stock.waiting} waiting", counted(stock.dead, "dead letter")


def _print_letters(console: Console, letters: Sequence[DeadLetter]) -> None:
    """Print a table on a terminal, with the reasons below it because they are long; else one line for each."""
    rows = [_columns(letter) for letter in letters]
    if not console.is_terminal:
        _print_lines(rows)
    elif rows:
        _print_table(console, ("id", "server", "refused at", "task"), [row[:-1] for row in rows])
        for row in rows:
            console.print(f"{row[0]}: {row[-1]}")


def _columns(letter: DeadLetter) -> Sequence[str]:
    row = letter.row
    reason = one_line(without_name(letter.reason, row.destination, row.key))
    return str(row.id), row.destination, _when(letter.at), one_line(row.key), reason


def _print_lines(rows: Iterable[Sequence[str]]) -> None:
    """Print one line per row, with two spaces between columns."""
    for row in rows:
        put(*row)


def _print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
