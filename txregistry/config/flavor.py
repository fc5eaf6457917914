"""One flavor of a document: `common` below it, `_env:` values expanded, placeholders dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from txregistry.config import document
from txregistry.config.kinds import ConfigError, FromEnvironment, closest_to, describe, short

#: What samples put where a value belongs; it counts as absent.
PLACEHOLDER = "REPLACEME"

_DEEPEST = 16


@dataclass(slots=True)
class Flavor:
    """The keys of one flavor: `content` by name, `origins` (this flavor or `common`) and why some are `absent`."""

    name: str
    content: dict[object, object] = field(default_factory=dict)
    origins: dict[object, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def choose(flavors: Mapping[object, object], name: str, source: str, environ: Mapping[str, str]) -> Flavor:
    """The flavor `name`, merged over `common` key by key (a block replaces a whole block), then expanded.

    ConfigError if it is not there or not a mapping.
    """
    if name not in flavors:
        known = [
            str(flavor)
            for flavor, keys in flavors.items()
            if isinstance(flavor, str) and isinstance(keys, dict)
        ]
        closest = closest_to(name, known)
        hint = f"; the closest is {closest}" if closest else ""
        allowed = f"one of {', '.join(known)}" if known else "a flavor that is in the file, and it has none"
        line = f"{source}: flavor: found {name!a}, which is not in the file; allowed is {allowed}{hint}"
        raise ConfigError(" ".join(line.split()))
    flavor = Flavor(name)
    for layer in dict.fromkeys(("common", name)):
        keys = flavors.get(layer)
        if keys is None:
            continue
        if not isinstance(keys, dict):
            line = f"{source}: {layer}: found {describe(keys)}; allowed is a mapping of keys"
            raise ConfigError(" ".join(line.split()))
        for key, value in keys.items():
            flavor.content[key] = value
            flavor.origins[key] = layer
    for key, value in list(flavor.content.items()):
        expanded = _Expansion(source, environ, flavor.absent).expand(
            value, f"{flavor.origins[key]}.{short(key)}", 0
        )
        if expanded is None:
            del flavor.content[key]
        else:
            flavor.content[key] = expanded
    return flavor


@dataclass(frozen=True, slots=True)
class _Expansion:
    source: str
    environ: Mapping[str, str]
    absent: dict[str, str]

    def expand(self, value: object, path: str, depth: int) -> object:
        """The value with `_env:` read and what counts as absent left out; None if it is absent itself."""
        if depth > _DEEPEST:
            raise ConfigError(" ".join(f"{self.source}: {path[:60]}...: nested too deeply".split()))
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, dict):
            pairs = (
                (key, self.expand(item, f"{path}.{short(key)}", depth + 1)) for key, item in value.items()
            )
            return {key: item for key, item in pairs if item is not None}
        if isinstance(value, list):
            items = (self.expand(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value))
            return [item for item in items if item is not None]
        return value

    def _text(self, value: str, path: str) -> object:
        if value == PLACEHOLDER:
            self.absent[path] = f"it is still {PLACEHOLDER}"
        if value in ("", PLACEHOLDER):
            return None
        if not value.startswith("_env:"):
            return value
        _, name, *default = value.split(":", 2)
        text = self.environ.get(name)
        if text is None:
            if not default:
                self.absent[path] = f"the environment variable {name} is not set"
                return None
            text = default[0]
        found = from_environment(name, text)
        if found is None:
            self.absent[path] = f"the environment variable {name} is empty or a placeholder"
        return found


def from_environment(name: str, text: str) -> FromEnvironment | None:
    """The text of a variable, or of the default given for it, as a value; None if it counts as absent."""
    try:
        parsed = document.parse(text)
    except (yaml.YAMLError, RecursionError):
        parsed = text
    # Its own `_env:` are not followed: what comes from outside cannot ask for more.
    try:
        parsed = _Expansion("", {}, {}).expand(parsed, name, 0) if not isinstance(parsed, str) else parsed
    except ConfigError:
        parsed = text
    if parsed is None or parsed in ("", PLACEHOLDER):
        return None
    return FromEnvironment(name, text, parsed)
