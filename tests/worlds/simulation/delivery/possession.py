"""Lets the real program run on a virtual machine: its modules are given other threads, clocks, dice and queues."""

import inspect
import logging
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue as RealQueue
from types import ModuleType
from typing import Any

from greenlet import getcurrent

import conductor_adapter.running  # noqa: F401
import resilience  # noqa: F401 - both: so that all is there that is looked through

from .disk import Sqlite
from .machine import Machine, Strand
from .primitives import Event, SimpleQueue, Threading

ROOMS = (
    "resilience.",
    "conductor_adapter.running.",
    "conductor_adapter.transports.base",
    "conductor_adapter.client.operations",
)
KEPT = ("resilience.testing", "resilience.registry", "resilience.breaker")  # their locks are held for moments only
CLOCKS = {time.monotonic: "monotonic", time.time: "time"}
_current: list[Machine] = []


class Time:
    """Stands in the place of the module ``time``."""

    @staticmethod
    def monotonic() -> float:
        """The monotonic clock of the process that asks."""
        strand = getcurrent()
        return strand.process.monotonic() if type(strand) is Strand else _current[-1].now

    @staticmethod
    def time() -> float:
        """The wall clock, which all processes share."""
        machine = _current[-1]
        return machine.wall + machine.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Random:
    """Stands in the place of the module ``random``: nothing is drawn but from the machine's seed."""

    @staticmethod
    def Random(seed: object = None) -> random.Random:  # noqa: N802 - like the real one
        """A generator."""
        return random.Random(_current[-1].rng.getrandbits(32) if seed is None else seed)

    @staticmethod
    def random() -> float:
        """A draw of the shared generator."""
        return _current[-1].rng.random()

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)


def _stand_in(value: object) -> object | None:
    if isinstance(value, ModuleType):
        return {threading: Threading(), time: Time(), random: Random(), sqlite3: Sqlite()}.get(value)
    if value is RealQueue:
        return SimpleQueue
    if isinstance(value, threading.Event):  # of a module: nobody ever sets it
        return Event()
    return Event if value is threading.Event else None


def _modules() -> list[ModuleType]:
    return [module for name, module in sorted(sys.modules.items()) if name.startswith(ROOMS) and module is not None]


def _places() -> list[tuple[dict[str, Any], str, Any]]:
    """Every name that is to mean something else, with what."""
    places: list[tuple[dict[str, Any], str, Any]] = []
    for module in _modules():
        for name, value in vars(module).items():
            stand_in = _stand_in(value)
            if stand_in is not None and (module.__name__ not in KEPT or value is random):
                places.append((vars(module), name, stand_in))
        for made in vars(module).values():
            if inspect.isclass(made) and made.__module__ == module.__name__:
                places += [place for method in vars(made).values() for place in _defaults(method)]
            elif inspect.isfunction(made) and made.__module__ == module.__name__:
                places += _defaults(made)
    return places


def _defaults(function: object) -> list[tuple[dict[str, Any], str, Any]]:
    """The clocks that a function takes if it is given none."""
    given: dict[str, Any] = getattr(function, "__kwdefaults__", None) or {}
    known = {name: value for name, value in given.items() if inspect.isbuiltin(value) and value in CLOCKS}
    return [(given, name, getattr(Time, CLOCKS[value])) for name, value in known.items()]


_PLACES = _places()  # before anybody wraps what is looked for


@contextmanager
def possessed(machine: Machine) -> Iterator[None]:
    """Within it, what the program makes belongs to the machine."""
    before = [(names, name, names[name]) for names, name, _ in _PLACES]
    silent = logging.root.manager.disable
    _current.append(machine)
    logging.disable(logging.CRITICAL)
    for names, name, value in _PLACES:
        names[name] = value
    try:
        yield
    finally:
        for names, name, value in before:
            names[name] = value
        logging.disable(silent)
        _current.pop()
