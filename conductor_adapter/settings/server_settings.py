"""One server and how it is to be treated, as a checked value; and what makes several of them a usable list."""

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
LONGEST_PATH = 200  # characters that an error shows
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST_HOST = 253  # letters: what DNS allows for a name
NO_SERVER = (
    "no server is configured: name one with --server NAME=http://host:8080/api, a --config file, or "
    "CONDUCTOR_SERVER_URL (several: separated by commas); in Python also with "
    "servers=[ServerSettings('eu', 'http://host:8080/api')]"
)


def _is_text(_instance: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be text, not {type(value).__name__}")


def _is_secret_text(_instance: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    _is_text(_instance, attribute, value)
    if not value:
        missing, there = ("secret", "key") if attribute.name == "secret" else ("key", "secret")
        raise ValueError(
            f"credentials with a {there} but no {missing}: give both, or auth=None for a server without auth"
        )


@attrs.frozen
class Credentials:
    """What a server's token is asked for with. Neither part shows in ``repr``.

    Attributes:
        key: Conductor's key id.
        secret: the key's secret.
    """

    key: str = attrs.field(repr=False, validator=_is_secret_text)
    secret: str = attrs.field(repr=False, validator=_is_secret_text)


def split_url(url: str) -> SplitResult:
    """The parts of a URL, once they are known to be usable."""
    if not isinstance(url, str):
        raise TypeError(f"url must be text such as 'http://host:8080/api', not {type(url).__name__}")
    if not url.strip():
        raise ValueError("url is empty: write for example http://host:8080/api")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:  # its text may hold a part of a password
        raise ValueError(f"url {shown_url(url)!r} cannot be read: write for example http://host:8080/api") from None
    if url.count("://") > 1:
        raise ValueError(
            f"url {shown_url(url)!r} holds several: one ServerSettings each, or all of them in CONDUCTOR_SERVER_URL"
        )
    if parts.scheme not in _DEFAULT_PORTS or "://" not in url:
        rest = url.strip().split("://", 1)[-1]
        raise ValueError(
            f"url {shown_url(url)!r} must begin with http:// or https://: for example http://{shown_url(rest)}"
        )
    if not _is_host(parts.hostname or "") or port == 0 or re.search(r"[\s\x00-\x1f\x7f\\]", url.strip()):
        raise ValueError(f"url {shown_url(url)!r} has no usable host: write for example {parts.scheme}://host:8080/api")
    if not can_be_sent(url):
        raise ValueError(f"url {shown_url(url)!r} holds bytes that are no text in UTF-8: write them as %XX")
    if "@" in parts.netloc:
        raise ValueError(
            f"url {shown_url(url)!r} carries a user or password: take it out; Conductor's credentials go into auth, "
            "a gateway's into headers={'Authorization': ...}"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"url {shown_url(url)!r} must end with its path: take out what begins with '?' or '#'")
    return parts


def _is_host(host: str) -> bool:
    """Whether it is an address, or a name that can be looked up: IDNA can write it, in parts of 1 to 63 letters."""
    if ":" in host:
        return True
    name = host.removesuffix(".")
    try:
        return "" not in name.split(".") and len(name.encode("idna")) <= _LONGEST_HOST
    except UnicodeError:
        return False


def shown_url(url: str) -> str:
    """A URL as an error may show it: without user, password, query and fragment, and not endless."""
    without_user = re.sub(r"(://|^).*@", r"\1…@", url.strip(), flags=re.DOTALL)
    return re.sub(r"[?#].*", "?…", without_user, flags=re.DOTALL)[:200]


def _normal_url(url: str) -> str:
    parts = split_url(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _checked_name(_instance: object, _attribute: object, name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {type(name).__name__}")
    if not name or not name.isprintable() or re.search(r"[\s,=]", name):
        raise ValueError(f"server name {name!r} must be printable, without spaces, commas and '=': for example 'eu-1'")


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
        raise ValueError(f"reserve {value} is above max_units {instance.max_units}: keep no more than it may hold")


def _checked_auth(_instance: object, _attribute: object, value: Credentials | None) -> None:
    if value is not None and not isinstance(value, Credentials):  # the value itself may hold a secret
        raise TypeError(f"auth must be Credentials(key, secret) or None, not {type(value).__name__}")


def is_there(path: str) -> bool:
    """Whether there is a file or folder of that name."""
    try:
        return Path(path).exists()
    except OSError:  # nothing can be called that
        return False


def shown_path(path: str) -> str:
    """A path as an error may show it: not endless."""
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"


def _checked_verify(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, (bool, str)):
        raise TypeError(f"verify must be True, False or the path of a CA bundle, not {type(value).__name__}")
    if isinstance(value, str) and not is_there(value):
        raise ValueError(
            f"verify {shown_path(value)!r}: there is no such file or folder;"
            " name a CA bundle, or True for the usual one"
        )


def header_pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
    """Headers as pairs, once it is sure that HTTP allows them.

    Raises:
        ValueError: it does not. No value is shown.
        TypeError: names or values are no text.
    """
    try:
        pairs = tuple(dict(headers).items())
    except (TypeError, ValueError):
        raise TypeError("headers must map names to text") from None
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("headers must map names to text")
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not (text.isprintable() and text.isascii()):
            raise ValueError(f"header {name!r} has a name or value that HTTP does not allow (its value is not shown)")
    return pairs


def _fixed_or_made(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | Callable[[], Mapping[str, str]],
) -> Headers | Callable[[], Mapping[str, str]]:
    if inspect.iscoroutinefunction(headers):
        raise TypeError("headers is an async function, which nobody awaits: give a plain one")
    return headers if callable(headers) and not isinstance(headers, Mapping) else header_pairs(headers)


def _domain(value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"domain must be text or None, not {type(value).__name__}")
    if value is not None and not can_be_sent(value):
        raise ValueError(f"domain {value!r} holds half of a character: no URL can carry it")
    return value or None


@attrs.frozen
class ServerSettings:
    """One Conductor server and how it is to be treated. Immutable, without secrets in ``repr``.

    It can be pickled, if ``headers`` can: a function that is defined at the top of a module, not a lambda.

    Attributes:
        name: what it is called in logs, metrics and ``task_context()``.
        url: where its API is, usually ending in ``/api``; trailing slashes are dropped.
        auth: its credentials; None for a server without auth. The environment is never consulted.
        weight: its claim to the capacity while several servers have work, a whole number from 1.
        domain: Conductor's domain to poll on this server instead of the worker's.
        max_units: units that its tasks may occupy at once; None for as many as there are.
        reserve: units of every worker that are kept free for its tasks, so that they start at once.
        verify: whether to check its certificate, or the path of a CA bundle to check it with.
        headers: sent with every call, for a gateway in front of the server; not shown in ``repr``. Where they expire,
            a function without arguments that returns them: it is called before the first call, and again when a call
            is answered with 401, 403 or a redirect, which is then repeated once. It runs in the thread of that call and
            in its time. One that raises, or returns anything but names and text, pauses the server for 5 seconds.

    Raises:
        ValueError: a value makes no sense; the text names it and the way out.
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
        """The URL in one spelling: two settings with equal identities mean the same server."""
        parts = urlsplit(self.url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return f"{parts.scheme}://{host_of(parts)}:{port}{parts.path}"

    @property
    def hint(self) -> str | None:
        """What looks odd about the URL though it may be right, in a sentence for people; None when nothing does."""
        if urlsplit(self.url).path.endswith("/api"):
            return None
        return f"the URL of server {self.name!r} does not end in /api; Conductor's API is usually at {self.url}/api"


def check_servers(servers: Iterable[ServerSettings]) -> tuple[ServerSettings, ...]:
    """The servers as a tuple, once it is sure that they can be told apart.

    Raises:
        ValueError: there is none, or two have the same name or the same URL.
        TypeError: something in it is no ``ServerSettings``.
    """
    if isinstance(servers, (ServerSettings, str)):
        raise TypeError("servers must be a list of ServerSettings: put brackets around the one server")
    checked = tuple(servers)
    names: dict[str, ServerSettings] = {}
    urls: dict[str, ServerSettings] = {}
    for server in checked:
        if not isinstance(server, ServerSettings):
            raise TypeError(f"servers must be ServerSettings, not {type(server).__name__}: ServerSettings(name, url)")
        if server.name in names:
            raise ValueError(f"two servers are called {server.name!r}: give each a name of its own")
        if server.identity in urls:
            other = urls[server.identity].name
            raise ValueError(f"servers {other!r} and {server.name!r} have the same URL {server.url}: remove one")
        names[server.name] = urls[server.identity] = server
    if not checked:
        raise ValueError(NO_SERVER)
    return checked


def host_of(parts: SplitResult) -> str:
    """The host of a URL in lower case, an IPv6 address in brackets."""
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
