"""The settings of one server, validated; and the checks of a list of several."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import attrs

from conductor_adapter.tasks import can_be_sent

__all__ = [
    "NO_SERVER",
    "Credentials",
    "ServerSettings",
    "check_servers",
    "header_pairs",
    "host_of",
    "is_there",
    "shown_path",
    "shown_url",
    "split_url",
]

Headers = tuple[tuple[str, str], ...]
LONGEST_PATH = 200  # characters of a path shown in an error
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST_HOST = 253  # letters: what DNS allows for a name
NO_SERVER = (
    "no server is configured: name one with --server NAME=http://host:8080/api, a --config file, or "
    "CONDUCTOR_SERVER_URL (several: separated by commas); in Python also with "
    "servers=[ServerSettings('eu', 'http://host:8080/api')]"
)


def _is_text(_instance: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a str, not {type(value).__name__}")


def _is_secret_text(_instance: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    _is_text(_instance, attribute, value)
    if not value:
        missing, there = ("secret", "key") if attribute.name == "secret" else ("key", "secret")
        raise ValueError(
            f"credentials with a {there} but no {missing}: give both, or auth=None for a server without auth"
        )


@attrs.frozen
class Credentials:
    """The credentials with which a server's token is requested. Neither part appears in ``repr``.

    Attributes:
        key: Conductor's key id.
        secret: the key's secret.
    """

    key: str = attrs.field(repr=False, validator=_is_secret_text)
    secret: str = attrs.field(repr=False, validator=_is_secret_text)


def split_url(url: str) -> SplitResult:
    """The parts of a URL, after validation."""
    if not isinstance(url, str):
        raise TypeError(f"url must be a str such as 'http://host:8080/api', not {type(url).__name__}")
    if not url.strip():
        raise ValueError("url is empty: write for example http://host:8080/api")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:  # its text might contain a part of a password
        raise ValueError(f"url {shown_url(url)!r} is invalid: write for example http://host:8080/api") from None
    if url.count("://") > 1:
        raise ValueError(
            f"url {shown_url(url)!r} contains several URLs: write one ServerSettings for each, or list them in "
            "CONDUCTOR_SERVER_URL"
        )
    if parts.scheme not in _DEFAULT_PORTS or "://" not in url:
        rest = url.strip().split("://", 1)[-1]
        raise ValueError(
            f"url {shown_url(url)!r} must begin with http:// or https://: for example http://{shown_url(rest)}"
        )
    if not _is_host(parts.hostname or "") or port == 0 or re.search(r"[\s\x00-\x1f\x7f\\]", url.strip()):
        raise ValueError(f"url {shown_url(url)!r} has no usable host: write for example {parts.scheme}://host:8080/api")
    if not can_be_sent(url):
        raise ValueError(f"url {shown_url(url)!r} is not valid UTF-8: write other bytes as %XX")
    if "@" in parts.netloc:
        raise ValueError(
            f"url {shown_url(url)!r} contains a user or password: remove it; Conductor's credentials go into auth, "
            "a gateway's into headers={'Authorization': ...}"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"url {shown_url(url)!r} must end with its path: remove the part from '?' or '#' on")
    return parts


def _is_host(host: str) -> bool:
    """Whether it is an address, or a name that can be looked up: encodable in IDNA, with labels of 1 to 63 letters."""
    if ":" in host:
        return True
    name = host.removesuffix(".")
    try:
        return "" not in name.split(".") and len(name.encode("idna")) <= _LONGEST_HOST
    except UnicodeError:
        return False


def shown_url(url: str) -> str:
    """A URL as it can be shown in an error: without user, password, query and fragment, and shortened."""
    without_user = re.sub(r"(://|^).*@", r"\1…@", url.strip(), flags=re.DOTALL)
    return re.sub(r"[?#].*", "?…", without_user, flags=re.DOTALL)[:200]


def _normal_url(url: str) -> str:
    parts = split_url(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _checked_name(_instance: object, _attribute: object, name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if not name or not name.isprintable() or re.search(r"[\s,=]", name):
        raise ValueError(f"server name {name!r} must be printable, without spaces, commas or '=': for example 'eu-1'")


def _checked_weight(_instance: object, attribute: "attrs.Attribute[int]", value: object) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{attribute.name} must be a whole number, not {type(value).__name__}")
    if isinstance(value, (bool, float)) or value < 1:
        raise ValueError(f"{attribute.name} {value!r} must be a whole number, 1 or more")


def _checked_reserve(instance: "ServerSettings", _attribute: object, value: object) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"reserve must be a whole number, not {type(value).__name__}")
    if isinstance(value, (bool, float)) or value < 0:
        raise ValueError(f"reserve {value!r} must be a whole number, 0 or more")
    if instance.max_units is not None and value > instance.max_units:
        raise ValueError(f"reserve {value} is above max_units {instance.max_units}: lower reserve or raise max_units")


def _checked_auth(_instance: object, _attribute: object, value: Credentials | None) -> None:
    if value is not None and not isinstance(value, Credentials):  # the value itself might contain a secret
        raise TypeError(f"auth must be Credentials(key, secret) or None, not {type(value).__name__}")


def is_there(path: str) -> bool:
    """Whether there is a file or folder with this name."""
    try:
        return Path(path).exists()
    except OSError:  # no file can have this name
        return False


def shown_path(path: str) -> str:
    """A path as it can be shown in an error: shortened."""
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"


def _checked_verify(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, (bool, str)):
        raise TypeError(f"verify must be True, False or the path of a CA bundle, not {type(value).__name__}")
    if isinstance(value, str) and not is_there(value):
        raise ValueError(
            f"verify {shown_path(value)!r}: there is no such file or folder;"
            " name a CA bundle, or use True for the default one"
        )


def header_pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
    """Headers as pairs, after validation.

    Raises:
        ValueError: HTTP does not allow a name or a value. No value is shown.
        TypeError: a name or a value is not a str.
    """
    try:
        pairs = tuple(dict(headers).items())
    except (TypeError, ValueError):
        raise TypeError("headers must map str to str") from None
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("headers must map str to str")
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not (text.isprintable() and text.isascii()):
            raise ValueError(f"header {name!r} has a name or value that HTTP does not allow (its value is not shown)")
    return pairs


def _fixed_or_made(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | Callable[[], Mapping[str, str]],
) -> Headers | Callable[[], Mapping[str, str]]:
    if inspect.iscoroutinefunction(headers):
        raise TypeError("headers is an async function, which is never awaited: pass a plain function")
    return headers if callable(headers) and not isinstance(headers, Mapping) else header_pairs(headers)


def _domain(value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"domain must be a str or None, not {type(value).__name__}")
    if value is not None and not can_be_sent(value):
        raise ValueError(f"domain {value!r} contains a lone surrogate, which a URL cannot contain")
    return value or None


@attrs.frozen
class ServerSettings:
    """The settings of one Conductor server. Immutable, without secrets in ``repr``.

    They can be pickled if ``headers`` can: a function defined at the top level of a module, not a lambda.

    Attributes:
        name: its name in logs, metrics and ``task_context()``.
        url: the URL of its API, usually ending in ``/api``; trailing slashes are removed.
        auth: its credentials; None for a server without auth. The environment is never consulted.
        weight: its claim to the capacity while several servers have work, an integer from 1.
        domain: Conductor's domain to poll on this server instead of the worker's.
        max_units: maximum number of units that its tasks can occupy at once; None for no limit.
        reserve: number of units of every worker that are kept free for its tasks, so that they start at once.
        verify: whether to verify its certificate, or the path of a CA bundle to verify it with.
        headers: sent with every call, for a gateway in front of the server; not shown in ``repr``. If they expire, pass
            a function without arguments that returns them: it is called before the first call, and again when a call
            is answered with 401, 403 or a redirect, which is then repeated once. It runs in the thread of that call and
            within its timeout. If it raises, or returns invalid headers, the server is paused for 5 seconds.

    Raises:
        ValueError: a value is invalid; the text names it and how to fix it.
        TypeError: a value has the wrong type.
    """

    name: str = attrs.field(validator=_checked_name)
    url: str = attrs.field(converter=_normal_url)
    auth: Credentials | None = attrs.field(default=None, kw_only=True, validator=_checked_auth)
    weight: int = attrs.field(default=1, kw_only=True, validator=_checked_weight)
    domain: str | None = attrs.field(default=None, kw_only=True, converter=_domain)
    max_units: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(_checked_weight)
    )
    reserve: int = attrs.field(default=0, kw_only=True, validator=_checked_reserve)
    verify: bool | str = attrs.field(default=True, kw_only=True, validator=_checked_verify)
    headers: Headers | Callable[[], Mapping[str, str]] = attrs.field(
        default=(), kw_only=True, repr=False, converter=_fixed_or_made
    )

    @property
    def identity(self) -> str:
        """The normalized URL: two settings with equal identities mean the same server."""
        parts = urlsplit(self.url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return f"{parts.scheme}://{host_of(parts)}:{port}{parts.path}"

    @property
    def hint(self) -> str | None:
        """What looks odd about the URL, though it might be right, as a sentence for people; None if nothing does."""
        if urlsplit(self.url).path.endswith("/api"):
            return None
        return f"the URL of server {self.name!r} does not end in /api; Conductor's API is usually at {self.url}/api"


def check_servers(servers: Iterable[ServerSettings]) -> tuple[ServerSettings, ...]:
    """The servers as a tuple, after checking that they are distinct.

    Raises:
        ValueError: there are none, or two have the same name or the same URL.
        TypeError: an element is not a ``ServerSettings``.
    """
    if isinstance(servers, (ServerSettings, str)):
        raise TypeError("servers must be a list of ServerSettings: put a single server in brackets")
    checked = tuple(servers)
    names: dict[str, ServerSettings] = {}
    urls: dict[str, ServerSettings] = {}
    for server in checked:
        if not isinstance(server, ServerSettings):
            raise TypeError(f"servers must be ServerSettings, not {type(server).__name__}: ServerSettings(name, url)")
        if server.name in names:
            raise ValueError(f"duplicate server name {server.name!r}: give each server its own name")
        if server.identity in urls:
            other = urls[server.identity].name
            raise ValueError(f"servers {other!r} and {server.name!r} have the same URL {server.url}: remove one")
        names[server.name] = urls[server.identity] = server
    if not checked:
        raise ValueError(NO_SERVER)
    return checked


def host_of(parts: SplitResult) -> str:
    """The host of a URL in lower case, with an IPv6 address in brackets."""
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
