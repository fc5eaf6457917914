"""What a request brings along for Glance: a token of its client's, and the Glance that it is for.

A registry in front of OpenStack may serve each client with the client's own rights. Which Glance is asked is the
operator's decision, though: whoever could name any address would let the registry send requests there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from txregistry.errors import Denied

#: The headers, in lower case.
TOKEN, ENDPOINT = "x-meta-auth-token", "x-meta-glance-endpoint"

#: Visible ASCII but for the comma, which would mean that there were two of them.
_TOKEN = re.compile(r"[!-+\--~]{1,16384}\Z")


@dataclass(frozen=True, slots=True)
class GlanceAccess:
    """A client's own token for Glance; `endpoint` is a URL, or None for the one that is configured."""

    token: str = field(repr=False)
    endpoint: str | None = None


def glance_access(headers: Mapping[str, str], allowed: Collection[str]) -> GlanceAccess | None:
    """What the headers of a request, by names in lower case, say; None without, and if no endpoint is `allowed`.

    Those are URLs without a slash at their end. Denied for another endpoint, for one without a token, which would get
    to see the registry's own, and for what is no token.
    """
    if not allowed:
        return None
    token, endpoint = headers.get(TOKEN), headers.get(ENDPOINT)
    if not token:
        if endpoint:
            raise Denied(message="X-Meta-Glance-Endpoint needs an X-Meta-Auth-Token")
        return None
    if not _TOKEN.match(token):
        raise Denied(message="X-Meta-Auth-Token is no token")
    if not endpoint:
        return GlanceAccess(token)
    if endpoint.rstrip("/") not in allowed:
        raise Denied(message="X-Meta-Glance-Endpoint is none of glance_request_endpoints")
    return GlanceAccess(token, endpoint.rstrip("/"))
