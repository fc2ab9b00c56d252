"""``run --log-level``: prints what task functions log to standard output, like every other line."""

import logging
import traceback
from typing import Any

from conductor_adapter.cli.printing import Printer
from conductor_adapter.functions.attempt import TaskContext, task_context
from conductor_adapter.tasks import task_named

__all__ = ["print_logs"]

STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
OURS = "urllib3"  # outside a task its records are about our own calls


def print_logs(printer: Printer, level: str) -> None:
    """Print records of ``level`` or above from the root logger, and so from every logger not set up otherwise."""
    root = logging.getLogger()
    root.addHandler(_Printing(printer))
    root.setLevel(level.upper())


class _Printing(logging.Handler):
    """Prints a record in one line, with the rest of its message and its traceback below it."""

    def __init__(self, printer: Printer) -> None:
        super().__init__()
        self._printer = printer

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        context = _context()
        if context is None and record.name.partition(".")[0] == OURS:
            return
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - the arguments do not fit: logging reports that, and where
            self.handleError(record)
            return
        first, _, rest = message.partition("\n")
        more = [rest] if rest else []
        if record.exc_info and record.exc_info[1] is not None:
            more.append("".join(traceback.format_exception(record.exc_info[1])))
        text = f"{record.levelname} {record.name}: {first}"
        facts: dict[str, Any] = {"log_level": record.levelname.lower(), "logger": record.name}
        if context is not None:
            task = context.task
            text = f"{task_named(task.task_id, task.task_type)}: {text}"
            facts |= {"server": context.server, "task": task.task_id, "task_type": task.task_type}
        self._printer.say("log", text, style=STYLES.get(record.levelname, ""), detail="\n".join(more), **facts)


def _context() -> TaskContext | None:
    """The context of the task that is running here, if any."""
    try:
        return task_context()
    except RuntimeError:
        return None
