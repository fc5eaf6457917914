"""The one Klein app: every route of every dialect."""

from __future__ import annotations

from dataclasses import dataclass

from klein import Klein
from klein.resource import KleinResource

from txregistry.auth.guard import Guard
from txregistry.core.registry import Registry
from txregistry.interfaces import IRedirects
from txregistry.web import problems
from txregistry.web.accel import Accelerator, HandsOver, Redirector
from txregistry.web.cors import Cors, CorsRules
from txregistry.web.resource import RegistryResource
from txregistry.web.v1 import register as register_v1
from txregistry.web.v1.base import V1Options
from txregistry.web.v2 import register as register_v2


@dataclass(frozen=True, slots=True)
class WebOptions:
    """What an operator decides about URLs and what is shown in answers.

    `external_url` is the scheme and host that `Location` headers begin with, `flavor` is shown to V1 clients, and
    `registry_endpoints` (`host[:port]`) is where they are sent, if not to the host that they asked. One that is not
    `standalone` has an index elsewhere. `accel_prefix` is where an nginx in front shows the folder of the storage, and
    `cors` what web pages of other origins may do. `redirects` is the storage engine, if it is to send what is large.
    """

    external_url: str = ""
    flavor: str = "dev"
    registry_endpoints: tuple[str, ...] = ()
    standalone: bool = True
    accel_prefix: str | None = None
    cors: CorsRules | None = None
    redirects: IRedirects | None = None


def make_resource(
    registry: Registry, options: WebOptions | None = None, guard: Guard | None = None
) -> KleinResource:
    """The resource of a registry, for a `RegistrySite`. Without a guard, and with one that is open, all is allowed."""
    options = options or WebOptions()
    app = Klein()
    # Werkzeug would answer `//` and a missing slash with a redirect in HTML, which no registry client follows.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    accelerator: HandsOver | None = None
    if options.accel_prefix is not None:
        accelerator = Accelerator(options.accel_prefix)
    elif options.redirects is not None:
        accelerator = Redirector(options.redirects)
    v1 = V1Options(options.flavor, options.registry_endpoints, options.standalone, accelerator)
    if guard is None or guard.knows_v2:
        register_v2(app, registry, options.external_url, accelerator)
    register_v1(app, registry, v1)
    problems.handle_errors(app)
    return RegistryResource(app, v1.flavor, guard, None if options.cors is None else Cors(options.cors))
