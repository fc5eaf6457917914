"""The OCI distribution API, one module for each noun."""

from __future__ import annotations

from klein import Klein

from txregistry.core.registry import Registry
from txregistry.web.accel import HandsOver
from txregistry.web.v2.base import Base
from txregistry.web.v2.blobs import Blobs
from txregistry.web.v2.catalog import Catalog
from txregistry.web.v2.manifests import Manifests
from txregistry.web.v2.referrers import Referrers
from txregistry.web.v2.tags import Tags
from txregistry.web.v2.uploads import Uploads


def register(
    app: Klein, registry: Registry, external_url: str, accelerator: HandsOver | None = None
) -> None:
    """Add every route below `/v2/` to the app."""
    Blobs(registry, external_url, accelerator).register(app)
    for noun in (Base, Uploads, Manifests, Tags, Referrers, Catalog):
        noun(registry, external_url).register(app)
