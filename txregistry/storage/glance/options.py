"""The keys of the configuration that are about Glance, and the client that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from txregistry.storage.glance.client import Glance
from txregistry.storage.openstack.http import Http
from txregistry.storage.openstack.keystone import Keystone, KeystoneOptions


@dataclass(frozen=True, slots=True)
class GlanceOptions:
    """Where Glance is, and who we are there; without a Keystone it is one that asks nobody."""

    url: str | None = None
    region: str | None = None
    cacert: str | None = None
    keystone: KeystoneOptions | None = None
    missing: tuple[str, ...] = ()  # keys without which it cannot be used

    def client(self, http: Http) -> Glance:
        """A client that speaks through `http`."""
        keystone = None if self.keystone is None else Keystone(self.keystone, http)
        return Glance(http, keystone, self.url, self.region)


def from_keys(keys: Mapping[str, Any]) -> GlanceOptions:
    """The options of the keys of this engine by name."""
    given = {name.removeprefix("os_"): value for name, value in keys.items() if name.startswith("os_")}
    url, auth_url = given.get("glance_url"), given.get("auth_url")
    who = {name: given.get(name) for name in ("username", "password", "project_name")}
    credential = {name: given.get(name) for name in ("application_credential_id", "application_credential_secret")}
    domains = {
        f"{whose}_domain_{what}": given.get(f"{whose}_domain_{what}")
        for whose in ("user", "project")
        for what in ("name", "id")
    }
    asked = credential if any(credential.values()) else who
    if auth_url is None and url is not None and not any({**who, **credential}.values()):
        return GlanceOptions(url, given.get("region_name"), given.get("cacert"))
    missing = [f"os_{name}" for name, value in {"auth_url": auth_url, **asked}.items() if not value]
    keystone = None if missing else KeystoneOptions(auth_url=str(auth_url), **{**asked, **domains})
    return GlanceOptions(url, given.get("region_name"), given.get("cacert"), keystone, tuple(missing))
