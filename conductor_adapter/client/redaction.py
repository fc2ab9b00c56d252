"""Keeping secrets out of the texts that quote a server or a library (pure)."""

import html
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from resilience._texts import one_line

__all__ = ["LONGEST_QUOTE", "hide", "shorten"]

LONGEST_QUOTE = 200  # letters of somebody else's words in an error message
_PART = 8  # letters in a row that nobody quotes by chance


def hide(text: str, secrets: Iterable[str]) -> str:
    """A text of one line in which an ellipsis stands for every part of a secret that has 8 letters or more.

    Parts, because whoever quotes a request may cut it anywhere. A shorter secret is hidden where it stands as a whole.

    Args:
        text: as ``one_line`` leaves it.
        secrets: what must not show, also not in the spelling of JSON, HTML or a URL.
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
    """The spellings in which a secret may be quoted."""
    plain = secret.encode("utf-8", "replace").decode()  # a URL cannot hold half a character either
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
