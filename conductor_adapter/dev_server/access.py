"""Who may call: nobody is asked by default, as with the open-source server; with credentials, tokens are."""

from collections.abc import Mapping
from uuid import uuid4

import attrs

from .answers import Answer, ApiError, Call, json_answer

__all__ = ["Access", "Credentials"]


@attrs.frozen
class Credentials:
    """One key that this server knows.

    Attributes:
        key_id: the key.
        key_secret: its secret; kept out of the repr.
        token_seconds: how long a token is good.
    """

    key_id: str
    key_secret: str = attrs.field(repr=False)
    token_seconds: float = 3600.0


class Access:
    """Hands out tokens and checks them; they are lost with the process. ``now`` is milliseconds."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self._tokens: dict[str, float] = {}

    def token(self, call: Call, now: int) -> Answer:
        """Answer a request for a token; ApiError if the key is wrong, or if this server has none."""
        known = self._credentials
        if known is None:
            raise ApiError(404, "No static resource api/token.")
        asked = call.mapping()
        if (asked.get("keyId"), asked.get("keySecret")) != (known.key_id, known.key_secret):
            raise ApiError(401, "Invalid access key or secret", error="INVALID_CREDENTIALS")
        token = uuid4().hex
        self._tokens[token] = now + 1000 * known.token_seconds
        return json_answer({"token": token})

    def check(self, headers: Mapping[str, str], now: int) -> None:
        """Let a call pass, or raise the ApiError (401) it gets."""
        if self._credentials is None:
            return
        until = self._tokens.get(headers.get("X-Authorization", ""))
        if until is None:
            raise ApiError(401, "Token is missing or not known", error="INVALID_TOKEN")
        if now >= until:
            raise ApiError(401, "Token has expired", error="EXPIRED_TOKEN")

    def expire_all(self) -> None:
        """Let every token handed out so far be expired."""
        self._tokens = dict.fromkeys(self._tokens, 0.0)
