"""From JSON values to what annotations name: data classes, enums, dates, models, and containers of them (pure).

It builds, and does not check: a value that nothing has to be built from is passed as it comes. Importing cattrs takes
some 40 ms, so that is done for the first annotation that needs it.
"""

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import types
import typing
import uuid
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
)
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["UnbindableError", "builder_of", "without_none"]

Build = Callable[[Any, str], Any]
_FROM_TEXT: dict[type, Callable[[str], object]] = {
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    dt.time: dt.time.fromisoformat,
    decimal.Decimal: decimal.Decimal,
    uuid.UUID: uuid.UUID,
}
_MADE_OF_LISTS: dict[type, Callable[[list[Any]], Any]] = {
    list: list, Sequence: list, MutableSequence: list, Collection: list, Iterable: list,
    set: set, MutableSet: set, frozenset: frozenset, AbstractSet: frozenset,
}  # fmt: skip
_UNIONS = (typing.Union, types.UnionType)


class UnbindableError(ValueError):
    """The task's input does not fit the function's parameters: the same input will never fit, so do not retry."""


class _UnfitError(ValueError):
    """A value that nothing can be built from; the text is the end of a sentence about it."""


def without_none(hint: Any) -> Any:  # noqa: ANN401 - any annotation
    """The one type of an annotation that may also be None; any other annotation as it is."""
    if typing.get_origin(hint) not in _UNIONS:
        return hint
    others = [member for member in typing.get_args(hint) if member is not type(None)]
    return others[0] if len(others) == 1 else hint


def builder_of(hint: Any) -> Build | None:  # noqa: ANN401 - any annotation
    """What makes a value of ``hint`` out of a JSON value and the path to it; None if nothing has to be built.

    It raises `UnbindableError`, whose text names the path to each value that does not fit.
    """
    hint = without_none(hint)
    if not _is_built(hint):
        return None
    try:
        hook = _converter().get_structure_hook(hint)
    except Exception:  # noqa: BLE001 - an annotation that cattrs cannot make sense of: passed as it comes
        return None
    return functools.partial(_build, hook, hint)


def _build(hook: Callable[[Any, Any], Any], hint: Any, value: Any, path: str) -> Any:  # noqa: ANN401 - JSON in, any type out
    from cattrs import transform_error  # noqa: PLC0415 - the hook is its

    try:
        return hook(value, hint)
    except Exception as error:
        told = [line.rpartition(" @ ") for line in transform_error(error, path, _said)]
        problems = "; ".join(f"input {place!r} {problem}" for problem, _, place in told)
        raise UnbindableError(problems) from error


def _said(error: BaseException, _kind: type | None) -> str:
    if isinstance(error, KeyError):
        return "is missing"
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)  # attrs adds what it knows
    return text if isinstance(error, _UnfitError) else f"does not fit: {' '.join(text.split())}"


def _is_built(hint: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether a value of ``hint`` differs from its JSON, or something in it does."""
    if isinstance(hint, type) and (_is_class(hint) or hint in _FROM_TEXT or issubclass(hint, enum.Enum)):
        return True
    return any(_is_built(member) for member in typing.get_args(hint))


def _is_class(hint: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether it is built from an object."""
    return isinstance(hint, type) and (attrs.has(hint) or dataclasses.is_dataclass(hint) or _is_model(hint))


def _is_model(hint: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether it is a model of pydantic, or behaves like one."""
    return isinstance(hint, type) and callable(getattr(hint, "model_validate", None))


@functools.cache
def _converter() -> "Converter":
    from cattrs import Converter  # noqa: PLC0415 - see above

    converter = Converter(use_alias=True, prefer_attrib_converters=True)
    for plain in (str, int, float, bool, bytes):  # "3" for an int is the function's affair: it is not made into 3
        converter.register_structure_hook(plain, _as_it_comes)
    for kind, read in _FROM_TEXT.items():
        converter.register_structure_hook(kind, functools.partial(_from_text, read))
    factories = (
        (lambda hint: _origin(hint) in (dict, Mapping, MutableMapping), _of_mapping),
        (lambda hint: _origin(hint) in _MADE_OF_LISTS or typing.get_args(hint)[1:] == (...,), _of_list),
        (lambda hint: isinstance(hint, type) and issubclass(hint, enum.Enum), _of_enum),
        (lambda hint: _origin(hint) in _UNIONS, _of_union),
        (_is_class, _of_class),
    )
    for fits, factory in factories:
        converter.register_structure_hook_factory(fits, factory)
    return converter


def _origin(hint: Any) -> Any:  # noqa: ANN401 - any annotation
    return typing.get_origin(hint)


def _as_it_comes(value: Any, _hint: Any) -> Any:  # noqa: ANN401 - any value
    return value


def _from_text(read: Callable[[str], object], value: Any, hint: type) -> Any:  # noqa: ANN401 - any value
    if not isinstance(value, str):
        return value
    try:
        return read(value)
    except (ValueError, ArithmeticError):
        raise _UnfitError(f"is {value!r:.80}, which is not a {hint.__name__}") from None


def _of_enum(kind: Any, _converter: "Converter") -> Callable[[Any, Any], Any]:  # noqa: ANN401 - an Enum
    def hook(value: Any, _hint: Any) -> Any:  # noqa: ANN401 - JSON in
        if value is None:
            return None
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(repr(member.value) for member in kind)
            raise _UnfitError(f"is {value!r:.80}, which is not a {kind.__name__}: known are {known:.200}") from None

    return hook


def _of_mapping(hint: Any, converter: "Converter") -> Callable[[Any, Any], Any]:  # noqa: ANN401 - dict[…] and the like
    """As cattrs builds it; what is not an object is passed as it comes."""
    from cattrs.cols import mapping_structure_factory  # noqa: PLC0415 - see above

    build: Any = mapping_structure_factory(hint, converter)
    return lambda value, kind: build(value, kind) if isinstance(value, Mapping) else value


def _of_list(hint: Any, converter: "Converter") -> Callable[[Any, Any], Any]:  # noqa: ANN401 - list[…] and the like
    """As cattrs builds it; what is not a list, such as a text, is passed as it comes."""
    from cattrs.cols import list_structure_factory  # noqa: PLC0415 - see above

    build: Any = list_structure_factory(hint, converter)
    made = _MADE_OF_LISTS.get(_origin(hint), tuple)
    return lambda value, kind: made(build(value, kind)) if isinstance(value, (list, tuple, AbstractSet)) else value


def _of_union(hint: Any, converter: "Converter") -> Callable[[Any, Any], Any]:  # noqa: ANN401 - a union
    """An object becomes the class whose fields it has, a text what is read from texts; what is not clear stays."""
    from cattrs.disambiguators import create_uniq_field_dis_func  # noqa: PLC0415 - see above

    if without_none(hint) is not hint:
        return converter.get_structure_hook(without_none(hint))
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    classes = [member for member in members if _is_class(member)]
    texts = [] if str in members else [member for member in members if _is_built(member) and member not in classes]
    if len(classes) > 1:
        choose: Any = create_uniq_field_dis_func(converter, *classes)
    else:
        choose = lambda _: classes[0]  # noqa: E731 - in the place of the other

    def hook(value: Any, _hint: Any) -> Any:  # noqa: ANN401 - JSON in
        if isinstance(value, Mapping) and classes:
            try:
                kind = choose(value)
            except (TypeError, ValueError):
                return value
            return converter.structure(value, kind)
        return converter.structure(value, texts[0]) if isinstance(value, str) and len(texts) == 1 else value

    return hook


def _of_class(kind: Any, converter: "Converter") -> Callable[[Any, Any], Any]:  # noqa: ANN401 - a class
    """From an object: fields by name, unknown keys ignored, None and instances as they are."""
    build = kind.model_validate if _is_model(kind) else _from_fields(kind, converter)

    def hook(value: Any, _hint: Any) -> Any:  # noqa: ANN401 - JSON in
        if value is None or isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise _UnfitError(f"is of type {type(value).__name__}, {kind.__name__} needs an object")
        return build(value)

    return hook


def _from_fields(kind: Any, converter: "Converter") -> Callable[[Mapping[str, Any]], Any]:  # noqa: ANN401 - a class
    from cattrs.gen import make_dict_structure_fn  # noqa: PLC0415 - see above

    try:
        build: Any = make_dict_structure_fn(kind, converter)
    except (NameError, AttributeError, TypeError):  # annotations for type checkers only: the fields as they come
        fields: Any = attrs.fields(kind) if attrs.has(kind) else dataclasses.fields(kind)
        names = [getattr(field, "alias", None) or field.name for field in fields if field.init]
        return lambda value: kind(**{name: value[name] for name in names if name in value})
    return lambda value: build(value, kind)
