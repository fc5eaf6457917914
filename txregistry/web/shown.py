"""What of a request's target may stand in a log: all but passwords and what a parameter's name calls a secret."""

from __future__ import annotations

import re

_LOGIN = re.compile(rb"(://)[^/?#\s]*@")
# No two alternatives for one byte: a target of any form is searched in one pass.
_PARAMETER = re.compile(rb"(?<=[?&;])([^=&;?\s]*)=([^&;\s]*)")
_SECRET = re.compile(rb"passw|secret|token|signature|credential|auth|key|\Asig\Z", re.IGNORECASE)
_REDACTED = b"[redacted]"


def shown(target: bytes) -> bytes:
    """A target, or any other URL, without its secrets."""
    if b"?" not in target and b"@" not in target:
        return target
    return _PARAMETER.sub(_parameter, _LOGIN.sub(rb"\1" + _REDACTED + b"@", target))


def _parameter(match: re.Match[bytes]) -> bytes:
    return match[1] + b"=" + _REDACTED if _SECRET.search(match[1]) else match[0]
