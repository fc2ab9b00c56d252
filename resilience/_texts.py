"""Untrusted text made safe for logs and terminals; all output of such text goes through these functions.

An error's text, a reason, a task's id or a file's name can contain characters that control a terminal (ESC, BEL), forge
a line (CR, LF) or change the reading direction (U+202E), or can be megabytes long.
"""

import logging
import traceback

__all__ = ["cut", "guard_loggers", "indented", "one_line", "printable"]

LONGEST_MESSAGE = 4000  # characters of one log message
LONGEST_TRACEBACK = 16_000
INDENT = "  "  # so that no line of untrusted text looks like a line of the log


def printable(text: str) -> str:
    """The text as one line of the same length: white space becomes a space, and unprintable characters ``?``."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)


def one_line(text: str) -> str:
    """The text as one line, with single spaces for white space and ``?`` for unprintable characters."""
    return printable(" ".join(text.split()))


def indented(text: str) -> str:
    """The text with its line breaks; every line begins with two spaces and contains only printable characters."""
    return "\n".join(f"{INDENT}{printable(line)}".rstrip() for line in text.splitlines())


def cut(text: str, longest: int, *, tail: int = 0) -> str:
    """The text, shortened to ``longest`` characters with a note that it was cut if it is longer.

    Args:
        text: any text.
        longest: maximum length of the returned text; at least 100 more than ``tail``.
        tail: number of characters to keep from the end of the text, after the note.
    """
    if len(text) <= longest:
        return text
    note = f"… (cut; {len(text):,} characters in all)" + (" …" if tail else "")
    return text[: longest - len(note) - tail] + note + text[len(text) - tail :]


def guard_loggers(*names: str) -> None:
    """Add ``clean_record`` as a filter to these loggers; repeating it does no harm."""
    for name in names:
        logging.getLogger(name).addFilter(clean_record)


def clean_record(record: logging.LogRecord) -> bool:
    """Clean and cut the message and the traceback of a record; a clean record keeps its arguments."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a foreign repr: the handler reports it, as always
        return True
    shown = printable(cut(message, LONGEST_MESSAGE))
    if shown != message:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[1] is not None:  # a formatter uses this text if it is set
        text = "".join(traceback.format_exception(record.exc_info[1]))
        record.exc_text = indented(cut(text, LONGEST_TRACEBACK, tail=LONGEST_TRACEBACK // 2))
    return True
