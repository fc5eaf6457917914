"""The caching of what never changes, a finished image. Its date is the beginning of the epoch, for want of another."""

from __future__ import annotations

from email.utils import formatdate, parsedate_to_datetime

from txregistry.web.messages import header, nothing
from txregistry.web.request import RegistryRequest

LAST_MODIFIED = formatdate(0, usegmt=True)
#: How long an answer may be kept, in seconds.
YEAR = 31_536_000


def set_cacheable(request: RegistryRequest, now: float) -> None:
    """Let an answer be kept for a year, by anybody if anybody could have had it."""
    whose = "private" if request.grant.is_personal else "public"
    request.setHeader("Cache-Control", f"{whose}, max-age={YEAR}")
    request.setHeader("Expires", formatdate(now + YEAR, usegmt=True))
    request.setHeader("Last-Modified", LAST_MODIFIED)
    request.responseHeaders.removeHeader("Pragma")


def not_modified(request: RegistryRequest) -> bytes | None:
    """The 304 for a client that has it already, in an answer that was made cacheable; else None.

    Any date since the beginning of the epoch is late enough; so is what cannot be read, as old servers never read it.
    """
    since = header(request, "If-Modified-Since")
    if since is None or _is_before_epoch(since):
        return None
    for name in ("Last-Modified", "Content-Type"):
        request.responseHeaders.removeHeader(name)
    return nothing(request, 304)


def _is_before_epoch(text: str) -> bool:
    try:
        return parsedate_to_datetime(text).timestamp() < 0
    except (ValueError, TypeError, OverflowError, IndexError):
        return False
