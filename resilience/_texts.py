"""Texts from outside, as a log or a terminal may show them: everything that shows one takes it from here.

An error's text, a reason, a task's id or a file's name may hold what steers a terminal (ESC, BEL), forges a line (CR,
LF), turns the reading direction (U+202E), or megabytes.
"""

import logging
import traceback

__all__ = ["cut", "guard_loggers", "indented", "one_line", "printable"]

LONGEST_MESSAGE = 4000  # characters of one log message
LONGEST_TRACEBACK = 16_000
INDENT = "  "  # no line of a text from outside begins where lines of the log do


def printable(text: str) -> str:
    """The text in one line, each letter in its column: white space is a blank, what does not print a question mark."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)


def one_line(text: str) -> str:
    """The text in one line, with single blanks for its white space and a question mark for what does not print."""
    return printable(" ".join(text.split()))


def indented(text: str) -> str:
    """The text with its line breaks; every line begins with two blanks and holds only what prints."""
    return "\n".join(f"{INDENT}{printable(line)}".rstrip() for line in text.splitlines())


def cut(text: str, longest: int, *, tail: int = 0) -> str:
    """The text if it has at most ``longest`` characters, else so many of it, with a note that it was cut.

    Args:
        text: any text.
        longest: characters of what is returned, at most; at least 100 more than ``tail``.
        tail: how many characters from the end of the text are kept, behind the note.
    """
    if len(text) <= longest:
        return text
    note = f"… (cut; {len(text):,} characters in all)" + (" …" if tail else "")
    return text[: longest - len(note) - tail] + note + text[len(text) - tail :]


def guard_loggers(*names: str) -> None:
    """Let what is written to these loggers pass ``clean_record`` first; once is enough."""
    for name in names:
        logging.getLogger(name).addFilter(clean_record)


def clean_record(record: logging.LogRecord) -> bool:
    """Clean and cut the message and the traceback of a record; one that needs it not keeps its arguments."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a repr from elsewhere: the handler says so, as always
        return True
    shown = printable(cut(message, LONGEST_MESSAGE))
    if shown != message:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[1] is not None:  # a formatter takes the text that is there
        text = "".join(traceback.format_exception(record.exc_info[1]))
        record.exc_text = indented(cut(text, LONGEST_TRACEBACK, tail=LONGEST_TRACEBACK // 2))
    return True
