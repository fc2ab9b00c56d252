"""Tokens, for a server that requires them, like the commercial one."""

from collections.abc import Mapping
from uuid import uuid4

from conductor_adapter.settings.server_settings import Credentials

from .answers import Answer, ApiError, Call, json_answer

__all__ = ["Access"]


class Access:
    """Issues tokens and checks them; they are lost with the process. ``now`` is in milliseconds.

    Args:
        credentials: the valid key.
        token_seconds: how long a token is valid.
    """

    def __init__(self, credentials: Credentials, token_seconds: float = 3600.0) -> None:
        self._credentials = credentials
        self._token_ms = 1000 * token_seconds
        self._tokens: dict[str, float] = {}

    def token(self, call: Call, now: int) -> Answer:
        """Answer a request for a token; ApiError (401) if the key is invalid."""
        known = self._credentials
        asked = call.mapping()
        if (asked.get("keyId"), asked.get("keySecret")) != (known.key, known.secret):
            raise ApiError(401, "Invalid access key or secret", error="INVALID_CREDENTIALS")
        token = uuid4().hex
        self._tokens[token] = now + self._token_ms
        return json_answer({"token": token})

    def check(self, headers: Mapping[str, str], now: int) -> None:
        """Accept a call, or raise the ApiError (401) for its answer."""
        until = self._tokens.get(headers.get("X-Authorization", ""))
        if until is None:
            raise ApiError(401, "Token is missing or not known", error="INVALID_TOKEN")
        if now >= until:
            raise ApiError(401, "Token has expired", error="EXPIRED_TOKEN")

    def expire_all(self) -> None:
        """Expire all tokens issued so far."""
        self._tokens = dict.fromkeys(self._tokens, 0.0)
