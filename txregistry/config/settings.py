"""What the rest of the program reads: the configuration as typed, frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """Where a Redis is."""

    host: str
    port: int
    db: int
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """How exceptions are mailed: with `secure` by STARTTLS, showing `certfile` with `keyfile` if they are set.

    `login` and `password` are both set or both None; addresses may have a name beside them.
    """

    host: str
    port: int
    login: str | None
    password: str | None = field(repr=False)
    secure: bool
    keyfile: str | None
    certfile: str | None
    from_addr: str
    to_addr: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """What web pages of other origins may do; `max_age` is in seconds."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    expose_headers: tuple[str, ...]
    supports_credentials: bool
    max_age: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The engine and its keys.

    `path` is `storage_path`: an absolute folder if `engine` or `alternate` is local, otherwise a prefix as written.
    `keys` are the keys of the engine and its alternate by name, defaults included; `boto_bucket` is the bucket of S3
    and Google, whichever spelling was used.
    """

    engine: str
    path: str | None
    alternate: str | None
    keys: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One flavor of one configuration, checked; sizes are in bytes, times in seconds, paths absolute.

    `source` is the file (None: the embedded default) and `warnings` are lines to log at start. `access_log` is "-", a
    path, or None for none. `workers` is None for "auto". `values` are all keys that were set, by name and as read, and
    `origins` where each came from: a flavor's name, or an option of the command line.
    """

    flavor: str
    source: str | None
    warnings: tuple[str, ...]

    listen: tuple[str, ...]
    tls_certificate: str | None
    tls_key: str | None
    tls_client_ca: str | None
    external_url: str | None
    access_log: str | None
    loglevel: str
    threads: int
    workers: int | None
    trusted_proxies: tuple[str, ...]
    registry_endpoints: tuple[str, ...]
    nginx_x_accel_redirect: str | None
    storage_redirect: bool
    cors: Cors | None

    delete: bool
    max_manifest_size: int
    upload_purge_age: int
    accept_unknown_media_types: bool
    accept_missing_blobs: bool
    hooks: str | None

    standalone: bool
    index_endpoint: str
    disable_token_auth: bool
    secret_key: str | None = field(repr=False)
    privileged_key: str | None
    privileged_require_date: bool
    accounts: str
    users_file: str | None

    storage: Storage
    cache: Redis | None
    cache_lru: Redis | None
    mail: Mail | None

    values: Mapping[str, object] = field(repr=False)
    origins: Mapping[str, str] = field(repr=False)
