"""The servers of a worker: from code, the environment, the command line, or a TOML file."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conductor_adapter.settings.server_settings import (
    NO_SERVER,
    Credentials,
    ServerSettings,
    check_servers,
    host_of,
    shown_url,
    split_url,
)

__all__ = [
    "server_from_option",
    "servers_from_env",
    "servers_from_options",
    "servers_from_toml",
    "unread_credentials",
]

URL, KEY, SECRET, NAME = "CONDUCTOR_SERVER_URL", "CONDUCTOR_AUTH_KEY", "CONDUCTOR_AUTH_SECRET", "CONDUCTOR_SERVER_NAME"
_CREDENTIAL = re.compile(rf"(?:{KEY}|{SECRET})(?:_\w+)?", re.ASCII)
_TOML_KEYS = ("name", "url", "key", "secret", "weight", "domain", "max_units", "reserve", "verify", "headers")


# The environment: lists of the same length, as proposed in conductor-python's pull request 373.


def servers_from_env(environ: Mapping[str, str] = os.environ) -> tuple[ServerSettings, ...]:
    """Servers from ``CONDUCTOR_SERVER_URL``, ``_AUTH_KEY``, ``_AUTH_SECRET`` and ``_SERVER_NAME``.

    Each is a comma-separated list; the n-th entries describe one server. An empty key and secret mean a server without
    auth; an empty name, or no list of names, a name made from the URL. With one URL nothing is split, so that a secret
    can contain a comma.

    Raises:
        ValueError: there is no URL, the lists differ in length, a key has no secret, or ``ServerSettings`` raised it.
    """
    urls = [url.strip() for url in environ.get(URL, "").split(",") if url.strip()]
    if not urls:
        raise ValueError(NO_SERVER)
    keys, secrets, names = (_positions(environ, variable, len(urls)) for variable in (KEY, SECRET, NAME))
    chosen = [name or short for name, short in zip(names, _short_names(urls), strict=True)]
    servers = [
        ServerSettings(name, url, auth=_credentials(key, secret, f"server {name!r}", (KEY, SECRET)))
        for name, url, key, secret in zip(chosen, urls, keys, secrets, strict=True)
    ]
    return check_servers(servers)


def _positions(environ: Mapping[str, str], variable: str, count: int) -> list[str]:
    """The entries of one list variable, one for each URL."""
    text = environ.get(variable, "").strip()
    if not text:
        return [""] * count
    entries = [text] if count == 1 else [entry.strip() for entry in text.split(",")]
    if len(entries) != count:
        raise ValueError(
            f"{URL} has {count} entries but {variable} has {len(entries)}: write one for each URL, in the same order; "
            "leave an entry empty, as in 'one,,three', for a server without one"
        )
    return entries


def _credentials(key: str, secret: str, whose: str, where: tuple[str, str]) -> Credentials | None:
    """Both parts, or neither."""
    if bool(key) != bool(secret):
        there, missing = where if key else where[::-1]
        raise ValueError(f"{whose} has an entry in {there} but none in {missing}: set both, or neither for no auth")
    return Credentials(key, secret) if key else None


def _short_names(urls: list[str]) -> list[str]:
    """A name from each URL: its host and port, with the path if that is needed to distinguish them.

    They must not depend on the other hosts: stored results contain the name of their server.
    """
    parts = [split_url(url) for url in urls]
    short = [host_of(one) + (f":{one.port}" if one.port else "") for one in parts]
    return [
        re.sub(r"[\s,=]", "-", name if short.count(name) == 1 else f"{one.scheme}:{name}{one.path.rstrip('/')}")
        for name, one in zip(short, parts, strict=True)
    ]


# The command line: NAME=URL, with credentials from variables that end in the name.


def servers_from_options(options: Iterable[str], environ: Mapping[str, str] = os.environ) -> tuple[ServerSettings, ...]:
    """Servers from strings of the form ``NAME=URL``; see ``server_from_option``.

    Raises:
        ValueError: additionally if two names correspond to the same variable and it is set, because one server would
            get the other's credentials.
    """
    servers = check_servers([server_from_option(option, environ) for option in options])
    seen: dict[str, str] = {}
    for server in servers:
        other = seen.setdefault(_suffix(server.name), server.name)
        if other != server.name and server.auth is not None:
            key = f"{KEY}_{_suffix(server.name)}"
            raise ValueError(f"servers {other!r} and {server.name!r} would both read {key}: rename one of them")
    return servers


def server_from_option(text: str, environ: Mapping[str, str] = os.environ) -> ServerSettings:
    """One server from ``NAME=URL``, with credentials from the environment.

    They are ``CONDUCTOR_AUTH_KEY_<NAME>`` and ``CONDUCTOR_AUTH_SECRET_<NAME>``: the name in upper case, with an
    underscore for every character that is neither a letter nor a digit. If neither is set, there is no auth.

    Raises:
        ValueError: the text has another form, a key has no secret, or ``ServerSettings`` raised it.
    """
    name, equals, url = text.partition("=")
    if not equals or "://" in name:
        raise ValueError(f"server {shown_url(text)!r} has no name: write NAME=URL, for example eu=http://host:8080/api")
    return ServerSettings(name.strip(), url, auth=_named_credentials(name.strip(), environ))


def _named_credentials(name: str, environ: Mapping[str, str]) -> Credentials | None:
    """The credentials in the variables that end in a server's name."""
    variables = (f"{KEY}_{_suffix(name)}", f"{SECRET}_{_suffix(name)}")
    key, secret = (environ.get(variable, "").strip() for variable in variables)
    return _credentials(key, secret, f"server {name!r}", variables)


def _suffix(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def unread_credentials(servers: Iterable[ServerSettings], environ: Mapping[str, str] = os.environ) -> str | None:
    """A hint about variables that look like credentials for one of ``servers`` that has none; None without any.

    Args:
        servers: the servers from options or from a file.
        environ: the environment; the hint never contains values.
    """
    servers = tuple(servers)
    read = {f"{variable}_{_suffix(server.name)}" for server in servers for variable in (KEY, SECRET)}
    unread = sorted(name for name in environ if _CREDENTIAL.fullmatch(name) and name not in read and environ[name])
    bare = [server.name for server in servers if server.auth is None]
    if not unread or not bare:
        return None
    name = max(bare, key=lambda name: difflib.SequenceMatcher(None, unread[0], f"{KEY}_{_suffix(name)}").ratio())
    return (
        f"the environment has {', '.join(unread)}, which no server reads: server {name!r} reads "
        f"{KEY}_{_suffix(name)} and {SECRET}_{_suffix(name)}"
    )


# A file: one [[servers]] table each.


def servers_from_toml(path: str | Path, environ: Mapping[str, str] = os.environ) -> tuple[ServerSettings, ...]:
    """Servers from a TOML file with a ``[[servers]]`` table for each.

    A table has ``name`` and ``url``, and optionally ``key``, ``secret``, ``weight``, ``domain``, ``max_units``,
    ``reserve``, ``verify`` (true, false, or a path relative to the file) and ``headers``. A table without ``key`` and
    ``secret`` gets its credentials from the variables that ``server_from_option`` reads, so that the file need not
    contain any.

    Raises:
        ValueError: the file cannot be read, is not valid TOML, or has no table or an invalid one; the text names the
            file.
    """
    tables = _tables(Path(path))
    try:
        return check_servers([_from_table(number, table, Path(path), environ) for number, table in tables])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _tables(path: Path) -> list[tuple[int, Any]]:
    """The numbered [[servers]] tables of a file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}: name a TOML file with [[servers]] tables") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply: write only [[servers]] tables") from None
    servers = document.get("servers")
    if not isinstance(servers, list) or not servers:
        raise ValueError(f"{path} has no [[servers]] table: write [[servers]], then name = 'eu' and url = 'http://...'")
    return list(enumerate(servers, start=1))


def _from_table(number: int, table: Any, path: Path, environ: Mapping[str, str]) -> ServerSettings:  # noqa: ANN401 - TOML
    """One table as settings; an error names the table by its name or number."""
    if not isinstance(table, dict):
        raise ValueError(f"server {number} must be a [[servers]] table")  # noqa: TRY004 - bad data, not a bug
    whose = f"server {table.get('name', number)!r}"
    for key in table:
        if key not in _TOML_KEYS:
            close = difflib.get_close_matches(key, _TOML_KEYS, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(_TOML_KEYS)}"
            raise ValueError(f"{whose} has an unknown key {key!r}: {advice}")
    for key in ("name", "url"):
        if key not in table:
            raise ValueError(f"{whose} has no {key}: add one")
    try:
        return ServerSettings(auth=_table_credentials(table, environ), **_options(table, path))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{whose}: {error}") from None


def _options(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """A table's keys as arguments of ``ServerSettings``."""
    options = {key: value for key, value in table.items() if key not in ("key", "secret")}
    if isinstance(table.get("verify"), str):
        options["verify"] = str(path.parent / table["verify"])
    return options


def _table_credentials(table: dict[str, Any], environ: Mapping[str, str]) -> Credentials | None:
    if "key" in table or "secret" in table:
        return Credentials(table.get("key", ""), table.get("secret", ""))
    return _named_credentials(str(table["name"]), environ)
