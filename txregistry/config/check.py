"""The text of `txregistry config check`: what would run, secrets masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from txregistry.config.keys import Block, Key
from txregistry.config.kinds import without_login
from txregistry.config.schema import KEYS
from txregistry.config.settings import Settings

_MASK = "****"


def check(settings: Settings) -> str:
    """What would run with these settings: the decisions, then each key that is set and read, with where."""
    lines = [
        f"file:     {settings.source or 'none, the embedded default'}",
        f"flavor:   {settings.flavor}",
        f"listens:  {', '.join(settings.listen)}",
        f"stores:   {_stores(settings)}",
        f"access:   {_access(settings)}",
        f"deletes:  {'allowed' if settings.delete else 'refused'}",
        "",
        "keys that are set:",
    ]
    engines = {settings.storage.engine, settings.storage.alternate}
    given = (
        key
        for key in KEYS
        if key.name in settings.values and (not key.engines or engines.intersection(key.engines))
    )
    lines += [_line(key, settings.values[key.name], settings.origins[key.name]) for key in given]
    lines += ["", "warnings:" if settings.warnings else "no warnings"]
    lines += [f"  {warning}" for warning in settings.warnings]
    return "\n".join(lines) + "\n"


def _line(key: Key, value: object, origin: str) -> str:
    return f"  {key.name} = {_shown(key, value)}  ({origin})"


def _stores(settings: Settings) -> str:
    storage = settings.storage
    parts = [storage.engine]
    if storage.engine in ("s3", "gcs"):
        parts.append(f"bucket {storage.keys['boto_bucket']}")
    if storage.path is not None:
        parts.append(
            f"{'folder' if 'local' in (storage.engine, storage.alternate) else 'prefix'} {storage.path}"
        )
    if storage.alternate is not None:
        parts.append(f"alternate {storage.alternate}")
    return ", ".join(parts)


def _access(settings: Settings) -> str:
    if settings.standalone:
        return "standalone"
    if settings.disable_token_auth:
        return "open, without index routes"
    return f"tokens of {without_login(settings.index_endpoint)}"


def _shown(key: Key, value: object) -> str:
    """A value on one line, as a file might write it; secrets are masked, at every depth."""
    if key.secret:
        return _MASK
    if isinstance(key.kind, Block):
        if not isinstance(value, Mapping):
            return "off"
        inner = (f"{sub.name}: {_shown(sub, value[sub.name])}" for sub in key.kind.keys if sub.name in value)
        return "{" + ", ".join(inner) + "}"
    return shown(value)


def shown(value: Any) -> str:
    """A plain value on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return without_login(ascii(value)[1:-1])
    if isinstance(value, Sequence):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return "none" if value is None else str(value)
