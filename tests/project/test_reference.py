"""The reference's tables say what the code says: options of the command line, defaults of the configurations."""

import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import typer

from conductor_adapter import RunnerConfig
from conductor_adapter.cli.app import app
from resilience import BreakerConfig, PollConfig, RelayConfig

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
TOP = typer.main.get_command(app).commands  # type: ignore[attr-defined] # a group
COMMANDS = {
    " ".join(filter(None, (name, part))): command
    for name, group in TOP.items()
    for part, command in getattr(group, "commands", {"": group}).items()
}
CONFIGS = [BreakerConfig, PollConfig, RelayConfig, RunnerConfig]
FROM_POLL_CONFIG = ("poll_wait", "poll_timeout")  # options that stand for these when they are not given
WITHOUT_VALUE = {"none", "in memory", "no end", "each worker's own", "the user's own"}


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = re.split(r"^## ", (REFERENCE / page).read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if re.match(rf"{heading}(?: [A-Z\[].*)?\n", part)]
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


@pytest.mark.parametrize("config", CONFIGS)
def test_defaults_of_a_configuration(config: type) -> None:
    """Every option is there, in order, with the default that it has."""
    told = [(row[0].strip("`"), row[1].strip("`")) for row in rows_of("defaults.md", config.__name__)]

    assert told == [(field.name, shown(getattr(config(), field.name))) for field in attrs.fields(config)]


def shown(value: object) -> str:
    """A default as the page writes it."""
    if attrs.has(type(value)):
        return f"{type(value).__name__}()" if value == type(value)() else repr(value)
    if isinstance(value, tuple):
        return f"({''.join(f'{kind.__name__},' for kind in value)})"
    return repr(value)


def test_every_command_has_a_section() -> None:
    """Nothing the command line can do is left out."""
    headings = re.findall(r"^## ([a-z -]*[a-z])", (REFERENCE / "command-line.md").read_text(), re.MULTILINE)

    assert headings == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command(command: str) -> None:
    """Every option is in its command's table, in order, with its default."""
    options = [p for p in COMMANDS[command].params if p.param_type_name == "option" and p.name != "help"]
    rows = rows_of("command-line.md", command)

    assert [re.findall(r"`(--?[\w-]+)", row[0]) for row in rows] == [
        sorted(option.opts, key=len, reverse=True) for option in options
    ]
    for option, row in zip(options, rows, strict=True):
        assert row[1] in told_default(option), f"{row[0]}: {option.default!r}"


def told_default(option: Any) -> set[str]:
    """What may stand in the table as an option's default."""
    default = getattr(PollConfig(), option.name) if option.name in FROM_POLL_CONFIG else option.default
    if not default:
        return WITHOUT_VALUE
    return {f"{default:g}" if isinstance(default, (int, float)) else default}


def test_glossary_has_one_entry_for_each_word() -> None:
    """No word is explained twice, and the words of the events are there."""
    text = (REFERENCE / "glossary.md").read_text()
    words = [word.strip() for entry in re.findall(r"^(\w[^\n]*)\n  ", text, re.MULTILINE) for word in entry.split(",")]

    assert len(words) == len(set(words))
    assert {"overdue", "late", "give back", "dead letter", "suspect", "backlogged"} <= set(words)
