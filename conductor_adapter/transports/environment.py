"""The settings for connections in the environment, read in the same way for all transports: certificates, proxies."""

import ipaddress
import os
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import certifi

from conductor_adapter.settings.server_settings import ServerSettings, is_there, shown_path

__all__ = ["ca_bundle", "proxy_of", "trust_advice"]

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")  # the first one that is set is used
_TRUST = re.compile(r"certificate|trust anchor", re.IGNORECASE)
_OTHER_FAULTS = re.compile(r"expired|not yet valid|revoked|match|common name", re.IGNORECASE)

_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}


def ca_bundle(settings: ServerSettings, environ: Mapping[str, str] = os.environ) -> str | None:
    """The certificates to trust: those of the settings, else of the first variable that is set, else certifi's.

    The variables are ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE`` and ``SSL_CERT_FILE``, in this order.

    Returns:
        A file or folder; None if the settings disable verification.

    Raises:
        ValueError: the server needs the file that a variable names, and it does not exist.
    """
    if not isinstance(settings.verify, bool):
        return settings.verify
    if not settings.verify:
        return None
    variable = next((name for name in _BUNDLES if environ.get(name)), None)
    if variable is None:
        return certifi.where()
    bundle = environ[variable]
    if settings.url.startswith("https:") and not is_there(bundle):
        raise ValueError(f"{variable} {shown_path(bundle)!r}: there is no such file or folder; correct or unset it")
    return bundle


def trust_advice(problem: str, bundle: str | None) -> str:
    """The advice to append to the error of a call whose server's certificate was refused.

    Args:
        problem: the library's message; there is no advice if it is not about the certificate's authority.
        bundle: the trusted bundle; None if nothing is verified, or if it is not known.
    """
    if bundle is None or not _TRUST.search(problem) or _OTHER_FAULTS.search(problem):
        return ""
    return (
        f"; the trusted certificates are those in {shown_path(bundle)}: name a bundle that contains the server's "
        f"authority with verify= in its settings, or with {', '.join(_BUNDLES[:-1])} or {_BUNDLES[-1]}"
    )


def proxy_of(settings: ServerSettings, environ: Mapping[str, str] = os.environ) -> str | None:
    """The proxy for a server, from ``http_proxy`` or ``https_proxy``, ``all_proxy`` and ``no_proxy``.

    A name in lower case takes precedence over the same in upper case, even if it is empty. ``no_proxy`` is a list of
    hosts (each with its subdomains), networks such as 10.0.0.0/8, and ``*``; an entry can end in a port.

    Returns:
        Its URL, which can contain a password; None to connect directly.

    Raises:
        ValueError: the variable is not the URL of a proxy; the text does not show it.
    """
    server = urlsplit(settings.url)
    for name in (f"{server.scheme}_proxy", "all_proxy"):
        proxy = _variable(environ, name)
        if proxy:
            return None if _goes_without(server, _variable(environ, "no_proxy")) else _checked(name, proxy)
    return None


def _variable(environ: Mapping[str, str], name: str) -> str:
    """A variable in either spelling; a CGI program's HTTP_PROXY can be a header from any client."""
    upper = "" if name == "http_proxy" and "REQUEST_METHOD" in environ else environ.get(name.upper(), "")
    return environ.get(name, upper).strip()


def _checked(name: str, proxy: str) -> str:
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PROXY_SCHEMES and parts.hostname and parts.port != 0 and url.isprintable()
    except ValueError:
        usable = False
    if not usable or parts.path.strip("/") or parts.query or parts.fragment or " " in url:
        raise ValueError(
            f"{name} is not the URL of a proxy (not shown, as it can contain a password): write for example "
            "http://proxy.example:3128, with special characters of a user or password as %XX"
        )
    return url


def _goes_without(server: SplitResult, no_proxy: str) -> bool:
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return any(
        _covers(entry, server.hostname or "", server.port or _PORTS[server.scheme]) for entry in entries if entry
    )


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether one entry of no_proxy matches a server."""
    if entry == "*":
        return True
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and (":" not in name or name.endswith("]")):  # a port, not the end of an IPv6 address
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return f".{host}".endswith(f".{entry.lstrip('.')}")
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
