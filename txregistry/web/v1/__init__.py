"""The V1 protocol of docker-registry 0.6.5 and its successors, one module for each noun."""

from __future__ import annotations

from klein import Klein

from txregistry.core.registry import Registry
from txregistry.web.v1.base import V1Options
from txregistry.web.v1.images import Images
from txregistry.web.v1.index import Index
from txregistry.web.v1.layers import Layers
from txregistry.web.v1.repositories import Repositories
from txregistry.web.v1.search import Search
from txregistry.web.v1.status import Status
from txregistry.web.v1.tags import Tags
from txregistry.web.v1.users import Users


def register(app: Klein, registry: Registry, options: V1Options) -> None:
    """Add every route of V1 to the app."""
    for noun in (Status, Users, Images, Layers, Tags, Repositories, Index, Search):
        noun(registry, options).register(app)
