"""Masking secrets in texts (F39).

Owns finding the passwords in an address, the forms in which one may turn up (as it is, URL-encoded
in several ways, escaped in JSON or in a representation), and masking them. Everything that leaves
the daemon as a sentence goes through a `Redactor`.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

MASK: Final = "***"

_SECRET_PARAMETERS: Final = frozenset(
    {"password", "sslpassword", "tlscertificatekeyfilepassword", "authmechanismproperties"}
)
_USER_AND_PASSWORD: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^:/?#@]*:(.+)@", re.DOTALL)
_WORD_LENGTH_MAX: Final = 7
_LEARNED_MAX: Final = 8


def passwords_of(address: str) -> tuple[str, ...]:
    """Give the passwords in a DSN or URI, as written and decoded, without repeats.

    Also of one that is malformed: a password with an unencoded ``@`` or ``/`` is found up to the
    last ``@``.
    """
    found: dict[str, None] = {}
    written = [match[1]] if (match := _USER_AND_PASSWORD.match(address)) else []
    try:
        parts = urlsplit(address)
        # urlsplit cuts at the first of / ? #, so it may see less than there is, never more.
        if parts.password:
            written.append(parts.password)
        for name, value in parse_qsl(parts.query):
            if name.lower() in _SECRET_PARAMETERS:
                found[value] = None
    except ValueError:
        pass
    for password in written:
        found |= {password: None, unquote(password): None, unquote_plus(password): None}
    return tuple(password for password in found if password)


class Redactor:
    """Masks the given secrets. Calling it with a text gives the text without them.

    A short secret of letters and digits is masked as a whole word only: masking every ``app``
    inside other words would hide nothing and spoil every line.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._fixed = tuple(secrets)
        self._learned: deque[str] = deque(maxlen=_LEARNED_MAX)
        self._pattern = _pattern(self._fixed)

    def learn(self, secret: str) -> None:
        """Mask one more; of those learned the last few are kept, since old ones expire."""
        if secret and secret not in self._learned:
            self._learned.append(secret)
            self._pattern = _pattern((*self._fixed, *self._learned))

    def __call__(self, text: str) -> str:
        """Mask every secret in the text."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)


def _pattern(secrets: Iterable[str]) -> re.Pattern[str] | None:
    forms = {form for secret in secrets for form in _forms(secret)}
    # The longest first: an encoded form may begin with a shorter secret.
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(_as_pattern, ordered))) if ordered else None


def _forms(secret: str) -> set[str]:
    encoded = {quote(secret, safe=""), quote(secret), quote_plus(secret), quote(secret, safe=":/")}
    escaped = {
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    }
    lower_case = {re.sub("%[0-9A-F]{2}", lambda part: part[0].lower(), form) for form in encoded}
    return {form for form in {secret} | encoded | lower_case | escaped if form}


def _as_pattern(form: str) -> str:
    escaped = re.escape(form)
    if len(form) <= _WORD_LENGTH_MAX and form.isalnum():
        return rf"(?<![^\W_]){escaped}(?![^\W_])"
    return escaped
