"""Removal of secrets from texts that quote a server or a library. Pure."""

import html
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from resilience._texts import one_line

__all__ = ["LONGEST_QUOTE", "hide", "shorten"]

LONGEST_QUOTE = 200  # characters of foreign text in an error message
_PART = 8  # characters in a row that do not match by chance


def hide(text: str, secrets: Iterable[str]) -> str:
    """A text of one line with every part of a secret of 8 or more characters replaced by an ellipsis.

    Parts, because a quoted request can be cut anywhere. A shorter secret is hidden only as a whole.

    Args:
        text: a result of ``one_line``.
        secrets: the secrets, which are also hidden when they are escaped for JSON, HTML or a URL.
    """
    secret = bytearray(len(text))
    for form in {form for one in secrets for form in _forms(one)}:
        size = min(_PART, len(form))
        parts = {form[at : at + size] for at in range(len(form) - size + 1)}
        for at in range(len(text) - size + 1):
            if text[at : at + size] in parts:
                secret[at : at + size] = b"\1" * size
    return "".join(
        "…" if hidden else letter
        for at, (letter, hidden) in enumerate(zip(text, secret, strict=True))
        if not (hidden and at and secret[at - 1])
    )


def _forms(secret: str) -> set[str]:
    """The escaped forms in which a secret can be quoted."""
    plain = secret.encode("utf-8", "replace").decode()  # a URL cannot contain lone surrogates either
    quoted = (quote(plain, safe=""), quote(plain), quote_plus(plain))
    spelled = (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        *quoted,
    )
    return {one_line(form) for form in spelled} - {""}


def shorten(text: str) -> str:
    """A text, cut where it gets too long for an error message."""
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "…"
