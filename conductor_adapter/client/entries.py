"""Reading a JSON list entry by entry, so that an invalid or huge entry does not affect the others. Pure.

Python's JSON reader holds the GIL until it has read everything: seconds for a body of 60 MB, during which no other
thread runs. And it reads everything or nothing. Here the ends of values are found first, in short steps; each value is
then passed to that reader in pieces of bounded size.
"""

import functools
import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import attrs

__all__ = ["MAX_ENTRY_BYTES", "SMALL", "TEXTS", "Unreadable", "read_entries", "read_object"]

MAX_ENTRY_BYTES = 16 * 2**20  # a Conductor server itself accepts only about 10 MiB for one payload
MAX_CONTAINERS = 1_000_000  # lists and objects of an entry: about 60 MB, which Python's garbage collector traverses
MAX_ANSWER_CONTAINERS = 4 * MAX_CONTAINERS
SMALL = 512 * 1024  # bytes passed to Python's reader at once: 1 to 60 ms, whatever they contain
MAX_STEPS = 100_000  # for an answer, in Python: at most a second; all but very odd ones need a few per entry
TEXTS = ("taskId", "workflowInstanceId", "taskType")
MAX_MEMBERS = 500  # of an entry; a task has about fifty
MAX_TEXT_BYTES = 1000
MAX_TO_GUESS = 100  # lists and objects of a piece; with more they are counted exactly
_Always = Callable[..., "re.Match[bytes]"]  # these always match, if only the empty string
_WINDOW = 64 * 1024  # bytes for one match, which holds the GIL
_LEVELS = 16  # levels of nesting that one match can handle

# Atomic groups, not possessive repeats of groups: Python 3.11.0 to 3.11.4 match too much with those (gh-106052).
_STRING = rb'"[^"\\]*+(?>(?:\\.[^"\\]*+)*)"'
_string = re.compile(_STRING, re.DOTALL)
_text: _Always = re.compile(rb'(?>(?:[^"\\]++|\\.)*)', re.DOTALL).match  # type: ignore[assignment]
_scalar: _Always = re.compile(rb'[^"\[\]{},\s]*').match  # type: ignore[assignment]
_space: _Always = re.compile(rb"[ \t\n\r]*").match  # type: ignore[assignment]


@functools.cache
def _nested() -> tuple[Callable[..., "re.Match[bytes] | None"], _Always, _Always]:
    """What matches a value; all up to a value that is nested too deeply; and the members before such a one.

    Compiled for the first body that is read with care: it takes 15 ms, which every start would pay for.
    """
    nested = _STRING
    for _ in range(_LEVELS):
        nested = rb'%s|[\[{][^"\[\]{}]*+(?>(?:(?:%s)[^"\[\]{}]*+)*)[\]}]' % (_STRING, nested)
    value = re.compile(nested, re.DOTALL).match
    run: Any = re.compile(rb'[^"\[\]{}]*+(?>(?:(?:%s)[^"\[\]{}]*+)*)' % nested, re.DOTALL).match
    items: Any = re.compile(rb'(?>(?:[^",\[\]{}]*+(?>(?:(?:%s)[^",\[\]{}]*+)*),)*)' % nested, re.DOTALL).match
    return value, run, items


class EndOfReadingError(ValueError):
    """The rest is not read: it would not be worth the time, or it exceeds the limits of one answer."""


@attrs.frozen
class Unreadable:
    """A value that cannot be read.

    Attributes:
        problem: the reason, for people.
        fields: its members named in `TEXTS` that can be read: short texts.
    """

    problem: str
    fields: Mapping[str, Any] = attrs.field(factory=dict)


NO_OBJECT = Unreadable("it is not an object")


def read_entries(body: bytes) -> Iterator[Any]:
    """The objects of a list, each read on demand; an `Unreadable` for an entry that cannot be read or is not an object.

    Raises:
        ValueError: the body is not a list, or is so damaged at this place that the rest cannot be parsed.
    """
    scan = _Scan(body)
    at = scan.begin()
    if body[at : at + 1] != b"[":
        raise ValueError("it is not a list")
    at = scan.after_space(at + 1)
    more = body[at : at + 1] != b"]"
    while more:
        value, end = scan.read(at, MAX_MEMBERS) if body[at : at + 1] == b"{" else (NO_OBJECT, scan.end_of_value(at))
        yield value
        at = scan.after_space(end)
        more = body[at : at + 1] == b","
        at = scan.after_space(at + more)
    if body[at : at + 1] != b"]":
        raise ValueError("the list does not end")
    if scan.after_space(at + 1) != len(body):
        raise ValueError("something follows the list")


def read_object(body: bytes, *, most: int = MAX_ENTRY_BYTES, members: float = MAX_MEMBERS) -> Any:  # noqa: ANN401 - JSON
    """The body's only value, which is an object; an `Unreadable` if it cannot be read.

    Args:
        body: the body.
        most: its maximum size in bytes.
        members: the maximum number of members, if it is large.

    Raises:
        ValueError: the body is not an object.
    """
    scan = _Scan(body, most)
    at = scan.begin()
    if body[at : at + 1] != b"{":
        raise ValueError("it is not an object")
    value, end = scan.read(at, members)
    if scan.after_space(end) != len(body):
        raise ValueError("something follows the object")
    return value


class _Scan:
    """A scan through one body, with a limited number of steps."""

    def __init__(self, body: bytes, most: int = MAX_ENTRY_BYTES) -> None:
        self._body = body
        self._most = most  # maximum bytes of an entry
        self._steps = MAX_STEPS
        self._all_containers = MAX_ANSWER_CONTAINERS
        self._containers = 0  # left for the entry
        self._limit = 0  # where it must end
        self._value, self._run, self._items = _nested()

    def begin(self) -> int:
        """Where the first value begins; a byte order mark is skipped, as by Python's own reader."""
        return self.after_space(len(BOM_UTF8) if self._body.startswith(BOM_UTF8) else 0)

    def after_space(self, at: int) -> int:
        """Where the white space that begins there, if any, ends."""
        return _space(self._body, at).end()

    def end_of_value(self, at: int) -> int:
        """Where the value that begins there ends; whether it is valid JSON is decided by the reader."""
        body, depth = self._body, 0
        while True:
            self._step()
            begin = body[at : at + 1]
            if begin == b'"':
                at = self._end_of_text(at)
            elif begin in (b"[", b"{"):
                depth += 1
                at += 1
            elif begin in (b"]", b"}") and depth:
                depth -= 1
                at += 1
            elif not depth:
                at = self._end_of_scalar(at)
            elif not begin:
                raise ValueError("it does not end")
            if not depth:
                return at
            at = self._run(body, at, at + _WINDOW).end()

    def read(self, at: int, members: float) -> tuple[Any, int]:
        """The value that begins there, an `Unreadable` if it cannot be read, and where it ends.

        Raises:
            ValueError: its end cannot be found, or that would take too long: it is large, with too many ``members``.
        """
        self._limit = at + self._most
        self._containers = min(MAX_CONTAINERS, self._all_containers)
        before = self._containers
        try:
            return self._read(at, members)
        except EndOfReadingError:
            raise
        except RecursionError:
            problem = "it is nested too deeply"
        except ValueError as error:
            problem = str(error)
        finally:
            self._all_containers -= before - self._containers
        return self._unreadable(at, problem)

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise ValueError("it is nested too deeply, too often, for this worker to read it")

    def _loads(self, at: int, end: int, around: tuple[str, str] = ("", "")) -> Any:  # noqa: ANN401 - JSON is anything
        if end > self._limit:
            raise ValueError(f"it is larger than the {self._most} bytes that this worker reads")
        piece = self._body[at:end]
        self._containers -= _containers(piece)
        if self._containers < 0 and self._all_containers < MAX_CONTAINERS:  # earlier entries have used them up
            raise EndOfReadingError(
                f"it and the entries before it have more than the {MAX_ANSWER_CONTAINERS} lists and objects that this"
                " worker reads in one answer"
            )
        if self._containers < 0:
            raise ValueError(f"it has more than the {MAX_CONTAINERS} lists and objects that this worker reads")
        return json.loads(piece.decode("utf-8", "surrogatepass").join(around))

    def _read(self, at: int, members: float = math.inf) -> tuple[Any, int]:
        """The value that begins there, read in pieces if it is large, and where it ends."""
        begin = self._body[at : at + 1]
        if found := self._value(self._body, at, at + _WINDOW):
            return self._loads(at, found.end()), found.end()
        if begin == b"[":
            return self._container(at, [], ("[", "]"))
        if begin == b"{":
            return self._container(at, {}, ("{", "}"), members)
        end = self._end_of_text(at) if begin == b'"' else self._end_of_scalar(at)
        return self._loads(at, end), end

    def _container(
        self,
        at: int,
        whole: Any,  # noqa: ANN401 - list or dict
        around: tuple[str, str],
        members: float = math.inf,
    ) -> tuple[Any, int]:
        """The list or object that begins there; consecutive small members are read at once."""
        body, close, named = self._body, around[1].encode(), isinstance(whole, dict)
        add = whole.update if named else whole.extend
        at += 1
        while True:
            self._step()
            end = self._items(body, at, at + _WINDOW).end()
            if end > at:
                part = self._loads(at, end - 1, around)
                if not part:
                    raise ValueError("a value is missing between two commas")
                add(part)
                if len(whole) > members:
                    raise EndOfReadingError(
                        f"an object with more than {members} members is not a task, and the rest is not read"
                    )
            at, key = self.after_space(end), ""
            if named:
                key, at = self._key(at)
            value, at = self._read(at)
            add(((key, value),) if named else (value,))
            at = self.after_space(at)
            if body[at : at + 1] != b",":
                break
            at += 1
        if body[at : at + 1] != close:
            raise ValueError("a comma or the end of an object or list is missing")
        return whole, at + 1

    def _key(self, at: int) -> tuple[str, int]:
        """The key at this position, and where its value begins."""
        body, at = self._body, self.after_space(at)
        if body[at : at + 1] != b'"':
            raise ValueError("a key is missing")
        end = self._end_of_text(at)
        key, at = self._loads(at, end), self.after_space(end)
        if body[at : at + 1] != b":":
            raise ValueError("a colon is missing")
        return key, self.after_space(at + 1)

    def _end_of_text(self, at: int) -> int:
        body, at = self._body, at + 1
        end = body.find(b'"', at)
        if end >= 0 and body.find(b"\\", at, end) < 0:
            return end + 1
        while body[at : at + 1] != b'"':
            self._step()
            begin, at = at, _text(body, at, at + _WINDOW).end()
            if at == begin:
                raise ValueError("a text does not end")
        return at + 1

    def _end_of_scalar(self, at: int) -> int:
        end = _scalar(self._body, at).end()
        if end == at:
            raise ValueError("a value is missing")
        return end

    def _unreadable(self, at: int, problem: str) -> tuple[Unreadable, int]:
        """The error for the value that begins there, and where it ends."""
        fields: dict[str, str] = {}
        end = None
        self._limit = self._containers = len(self._body)
        with suppress(ValueError):  # damaged inside; its end might still be found
            end = self._end_of_members(at, fields)
        return Unreadable(problem, fields), self.end_of_value(at) if end is None else end

    def _end_of_members(self, at: int, fields: dict[str, str]) -> int | None:
        """Where the object that begins there ends, if it has few enough members; fills in ``fields``."""
        for _ in range(MAX_MEMBERS):
            key, at = self._key(at + 1)
            end = self.end_of_value(at)
            if key in TEXTS and end - at <= MAX_TEXT_BYTES and self._body[at : at + 1] == b'"':
                fields[key] = self._loads(at, end)
            at = self.after_space(end)
            if self._body[at : at + 1] == b"}":
                return at + 1
            if self._body[at : at + 1] != b",":
                return None
        return None


def _containers(piece: bytes) -> int:
    """The number of lists and objects in a piece, not counting brackets within strings."""
    if len(piece) > _WINDOW:
        return 0  # a text
    count = piece.count(b"[") + piece.count(b"{")
    if count < MAX_TO_GUESS:
        return count
    bare = _string.sub(b"", piece)
    return bare.count(b"[") + bare.count(b"{")
