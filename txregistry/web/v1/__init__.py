"""The V1 protocol of docker-registry 0.6.5 and its successors, one module for each noun."""

from __future__ import annotations

from klein import Klein

from txregistry.core.registry import Registry
from txregistry.web.v1.base import Routes, V1Options
from txregistry.web.v1.files import Files
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
    nouns: list[type[Routes]] = [Status, Images, Layers, Files, Tags, Repositories, Index]
    if options.standalone:
        # Else an index elsewhere has the accounts, and knows who may find what.
        nouns += [Users, Search]
    for noun in nouns:
        noun(registry, options).register(app)
