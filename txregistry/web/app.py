"""The one Klein app: every route of every dialect."""

from __future__ import annotations

from dataclasses import dataclass

from klein import Klein
from klein.resource import KleinResource

from txregistry.core.registry import Registry
from txregistry.web import problems
from txregistry.web.v2 import register as register_v2


@dataclass(frozen=True, slots=True)
class WebOptions:
    """What an operator decides about URLs: `external_url` is the scheme and host that `Location` headers begin with."""

    external_url: str = ""
    flavor: str = "dev"


def make_resource(registry: Registry, options: WebOptions | None = None) -> KleinResource:
    """The resource of a registry, for a `RegistrySite`."""
    options = options or WebOptions()
    app = Klein()
    # Werkzeug would answer `//` and a missing slash with a redirect in HTML, which no registry client follows.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    register_v2(app, registry, options.external_url)
    problems.handle_errors(app)
    return app.resource()
