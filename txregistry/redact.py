"""Text that leaves the machine: without secrets, in printable ASCII, and no longer than agreed."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote

REDACTED = "[redacted]"
#: Shorter secrets would be found in half of all words; they go only where a name beside them says what they are.
SHORTEST = 4
#: Characters of a line, of which the rest is left out.
_LINE = 4000

#: All but newline and tab: a mail's lines end in a newline, and terminals obey the rest.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\n\t"}

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # Headers, as sent or in the repr of a mapping or a list: all that follows on the line.
        (r"((?:authorization|cookie|x-signature)[\"'\])]{0,3}\s{0,3}[:=,]\s{0,3}).*", rf"\1{REDACTED}"),
        # User and password of a URL.
        (r"(://)[^/?#\s]*@", rf"\1{REDACTED}@"),
        # What a name announces: in queries, in JSON, in reprs. An unclosed quotation goes to the end of the line.
        (
            r"((?:password|passwd|passphrase|secret|token|signature|credential|_state"
            r"|api[_-]?key|access[_-]?key|private[_-]?key)[\w-]{0,32}[\"']?\s{0,3}[:=]\s{0,3})(?!\[redacted\])"
            r"(?:b?\"(?:\\.|[^\"\\\n])*\"|b?'(?:\\.|[^'\\\n])*'|b?[\"'].*|[^\s&,;)}\]]+)",
            rf"\1{REDACTED}",
        ),
        # Credentials without their header, and JSON web tokens.
        (r"\b(basic|bearer)(\s+)[\w+/=.~-]{6,}", rf"\1\2{REDACTED}"),
        (r"\beyJ[\w-]{10,}(?:\.[\w-]*){0,2}", REDACTED),
    )
]


class Redactor:
    """Takes secrets out of text: those it was given, wherever they stand, and what looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelled = {form for secret in secrets if len(secret) >= SHORTEST for form in _spellings(secret)}
        # The longest first: one secret may be part of another.
        self._secrets = sorted(spelled, key=lambda form: (-len(form), form))

    def known(self, text: str) -> str:
        """The text without the secrets that were given and without private keys, in printable ASCII."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _PRIVATE_KEY.sub(REDACTED, text)
        return text.encode("ascii", "backslashreplace").decode("ascii").translate(_CONTROLS)

    def __call__(self, text: str, limit: int) -> str:
        """The text without anything that looks like a secret, of about `limit` characters at most.

        It is cut before it is searched, to bound the work, and only between words: half a secret looks like none.
        """
        return searched(shortened(self.known(text), limit))


def searched(text: str) -> str:
    """The text without what looks like a secret."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def shortened(text: str, limit: int) -> str:
    """The first and the last lines of a text, about `limit` characters together, the last ones twice as many."""
    lines = [line if len(line) <= _LINE else _trimmed(line) for line in text.split("\n")]
    if sum(map(len, lines)) + len(lines) <= limit:
        return "\n".join(lines)
    head = _fitting(lines, limit // 3)
    tail = _fitting(lines[len(head) :][::-1], limit - limit // 3)[::-1]
    return "\n".join([*head, f"[{len(lines) - len(head) - len(tail)} lines left out]", *tail])


def _fitting(lines: list[str], limit: int) -> list[str]:
    kept = []
    for line in lines:
        limit -= len(line) + 1
        if limit < 0:
            break
        kept.append(line)
    return kept


def _trimmed(line: str) -> str:
    words = line[:_LINE].rsplit(None, 1)
    return f"{words[0] if len(words) == 2 else ''} [{len(line)} characters, cut]"


def _spellings(secret: str) -> set[str]:
    """A secret as it may come: itself, in a repr, in JSON or a URL, and as the Base64 of a login."""
    escaped = secret.encode("unicode_escape").decode("ascii")
    base64 = b64encode(secret.encode()).decode("ascii")
    return {secret, repr(secret)[1:-1], escaped, quote(secret), quote(secret, safe=""), base64}
