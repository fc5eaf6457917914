"""What a key is, and how a mapping of keys is read against a table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from txregistry.config.kinds import FromEnvironment, Kind, Where, closest_to


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its `name`, the kind of its value, the `default` as a file would write it (None: absent), its meaning.

    `aliases` are other spellings of the name. `engines` are the storage engines that read it (empty: not an engine's
    key), `needed_by` those that cannot start without. `secret` values are shown nowhere.
    """

    name: str
    kind: Kind
    default: object
    meaning: str
    aliases: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    needed_by: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Keys that belong together in the documentation."""

    title: str
    keys: tuple[Key, ...]


def read_keys(
    keys: Sequence[Key],
    content: Mapping[object, object],
    place: Callable[[object], Where],
    *,
    ignored: Mapping[str, str],
    allowed: str,
) -> dict[str, object]:
    """The values of `content` by the names of their keys, defaults left out.

    `place` tells where a name was written, `ignored` are names that only warn, with the reason. ConfigError for an
    unknown name (`allowed` tells the known ones), a value of the wrong kind, or two spellings that differ.
    """
    spelled = {spelling: key for key in keys for spelling in (key.name, *key.aliases)}
    values: dict[str, object] = {}
    written: dict[str, str] = {}
    for name, value in content.items():
        if not isinstance(name, str) or (name not in spelled and name not in ignored):
            closest = closest_to(name, [*spelled, *ignored]) if isinstance(name, str) else None
            hint = f"; the closest known key is {closest}" if closest else ""
            raise place(name).error(f"found an unknown key; allowed is {allowed}{hint}")
        if name in ignored:
            place(name).warn(f"has no effect here: {ignored[name]}")
            continue
        key = spelled[name]
        where = replace(place(name), secret=key.secret)
        read = key.kind.read(value, where)
        if key.name in values and values[key.name] != read:
            raise where.error(
                f"found another value than in {written[key.name]}; allowed is one of the two spellings"
            )
        values[key.name] = read
        written[key.name] = name
    return values


def default_of(key: Key) -> object:
    """The default of a key as the program uses it; ConfigError never happens, the tests read every one."""
    return None if key.default is None else key.kind.read(key.default, Where("default", key.name, "/"))


class Block(Kind):
    """A mapping of further keys, read as a dict of those that are set.

    false and an empty mapping switch the block off and are read as None; true means all the defaults if
    `true_allowed`.
    """

    def __init__(
        self, *keys: Key, ignored: Mapping[str, str] | None = None, true_allowed: bool = False
    ) -> None:
        self.keys = keys
        self.ignored = ignored or {}
        self.true_allowed = true_allowed
        self.allowed = (
            "a mapping of " + ", ".join(key.name for key in keys) + (", or true" if true_allowed else "")
        )

    def read(self, value: object, where: Where) -> dict[str, object] | None:
        """The values that are set, None if the block is off."""
        content = value.parsed if isinstance(value, FromEnvironment) else value
        if content is False or content == {}:
            return None
        if content is True and self.true_allowed:
            content = {}
        if not isinstance(content, Mapping):
            raise where.refuse(value, self.allowed)
        allowed = "one of " + ", ".join(key.name for key in self.keys)
        return read_keys(self.keys, content, where.child, ignored=self.ignored, allowed=allowed)

    def filled(self, values: Mapping[str, object]) -> dict[str, object]:
        """All keys of the block, with their defaults where `values` has none."""
        return {key.name: values.get(key.name, default_of(key)) for key in self.keys}


class MailSecurity(Kind):
    """How mail is secured, read as (STARTTLS or not, key file, certificate file).

    true is STARTTLS; a path is a PEM file with the key and the certificate to show; a mapping names the two files.
    """

    def __init__(self, path: Kind) -> None:
        self.path = path
        self.allowed = "true, false, a path, or a mapping of keyfile and certfile"

    def read(self, value: object, where: Where) -> tuple[bool, object, object]:
        """The three values."""
        content = value.parsed if isinstance(value, FromEnvironment) else value
        if isinstance(content, bool):
            return content, None, None
        if isinstance(content, Mapping):
            files = Block(
                Key("keyfile", self.path, None, "the private key"),
                Key("certfile", self.path, None, "the certificate"),
            ).read(content, where)
            if not files or "keyfile" not in files:
                raise where.error(f"found a mapping without keyfile; allowed is {self.allowed}")
            return True, files["keyfile"], files.get("certfile", files["keyfile"])
        if not isinstance(content, str):
            raise where.refuse(value, self.allowed)
        path = self.path.read(value, where)
        return True, path, path
