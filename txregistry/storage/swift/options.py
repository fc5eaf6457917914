"""What the Swift engine is told: from the configuration's keys to one value that the rest of the package reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from txregistry.storage.openstack.keystone import KeystoneOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TempAuthOptions:
    """Where to sign in by version 1, and as whom."""

    auth_url: str
    user: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiftOptions:
    """A container, what the names of all objects begin with, and how to sign in."""

    container: str
    auth: TempAuthOptions | KeystoneOptions
    root: str = ""
    region: str | None = None
    cacert: str | None = None

    @property
    def place(self) -> str:
        """The container and where one signs in, for people."""
        return f"container {self.container} at {self.auth.auth_url}"


def root_of(storage_path: str | None) -> str:
    """What all names begin with, exactly as docker-registry had it: one slash behind, and one in front dropped."""
    return f"{storage_path or '/'}/".removeprefix("/")


def from_keys(storage_path: str | None, keys: Mapping[str, Any]) -> SwiftOptions:
    """The options from the keys of the configuration, defaults included."""
    auth: TempAuthOptions | KeystoneOptions
    if keys["swift_auth_version"] == 1:
        auth = TempAuthOptions(auth_url=str(keys["swift_authurl"]), user=keys["swift_user"], key=keys["swift_password"])
    else:
        auth = KeystoneOptions(
            auth_url=str(keys["swift_authurl"]),
            username=keys["swift_user"],
            password=keys["swift_password"],
            project_name=keys["swift_tenant_name"] or None,
            user_domain_name=keys["swift_user_domain_name"] or None,
            project_domain_name=keys["swift_project_domain_name"] or None,
        )
    return SwiftOptions(
        container=keys["swift_container"],
        auth=auth,
        root=root_of(storage_path),
        region=keys["swift_region_name"] or None,
        cacert=keys.get("os_cacert") or None,
    )
