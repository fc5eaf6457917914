"""From a name to the mapping of flavors: which file is meant, and its YAML read safely."""

from __future__ import annotations

import os.path
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import yaml

from txregistry.config.kinds import ConfigError, describe

#: Looked for last, in this order; the second is where packages of the original kept theirs.
SYSTEM_FILES = ("/etc/txregistry/config.yml", "/etc/docker-registry.yml")

# What PyYAML says of a lone dash, which is how a user first writes `access_log: -`.
_LONE_DASH = "sequence entries are not allowed here"


class _Loader(yaml.SafeLoader):
    """The safe loader, stricter: a key given twice is an error, and every error has its line."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for name, _ in node.value:
                spelling = (name.tag, name.value) if isinstance(name, yaml.ScalarNode) else None
                if spelling in seen and name.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {name.value!a} is given twice", name.start_mark
                    )
                if spelling is not None:
                    seen.add(spelling)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            # Its converters raise whatever int(), date() and the like raise, KeyError and AttributeError too.
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"this cannot be read as {node.tag.removeprefix('tag:yaml.org,2002:')}",
                node.start_mark,
            ) from error


def parse(text: str | bytes) -> object:
    """The value of a YAML document; yaml.YAMLError or RecursionError if there is none."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def find(path: str | None, environ: Mapping[str, str], cwd: str) -> str | None:
    """The file to read: `path`, DOCKER_REGISTRY_CONFIG, config.yml in `cwd`, one of `SYSTEM_FILES`, or None.

    The first two are meant even if they do not exist.
    """
    named = path or environ.get("DOCKER_REGISTRY_CONFIG")
    if named:
        return os.path.normpath(os.path.join(cwd, named))
    for candidate in (os.path.join(cwd, "config.yml"), *SYSTEM_FILES):
        if os.path.isfile(candidate):
            return candidate
    return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A configuration file as it was at one moment, for whoever may not read it, or not again: no file if None."""

    source: str | None
    text: bytes = b""


def take(path: str | None, environ: Mapping[str, str], cwd: str) -> Snapshot:
    """The file to read, see `find`, with what is in it; ConfigError if it cannot be read."""
    source = find(path, environ, cwd)
    if source is None:
        return Snapshot(None)
    try:
        with open(source, "rb") as file:
            return Snapshot(source, file.read())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError(_one_line(f"{source}: cannot be read: {reason}")) from None


def flavors_of(source: str, text: bytes) -> dict[object, object]:
    """The flavors in the text of a file; ConfigError if it is not YAML or not a mapping."""
    try:
        document = parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        hint = ' (a lone "-" needs quotes)' if error.problem == _LONE_DASH else ""
        raise ConfigError(
            _one_line(f"{source}{place}: not YAML: {error.problem or error.context}{hint}")
        ) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            _one_line(f"{source}: not YAML: {error.reason} at position {error.position}")
        ) from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(_one_line(f"{source}: not YAML: nested too deeply")) from None
    if not isinstance(document, dict):
        raise ConfigError(_one_line(f"{source}: found {describe(document)}; allowed is a mapping of flavors"))
    return document


def _one_line(text: str) -> str:
    return " ".join(text.split())
