"""Validation of options: every error names the option, the value, and what to write instead."""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = [
    "DATA",
    "check_function",
    "check_number",
    "check_plain",
    "check_whole",
    "is_async",
    "number",
    "plain",
    "refuse_unrun",
    "teaches_options",
    "text",
    "truth",
    "whole",
]

C = TypeVar("C")
DATA = frozenset({type(None), bool, int, float, str, bytes, list, dict, tuple})
"""The types that most calls return: looking here is cheaper than finding out that there is nothing to await."""

Validator = Callable[[Any, "Attribute[Any]", Any], None]


def check_number(name: str, value: object, *, least: float, exclusive: bool = False) -> None:
    """Raise unless ``value`` is a finite number of at least (exclusive: more than) ``least``."""
    if type(value) is float and least < value < math.inf:
        return  # the fast path: some are checked for every task
    wanted = f"{name} must be a finite number {'above' if exclusive else 'of at least'} {least:g}"
    if isinstance(value, bool):
        raise ValueError(f"{wanted}, not the bool {value!r}: write a number")  # noqa: TRY004 - house rule
    if not isinstance(value, (int, float)):
        raise TypeError(f"{wanted}, not {value!r} of type {type(value).__name__}: convert it first")
    if not math.isfinite(value) or value < least or (exclusive and value == least):
        raise ValueError(f"{wanted}, not {value!r}: choose a larger, finite one")


def check_whole(name: str, value: object, *, least: int) -> None:
    """Raise unless ``value`` is an integer of at least ``least``."""
    wanted = f"{name} must be a whole number of at least {least}"
    if isinstance(value, bool):
        raise ValueError(f"{wanted}, not the bool {value!r}: write a number")  # noqa: TRY004 - house rule
    if not isinstance(value, int):
        raise TypeError(f"{wanted}, not {value!r} of type {type(value).__name__}: convert it with int()")
    if value < least:
        raise ValueError(f"{wanted}, not {value!r}: choose a larger one")


def text(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """An attrs validator: the field must be a str."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a str, not {value!r}: convert it with str()")


def check_function(name: str, value: object) -> None:
    """Raise unless ``value`` is callable."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {value!r}: pass the function itself, without parentheses")


_RUN = (list, tuple, dict, str, bytes, int, float, bool)
_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def is_async(function: object) -> bool:
    """Whether calling ``function`` only returns something that must be awaited. Cheap: used for every call."""
    return bool(_flags(function) & _ASYNC)


def _flags(function: object) -> int:
    """The flags of the code that a call runs; 0 if it is not Python code."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:  # an object, whose class may define it
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004 - not to call it
    flags = getattr(code, "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def check_plain(name: str, value: object, *, generator: bool = False) -> None:
    """Raise unless ``value`` is a function that has done its work when it returns.

    Args:
        name: the option.
        value: the value given.
        generator: whether a generator function is accepted too.
    """
    if (flags := _flags(value)) and not flags & (_ASYNC | inspect.CO_GENERATOR):
        return  # the fast path: this is checked for every call
    check_function(name, value)
    inner: Any = value
    while isinstance(inner, functools.partial):
        inner = inner.func
    for code in (inner, type(inner).__call__):
        if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
            raise TypeError(
                f"{name} must be a plain function, not the async function {value!r}: it is called in a thread, where"
                " nothing awaits it; write `def`, and asyncio.run(...) inside if it has to await something"
            )
        if inspect.isgeneratorfunction(code) and not generator:
            raise TypeError(
                f"{name} must be a plain function, not the generator function {value!r}: its body would not run;"
                " use return instead of yield"
            )


def plain(*, generator: bool = False) -> Validator:
    """An attrs validator: ``check_plain`` for the field."""
    return lambda _, attribute, value: check_plain(attribute.name, value, generator=generator)


def refuse_unrun(name: str, value: object, *, generator: bool = False) -> None:
    """Raise if the function given as ``name`` returned an awaitable or a generator that has not run.

    A coroutine is closed, so that there is no warning that it was never awaited.

    Raises:
        TypeError: ``value`` is an awaitable or a generator.
    """
    if value is None or type(value) in _RUN:
        return  # the fast path
    if not (inspect.isawaitable(value) or inspect.isasyncgen(value) or (inspect.isgenerator(value) and not generator)):
        return
    if inspect.iscoroutine(value):
        value.close()
    raise TypeError(
        f"{name} returned a {type(value).__name__!r}, which has not run: it is called in a thread, where nothing awaits"
        " or iterates what it returns; do the work before returning, with asyncio.run(...) if necessary"
    )


def teaches_options(**nested: type) -> Callable[[type[C]], type[C]]:
    """A decorator for an attrs class of options: an unknown option raises an error that suggests what to write instead.

    Args:
        nested: by name, options that are such classes themselves; their options are suggested too.
    """

    def teach(cls: type[C]) -> type[C]:
        known = [field.alias or field.name for field in attrs.fields(cls) if field.init]  # type: ignore[arg-type]
        init = cls.__init__

        @functools.wraps(init)
        def checked(self: C, *arguments: object, **options: object) -> None:
            for name, value in options.items():
                if name not in known:
                    raise TypeError(_advice(cls.__name__, known, nested, name, value))
            init(self, *arguments, **options)

        cls.__init__ = checked  # type: ignore[method-assign, assignment]
        return cls

    return teach


def _advice(owner: str, known: list[str], nested: Mapping[str, type], name: str, value: object) -> str:
    """What to write instead of an option that ``owner`` does not have."""
    options = {f"{own}=": own for own in known}
    for outer, kind in nested.items():
        options |= {f"{outer}={kind.__name__}({f.name}=": f.name for f in attrs.fields(kind)}
    same = [start for start, own in options.items() if own == name]
    part = [start for start, own in options.items() if name in own.split("_") or own in name.split("_")]
    alike = difflib.get_close_matches(name, options.values())
    near = [start for start, own in options.items() if own in alike]
    told = same or list(dict.fromkeys([*part, *near]))
    if not told:
        return f"{owner} has no option {name!r}: it has {', '.join(known)}"
    shown = repr(value) if isinstance(value, (int, float)) else "..."  # a str might be a secret
    written = [f"{start}{shown}{')' if '(' in start else ''}" for start in told[:3]]
    return f"{owner} has no option {name!r}: write {' or '.join(written)}"


def truth(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """An attrs validator: the field must be a bool, not just any truthy or falsy value."""
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {value!r}: write one of them")


def number(least: float, *, exclusive: bool = False) -> Validator:
    """An attrs validator: ``check_number`` for the field."""
    return lambda _, attribute, value: check_number(attribute.name, value, least=least, exclusive=exclusive)


def whole(least: int) -> Validator:
    """An attrs validator: ``check_whole`` for the field."""
    return lambda _, attribute, value: check_whole(attribute.name, value, least=least)
