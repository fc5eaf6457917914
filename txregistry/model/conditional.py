"""Conditional requests by entity tag (RFC 9110, 13): the tag of content is its digest."""

from __future__ import annotations

import re

#: One member of a list: weak or not, quoted or, as several clients send digests, bare.
_MEMBER = re.compile(r'\s*(W/)?(?:"([^"]*)"|([^\s",]+))\s*(?:,|\Z)')


def entity_tag(value: object) -> str:
    """The `ETag` of content that has this digest."""
    return f'"{value}"'


def none_match(header: str | None, value: object) -> bool:
    """Whether `If-None-Match` names this content, so that a GET is answered with 304.

    Tags count by weak comparison, `*` matches whatever is there; text that is no list of tags ends the reading of it.
    """
    if header is None:
        return False
    if header.strip() == "*":
        return True
    wanted = str(value)
    position = 0
    while position < len(header):
        member = _MEMBER.match(header, position)
        if member is None:
            return False
        if wanted in (member[2], member[3]):
            return True
        position = member.end()
    return False


def range_holds(if_range: str | None, value: object) -> bool:
    """Whether a `Range` still counts beside this `If-Range`; a date or a weak tag never matches (RFC 9110, 13.1.5)."""
    return if_range is None or if_range.strip() in (entity_tag(value), str(value))
