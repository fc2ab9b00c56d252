"""``conductor-adapter outbox``: what waits in the file of results, and what becomes of its dead letters.

A worker may be running on the same file: it has what is sent again within seconds.
"""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import platformdirs
from rich.console import Console
from rich.table import Table

from conductor_adapter.cli.lines import counted
from conductor_adapter.cli.streams import say, written
from conductor_adapter.cli.usage import refusing
from conductor_adapter.protocol import one_line
from conductor_adapter.running.outbox import open_outbox
from resilience import DeadLetter, Outbox, OutboxError, Stock

__all__ = ["NO_OUTBOX", "outbox_path", "purge", "retry", "show"]

NO_OUTBOX = "none"
_NAME = "conductor-adapter"
_ALL: Sequence[str | None] = (None,)
_NOTHING = 1  # exit status: there was nothing of what was named


def outbox_path(given: str) -> Path | None:
    """The file that ``--outbox`` names: the user's own if it is empty, None if it says ``none``.

    Raises:
        ValueError: a user without a home directory has none of their own.
    """
    if given == NO_OUTBOX:
        return None
    return Path(given) if given else _own_folder() / "outbox.db"


def show(given: str, servers: Collection[str], *, as_json: bool) -> int:
    """Say what waits for each server, and every dead letter with its reason."""
    with _opened(given) as outbox, written():
        stocks = [stock for stock in outbox.stock() if not servers or stock.destination in servers]
        letters = [letter for letter in outbox.dead_letters() if not servers or letter.row.destination in servers]
        if as_json:
            _print_objects(stocks, letters)
        else:
            _print(outbox.path, stocks, letters)
    return 0


def retry(given: str, servers: Sequence[str], ids: Collection[int]) -> int:
    """Let dead letters be sent again; exit status 1 if there is none like that."""
    with _opened(given) as outbox:
        revived = sum(outbox.revive(server, ids=ids or None) for server in servers or _ALL)
    say(f"{counted(revived, 'dead letter')} will be sent again: by a worker that runs, or the next one that does")
    return 0 if revived else _NOTHING


def purge(given: str, servers: Sequence[str], ids: Collection[int], *, waiting: bool, sure: bool) -> int:
    """Delete dead letters, or what waits for ``servers`` and no worker has; exit status 1 if there is none of it."""
    with refusing():
        if waiting and (ids or not servers):
            raise ValueError("--waiting deletes results that no server has: name whose with --server, and no ids")
        if not sure:
            raise ValueError("what is purged is gone for good: look at 'outbox list', then repeat this with --yes")
    with _opened(given) as outbox:
        if waiting:
            deleted, what = sum(map(outbox.discard, servers)), "waiting result"
        else:
            deleted, what = sum(outbox.purge(server, ids=ids or None) for server in servers or _ALL), "dead letter"
    say(f"{counted(deleted, what)} deleted")
    return 0 if deleted else _NOTHING


def _own_folder() -> Path:
    try:
        folder = platformdirs.user_state_path(_NAME)
    except RuntimeError as error:
        raise ValueError(f"{error}; or name a file with --outbox, or '--outbox {NO_OUTBOX}'") from None
    if not folder.is_absolute():  # what platformdirs makes of it depends on its version
        raise ValueError(
            f"there is no home directory: set HOME, or name a file with --outbox, or '--outbox {NO_OUTBOX}'"
        )
    return folder


@contextmanager
def _opened(given: str) -> Iterator[Outbox]:
    """The outbox, which must be there: one that a typing error makes would be empty and tell nothing."""
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
        raise ValueError(f"--outbox is {NO_OUTBOX!r}: name the file that the workers were given")
    try:
        path.stat()
    except FileNotFoundError:
        raise ValueError(f"there is no outbox at {path}: no worker has made it; --outbox names another one") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ValueError(f"the outbox {str(path)!r} cannot be looked at: {said}; --outbox names another one") from None
    return path


def _print_objects(stocks: Sequence[Stock], letters: Sequence[DeadLetter]) -> None:
    for stock in stocks:
        print(json.dumps({"kind": "server", **attrs.asdict(stock)}))  # noqa: T201 - output of a command
    for letter in letters:
        row = {"id": letter.row.id, "server": letter.row.destination, "task": letter.row.key}
        print(json.dumps({"kind": "dead letter", **row, "at": letter.at, "reason": letter.reason}))  # noqa: T201 - likewise


def _print(path: Path, stocks: Sequence[Stock], letters: Sequence[DeadLetter]) -> None:
    if not stocks:
        print(f"{path}: empty")  # noqa: T201 - output of a command
        return
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    heads = [(stock.destination, stock.identity, str(stock.waiting), str(stock.dead)) for stock in stocks]
    _print_rows(console, ("server", "url", "waiting", "dead letters"), heads)
    if letters:
        _print_rows(console, ("id", "server", "refused at", "task", "reason"), [_columns(letter) for letter in letters])


def _columns(letter: DeadLetter) -> Sequence[str]:
    row = letter.row
    return str(row.id), row.destination, _when(letter.at), one_line(row.key), one_line(letter.reason)


def _print_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal, else a line each with its columns apart by two spaces."""
    if not console.is_terminal:
        for row in rows:
            print("  ".join(row))  # noqa: T201 - output of a command
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
