"""An exception out of a signal handler, thrown at a line of our own code: the first, the second, and so on."""

import ast
import functools
import sys
from pathlib import Path

import resilience

__all__ = ["ThrownError", "throwing"]

OURS = str(Path(resilience.__file__).parent)


class ThrownError(BaseException):
    """What the handler raises."""


def throwing(call, at):
    """Run ``call`` and throw at the line number ``at``, counted as they are run; returns whether it came so far.

    Python looks for signals when a function begins, after calls, and where a loop begins again: what a signal throws
    comes out of the line before. So nothing is thrown where a ``with`` block is left or where a ``finally`` begins, nor
    between its lines that call nothing.
    """
    seen, passed = [0], set()

    def trace(frame, event, _):
        path = frame.f_code.co_filename
        if not path.startswith(OURS):
            return None
        place = (id(frame), frame.f_lineno)
        if event != "line" or place in passed or frame.f_lineno in _sheltered(path):
            return trace
        passed.add(place)
        seen[0] += 1
        if seen[0] == at:
            raise ThrownError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except ThrownError:
        return True
    finally:
        sys.settrace(before)
    return seen[0] >= at


@functools.cache
def _sheltered(path):
    """The lines of a file at which no signal can make itself felt: how handlers and ``finally`` blocks begin."""
    lines = set()
    for node in ast.walk(ast.parse(Path(path).read_text())):
        if not isinstance(node, ast.Try):
            continue
        lines.update(handler.lineno for handler in node.handlers)
        for body in (node.finalbody, *(handler.body for handler in node.handlers)):
            for statement in body:
                lines.update(range(statement.lineno, _begins(statement) + 1))
                if any(isinstance(part, ast.Call) for part in ast.walk(statement)):
                    break
    return frozenset(lines)


def _begins(statement):
    """The last line of ``statement`` that is run before any call in it."""
    calls = [part.lineno for part in ast.walk(statement) if isinstance(part, ast.Call)]
    return min(calls, default=statement.end_lineno)
