"""The search, which `docker search` and `podman search` use."""

from __future__ import annotations

from klein import Klein

from txregistry.core.v1.search import PAGE_SIZE
from txregistry.web.request import RegistryRequest
from txregistry.web.v1.base import Routes, route, value


class Search(Routes):
    """`/v1/search`."""

    def register(self, app: Klein) -> None:
        """Add the search."""
        route(app, "/v1/search", {"GET": self.find})

    async def find(self, request: RegistryRequest) -> bytes:
        """List repositories whose name contains `q`, of both dialects; `n` to a page, `page` counted from 1."""
        term = _query(request, "q")
        found = await self.v1.search.find(term, _number(request, "page", 1), _number(request, "n", PAGE_SIZE))
        report = {
            "query": term,
            "num_results": found.total,
            "results": [{"name": name, "description": ""} for name in found.names],
            "page": found.page,
            "page_size": found.page_size,
            "num_pages": found.pages,
        }
        return value(request, report)


def _query(request: RegistryRequest, name: str) -> str:
    values = request.args.get(name.encode("ascii"), [])
    return values[-1].decode("utf-8", "replace") if values else ""


def _number(request: RegistryRequest, name: str, default: int) -> int:
    """A number of the query; anything else asks for the default."""
    text = _query(request, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
