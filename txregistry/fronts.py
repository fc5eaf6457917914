"""What the settings say about what stands before the registry: front ends, and web pages of other origins."""

from __future__ import annotations

from txregistry.config import Settings
from txregistry.interfaces import IRedirects
from txregistry.web.cors import EVERY, CorsRules
from txregistry.web.proxies import TrustedProxies


def proxies_of(settings: Settings) -> TrustedProxies | None:
    """The front ends that are believed, if there are any."""
    return TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None


def accel_prefix_of(settings: Settings) -> str | None:
    """By which path an nginx in front sends what is stored; None unless it is stored in files."""
    return settings.nginx_x_accel_redirect if settings.storage.engine == "local" else None


def redirects_of(settings: Settings, driver: object) -> IRedirects | None:
    """The storage engine, if clients are to be sent to it and it can sign addresses."""
    return IRedirects(driver) if settings.storage_redirect and IRedirects.providedBy(driver) else None


def cors_of(settings: Settings) -> CorsRules | None:
    """What web pages of other origins may do, if anything."""
    cors = settings.cors
    if cors is None or not cors.origins:
        return None
    return CorsRules(
        origins=cors.origins,
        methods=cors.methods,
        headers=cors.headers,
        expose_headers=cors.expose_headers,
        supports_credentials=cors.supports_credentials,
        max_age=cors.max_age,
    )


def front_warnings(settings: Settings) -> list[str]:
    """What of these settings will not do what it says."""
    found = []
    if settings.nginx_x_accel_redirect is not None and accel_prefix_of(settings) is None:
        found.append(
            f"nginx_x_accel_redirect has no effect with storage {settings.storage.engine}: nginx can send files alone"
        )
    if settings.storage_redirect and settings.storage.engine not in ("s3", "gcs"):
        found.append(f"storage_redirect has no effect with storage {settings.storage.engine}: it signs no addresses")
    if settings.cors is not None and settings.cors.supports_credentials and EVERY in settings.cors.origins:
        found.append('cors: supports_credentials has no effect with the origin "*"; name the origins')
    return found
