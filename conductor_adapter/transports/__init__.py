"""Transports carry calls to a server, one HTTP library a file; ``choose`` picks one."""

from collections.abc import Callable

from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.transports.base import Transport

__all__ = ["choose"]


def choose(name: str | Callable[[ServerSettings], Transport] = "auto") -> Callable[[ServerSettings], Transport]:
    """What makes a transport to a server.

    Args:
        name: ``requests``; ``curl``; or ``auto``, which is curl where it is installed, else requests. A function that
            makes one is returned as it is.

    Raises:
        ValueError: there is no transport of that name.
        ImportError: the transport's library is not installed; the text says how to install it.
    """
    if callable(name):
        return name
    if name not in ("auto", "curl", "requests"):
        raise ValueError(f"transport {name!r} is not known: choose auto, curl or requests")
    if name != "requests":
        try:
            from conductor_adapter.transports.curl import CurlTransport  # noqa: PLC0415 - optional
        except ImportError as error:
            if name == "curl":
                advice = "pip install '.[fast]' in the checkout of conductor-resilience"
                raise ImportError(
                    f"transport 'curl' needs pycurl 7.45.7 or newer ({error}): {advice}, or choose requests"
                ) from error
        else:
            return CurlTransport
    from conductor_adapter.transports.requests import RequestsTransport  # noqa: PLC0415 - not loaded beside curl

    return RequestsTransport
