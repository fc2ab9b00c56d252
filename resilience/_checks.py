"""Checks of options: every refusal names the option, the value, and what would do instead."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["check_function", "check_number", "check_whole", "function", "number", "text", "truth", "whole"]

Validator = Callable[[Any, "Attribute[Any]", Any], None]


def check_number(name: str, value: object, *, least: float, exclusive: bool = False) -> None:
    """Refuse ``value`` unless it is a finite number of at least (exclusive: more than) ``least``."""
    if type(value) is float and least < value < math.inf:
        return  # some are checked for every task
    wanted = f"{name} must be a finite number {'above' if exclusive else 'of at least'} {least:g}"
    if isinstance(value, bool):
        raise ValueError(f"{wanted}, not the truth value {value!r}: write a number")  # noqa: TRY004 - house rule
    if not isinstance(value, (int, float)):
        raise TypeError(f"{wanted}, not {value!r} of type {type(value).__name__}: convert it first")
    if not math.isfinite(value) or value < least or (exclusive and value == least):
        raise ValueError(f"{wanted}, not {value!r}: choose a larger, finite one")


def check_whole(name: str, value: object, *, least: int) -> None:
    """Refuse ``value`` unless it is an integer of at least ``least``."""
    wanted = f"{name} must be a whole number of at least {least}"
    if isinstance(value, bool):
        raise ValueError(f"{wanted}, not the truth value {value!r}: write a number")  # noqa: TRY004 - house rule
    if not isinstance(value, int):
        raise TypeError(f"{wanted}, not {value!r} of type {type(value).__name__}: convert it with int()")
    if value < least:
        raise ValueError(f"{wanted}, not {value!r}: choose a larger one")


def text(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """An attrs validator: the field it stands at must be a text."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a text, not {value!r}: convert it with str()")


def check_function(name: str, value: object) -> None:
    """Refuse ``value`` unless it can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {value!r}: hand it over without calling it")


def function(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """An attrs validator that is ``check_function`` for the field it stands at."""
    check_function(attribute.name, value)


def truth(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """An attrs validator: the field it stands at must be a truth value, and not something that passes for one."""
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {value!r}: write the one that is meant")


def number(least: float, *, exclusive: bool = False) -> Validator:
    """An attrs validator that is ``check_number`` for the field it stands at."""
    return lambda _, attribute, value: check_number(attribute.name, value, least=least, exclusive=exclusive)


def whole(least: int) -> Validator:
    """An attrs validator that is ``check_whole`` for the field it stands at."""
    return lambda _, attribute, value: check_whole(attribute.name, value, least=least)
