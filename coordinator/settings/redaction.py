"""Masking secrets in texts (F39).

Owns finding the passwords in an address, the forms in which one may turn up (as it is, URL-encoded,
escaped in JSON or in a representation, and all that several times over), and masking them. All
that leaves the daemon as a sentence goes through a `Redactor`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from itertools import groupby
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

MASK: Final = "***"

_SECRET_PARAMETERS: Final = frozenset(
    {"password", "sslpassword", "tlscertificatekeyfilepassword", "authmechanismproperties"}
)
_USER_AND_PASSWORD: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^:/?#@]*:(.+)@", re.DOTALL)
_SESSION_TOKEN: Final = re.compile(r"AWS_SESSION_TOKEN:([^,]+)", re.DOTALL)
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
                found |= dict.fromkeys(_SESSION_TOKEN.findall(value))
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
    # The longest first: one may begin with a shorter one.
    ordered = sorted({each for each in secrets if each}, key=lambda each: (-len(each), each))
    return re.compile("|".join(map(_as_pattern, ordered))) if ordered else None


def _as_pattern(secret: str) -> str:
    """Match the secret however often it was URL-encoded, quoted or escaped on its way."""
    if len(secret) <= _WORD_LENGTH_MAX and secret.isalnum() and secret.isascii():
        return rf"(?<![^\W_]){secret}(?![^\W_])"
    return "".join(
        rf"(?:\\{{{sum(1 for _ in run)},}}+|{_percent(character)})"
        if character == "\\"
        else _character(character) * sum(1 for _ in run)
        for character, run in groupby(secret)
    )


def _character(character: str) -> str:
    """Match one character: as it is, percent-encoded, or behind a backslash."""
    if character.isascii() and character.isalnum():
        return character
    ways = [re.escape(character), _percent(character)]
    if character == " ":
        ways.append(r"\+")
    elif character in _ESCAPED:
        ways.append(rf"\\++{_ESCAPED[character]}")
    elif not character.isascii() or not character.isprintable():
        ways.append(_code(character))
    return f"(?:{'|'.join(ways)})"


_ESCAPED: Final = {
    '"': '"',
    "'": "'",
    "/": "/",
    "\n": "n",
    "\r": "r",
    "\t": "t",
    "\b": "b",
    "\f": "f",
}


def _percent(character: str) -> str:
    """Match its percent-encoding, itself encoded any number of times: ``%2F``, ``%252f``."""
    octets = character.encode("utf-8", "surrogatepass")
    return "(?i:" + "".join(rf"%(?:25)*{octet:02X}" for octet in octets) + ")"


def _code(character: str) -> str:
    """Match it as a number behind a backslash: ``\\u00fc``, ``\\xfc``, ``\\U0001F600``, pairs."""
    number = ord(character)
    units = character.encode("utf-16-be", "surrogatepass").hex()
    pairs = "".join(rf"\\++u{units[n : n + 4]}" for n in range(0, len(units), 4))
    ways = [pairs, rf"\\++U{number:08x}"] + ([rf"\\++x{number:02x}"] if number < 256 else [])
    return f"(?i:{'|'.join(ways)})"
