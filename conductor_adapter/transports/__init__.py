"""Transports carry calls to a server, with one file for each HTTP library; ``choose`` selects one."""

from collections.abc import Callable

from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.transports.base import Transport

__all__ = ["choose"]


def choose(name: str | Callable[[ServerSettings], Transport] = "auto") -> Callable[[ServerSettings], Transport]:
    """A function that creates a transport to a server.

    Args:
        name: ``requests``; ``curl``; or ``auto``, which is curl if it is installed, else requests. A function is
            returned unchanged.

    Raises:
        ValueError: there is no transport with this name.
        ImportError: the transport's library is not installed; the text says how to install it.
    """
    if callable(name):
        return name
    if name not in ("auto", "curl", "requests"):
        raise ValueError(f"unknown transport {name!r}: choose auto, curl or requests")
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
    from conductor_adapter.transports.requests import RequestsTransport  # noqa: PLC0415 - not loaded if curl is used

    return RequestsTransport
