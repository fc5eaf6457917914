"""Lists in pages: `n`, `last` and the `Link` to what comes next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from txregistry.model.paging import next_link, page_size
from txregistry.web.messages import query
from txregistry.web.request import RegistryRequest

#: Asked for more than this, a page is shorter and has a `Link`.
_MAXIMUM = 10_000


async def paged(
    request: RegistryRequest,
    url: str,
    names: Callable[[str, int | None], Awaitable[list[str]]],
    default: int | None = None,
) -> list[str]:
    """The page that a request asks for; sets `Link` when more is left.

    `names(after, limit)` gives up to `limit` sorted names greater than `after`.
    """
    size = page_size(query(request, "n"), _MAXIMUM, default)
    if size == 0:
        return []
    found = await names(query(request, "last") or "", None if size is None else size + 1)
    if size is not None and len(found) > size:
        found = found[:size]
        request.setHeader("Link", next_link(url, [("last", found[-1]), ("n", str(size))]))
    return found
