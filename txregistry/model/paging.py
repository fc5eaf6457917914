"""Paging through sorted names with `n`, `last` and `Link` (OCI distribution spec, "Listing Tags")."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from txregistry.errors import PaginationNumberInvalid


def page_size(text: str | None, maximum: int | None, default: int | None = None) -> int | None:
    """Read the `n` of a query: how many names a page may have, None for all.

    Without `n` it is `default`; above `maximum` it is that, as the `Link` leads to the rest. PaginationNumberInvalid
    for anything but a decimal number of zero or more.
    """
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()):
        raise PaginationNumberInvalid({"n": text[:40], "reason": "must be a whole number of zero or more"})
    digits = text.lstrip("0") or "0"
    if len(digits) > 18:  # a larger number than there are names; Python refuses to convert very long ones
        return maximum
    size = int(digits)
    return size if maximum is None else min(size, maximum)


def page(names: Sequence[str], size: int | None, last: str | None) -> tuple[list[str], bool]:
    """The part of `names` that comes after `last`, at most `size` of them, and whether more are left.

    `names` are sorted (as Python sorts text, which is the byte order of its UTF-8); `last` need not be among them.
    A page of no names has no next one.
    """
    begin = 0 if last is None else bisect_right(names, last)
    if size is None:
        return list(names[begin:]), False
    part = list(names[begin : begin + size])
    return part, bool(part) and begin + size < len(names)


def next_link(path: str, query: Sequence[tuple[str, str]]) -> str:
    """The value of a `Link` header that leads to the next page; everything is percent-encoded as it needs to be."""
    return f'<{quote(path, safe="/:")}?{urlencode(query, quote_via=quote, safe="", errors="replace")}>; rel="next"'
