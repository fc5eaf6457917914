"""The search for repositories by a part of their name, in both dialects."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_plus

from txregistry.core.repositories import Repositories
from txregistry.core.v1.repositories import V1Repositories

#: Results in a page when the client asks for no number, and the most that it gets.
PAGE_SIZE, PAGE_LIMIT = 25, 100


@dataclass(frozen=True, slots=True)
class Found:
    """A page of names of repositories, and how many there are in all pages; `page` counts from 1."""

    names: list[str]
    total: int
    page: int
    page_size: int

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return -(-self.total // self.page_size)


class Search:
    """Over the repositories of V1 and of V2."""

    def __init__(self, v1: V1Repositories, v2: Repositories) -> None:
        self._v1 = v1
        self._v2 = v2

    async def find(self, term: str, page: int = 1, page_size: int = PAGE_SIZE) -> Found:
        """Names that contain the term, whatever its case, sorted; an empty one is in all of them."""
        size = min(max(page_size, 1), PAGE_LIMIT)
        page = max(page, 1)
        names = {f"{one.namespace}/{unquote_plus(one.name)}" for one in await self._v1.names()}
        names.update(await self._v2.names())
        wanted = term.casefold()
        matching = sorted(name for name in names if wanted in name.casefold())
        return Found(matching[(page - 1) * size : page * size], len(matching), page, size)
