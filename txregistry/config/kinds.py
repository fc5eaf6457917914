"""The kinds of values that a key can have: each reads what YAML or the environment gave and says what it allows."""

from __future__ import annotations

import ipaddress
import os.path
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from email.utils import getaddresses
from urllib.parse import urlsplit

LOGLEVELS = ("debug", "info", "warn", "error", "critical")

_SIZE = re.compile(r"(\d{1,15}) ?([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,12}) ?([smhdw]?)\Z", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_ENDPOINT = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.+)\Z", re.DOTALL)
_LOGIN = re.compile(r"(://)[^/?#\s]*@")
_PORT_FIRST = ("tcp", "tcp6", "ssl", "https")


class ConfigError(Exception):
    """A configuration that cannot be used; its text is one line with file, key, what was found and what is allowed."""


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """A value that `_env:` brought: the variable's `name`, its `text`, and that text read as YAML."""

    name: str
    text: str
    parsed: object


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the configuration: the start of an error line, what relative paths begin at, and the warnings so far.

    `source` is the file (empty for an option of the command line), `path` the keys down to this one, `home` what `~`
    stands for. What a `secret` key holds is shown in no error.
    """

    source: str
    path: str
    cwd: str
    home: str | None = None
    secret: bool = False
    warnings: list[str] = field(default_factory=list)

    def child(self, name: object) -> Where:
        """The place of the key `name` below this one."""
        return replace(self, path=f"{self.path}.{short(name)}")

    def item(self, index: int) -> Where:
        """The place of one item of a list."""
        return replace(self, path=f"{self.path}[{index}]")

    def line(self, text: str) -> str:
        """One line about this place."""
        return " ".join(f"{self.source}: {self.path}: {text}".removeprefix(": ").split())

    def warn(self, text: str) -> None:
        """Remember a warning about this place."""
        self.warnings.append(self.line(text))

    def error(self, text: str) -> ConfigError:
        """An error about this place, to be raised."""
        return ConfigError(self.line(text))

    def refuse(self, value: object, allowed: str, closest: str | None = None) -> ConfigError:
        """The error for a value of the wrong kind."""
        origin = ""
        if isinstance(value, FromEnvironment):
            origin = f" (from the environment variable {value.name})"
            value = value.text if isinstance(value.parsed, str) else value.parsed
        hint = f"; the closest is {closest}" if closest else ""
        return self.error(f"found {describe(value, secret=self.secret)}{origin}; allowed is {allowed}{hint}")

    def absolute(self, path: str) -> str:
        """A path of the file system, without `~`, relative ones taken from the working directory."""
        if self.home and (path == "~" or path.startswith("~/")):
            path = self.home + path[1:]
        return os.path.normpath(os.path.join(self.cwd, path))


def describe(value: object, *, secret: bool = False) -> str:
    """What a value is, in a few words on one line; of a secret only its type is told."""
    if isinstance(value, bool):
        return "true or false" if secret else str(value).lower()
    if isinstance(value, str):
        shown = ascii(without_login(value)[:60])
        return "text" if secret else f"the text {shown}{'...' if len(value) > 60 else ''}"
    if isinstance(value, int | float):
        # Python refuses to print whole numbers of thousands of digits.
        huge = isinstance(value, int) and value.bit_length() > 200
        return "a number" if secret or huge else f"the number {value}"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Mapping):
        return "a mapping"
    if value is None:
        return "nothing"
    return f"a {type(value).__name__}"


def without_login(text: str) -> str:
    """The text, with `****` for the user and password of each URL in it."""
    return _LOGIN.sub(r"\1****@", text)


def short(name: object) -> str:
    """The name of a key, whatever YAML made of it, as an error shows it."""
    text = name if isinstance(name, str) else describe(name)
    return ascii(text[:60])[1:-1]


def closest_to(name: str, known: list[str], likeness: float = 0.6) -> str | None:
    """The most similar of the `known` names, None if none is alike to the degree `likeness` from 0 to 1."""
    found = get_close_matches(name.lower()[:100], known, n=1, cutoff=likeness)
    return found[0] if found else None


class Kind(ABC):
    """How the value of a key is read; `allowed` completes the sentence "allowed is ..."."""

    allowed: str

    @abstractmethod
    def read(self, value: object, where: Where) -> object:
        """The value as the program uses it; ConfigError if it is not of this kind."""


class Scalar(Kind):
    """A single value; `convert` raises ValueError for what is not allowed.

    With `literal` a variable of the environment is taken as the text that it is, so that a password of digits stays
    text; a pair of quotes around it goes. Otherwise what YAML makes of it is used.
    """

    def __init__(
        self,
        allowed: str,
        convert: Callable[[object], object],
        *,
        literal: bool = False,
        names: tuple[str, ...] = (),
    ) -> None:
        self.allowed = allowed
        self.convert = convert
        self.literal = literal
        self.names = names

    def read(self, value: object, where: Where) -> object:
        """The converted value."""
        plain = value
        if isinstance(value, FromEnvironment):
            plain = _unquoted(value) if self.literal else value.parsed
            # `1` and `0` are how the environment says true and false.
            if self.convert is _boolean and type(plain) is int and plain in (0, 1):
                plain = bool(plain)
        try:
            return self.convert(plain)
        except ValueError:
            # Names of engines are short: s4 and s3 are half alike.
            closest = closest_to(plain, list(self.names), 0.5) if isinstance(plain, str) else None
            # Whoever wrote a number or `yes` where text is wanted forgot the quotes.
            unquoted = self.convert is _text and not isinstance(plain, str | list | Mapping)
            raise where.refuse(value, self.allowed + " in quotes" * unquoted, closest) from None


class ListOf(Kind):
    """A list of values of one kind; a single value counts as a list of one. Read as a tuple.

    Text is split at commas first if `commas` is set.
    """

    def __init__(self, item: Scalar, *, commas: bool = False) -> None:
        self.item = item
        self.commas = commas
        self.allowed = f"{item.allowed}, or a list of them"

    def read(self, value: object, where: Where) -> tuple[object, ...]:
        """The items in order."""
        content = value.parsed if isinstance(value, FromEnvironment) else value
        if isinstance(content, list):
            return tuple(self.item.read(item, where.item(index)) for index, item in enumerate(content))
        text = value.text if isinstance(value, FromEnvironment) else value
        if self.commas and isinstance(text, str):
            return tuple(self.item.read(part.strip(), where) for part in text.split(",") if part.strip())
        if isinstance(content, Mapping):
            raise where.refuse(value, self.allowed)
        return (self.item.read(value, where),)


def _unquoted(value: FromEnvironment) -> str:
    text = value.text.strip()
    return value.parsed if text[:1] in ("'", '"') and isinstance(value.parsed, str) else text


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _integer(value: object) -> int:
    """A whole number; digits in quotes count, as they did in the original's Redis blocks."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


def whole(low: int, high: int, *, also: str | None = None) -> Scalar:
    """A whole number from `low` to `high`, or the one word `also`."""

    def convert(value: object) -> int | str:
        if also is not None and isinstance(value, str) and value.lower() == also:
            return also
        number = _integer(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return Scalar(f"a whole number from {low} to {high}" + (f", or {also}" if also else ""), convert)


def choice(*names: str, **spellings: str) -> Scalar:
    """One of `names` in any case; `spellings` are other words for some of them."""

    def convert(value: object) -> str:
        name = _text(value).lower()
        name = spellings.get(name, name)
        if name not in names:
            raise ValueError
        return name

    return Scalar("one of " + ", ".join(names), convert, literal=True, names=(*names, *spellings))


def size(low: int, high: int) -> Scalar:
    """A number of bytes, the units K, M, G and T counting in 1024s."""

    def convert(value: object) -> int:
        if isinstance(value, str):
            match = _SIZE.match(value)
            if not match:
                raise ValueError
            value = int(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")
        number = _integer(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return Scalar(f"a size from {low} to {high} bytes, such as 4194304 or 4M", convert)


def duration(low: int, high: int) -> Scalar:
    """A time in seconds, or with one of the units s, m, h, d, w."""

    def convert(value: object) -> int:
        if isinstance(value, str):
            match = _DURATION.match(value)
            if not match:
                raise ValueError
            value = int(match[1]) * _SECONDS[match[2].lower()]
        number = _integer(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return Scalar(f"a time from {low} to {high} seconds, such as 3600, 90s, 15m, 12h or 7d", convert)


def _url(value: object) -> str:
    parts = urlsplit(_text(value))
    parts.port  # noqa: B018 -- raises ValueError if it is no port
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    return _text(value).rstrip("/")


def _mail_address(value: object) -> str:
    """An address, alone or as `NAME <ADDRESS>`: what SMTP's commands can carry, and one line of a header."""
    text = _text(value).strip()
    found = getaddresses([text])
    if len(found) != 1 or not re.fullmatch(r"[!-~]+", found[0][1]) or not text.isprintable():
        raise ValueError
    if text != found[0][1] and not text.endswith(f"<{found[0][1]}>"):
        raise ValueError
    return text


def _endpoint(value: object) -> str:
    match = _ENDPOINT.match(_text(value))
    if not match:
        raise ValueError
    if match[1].lower() in _PORT_FIRST and "port=" not in match[2]:
        port = match[2].split(":")[0]
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ValueError
    return _text(value)


def _network(value: object) -> str:
    return str(ipaddress.ip_network(_text(value), strict=False))


def _uri_prefix(value: object) -> str:
    text = _text(value).rstrip("/")
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+", text):
        raise ValueError
    return text


def _dotted_name(value: object) -> str:
    text = _text(value)
    if "." not in text or not all(part.isidentifier() for part in text.split(".")):
        raise ValueError
    return text


def _access_log(value: object) -> str:
    # YAML reads a bare `off` as false.
    if value is False or (isinstance(value, str) and value.lower() == "off"):
        return "off"
    return _text(value)


class _Path(Scalar):
    def read(self, value: object, where: Where) -> str:
        return where.absolute(str(super().read(value, where)))


class _AccessLog(Scalar):
    def read(self, value: object, where: Where) -> str:
        text = str(super().read(value, where))
        return text if text in ("-", "off") else where.absolute(text)


TEXT = Scalar("text", _text, literal=True)
PATH = _Path("a path", _text, literal=True)
BOOL = Scalar("true or false", _boolean)
PORT = whole(1, 65535)
URL = Scalar("a URL such as https://registry.example.com", _url, literal=True)
LOGLEVEL = choice(*LOGLEVELS, warning="warn")
ENDPOINT = Scalar(
    "an endpoint such as tcp:5000, tcp:5000:interface=127.0.0.1, https:5443 or unix:/run/registry.sock",
    _endpoint,
    literal=True,
)
MAIL_ADDRESS = Scalar("a mail address such as ops@example.com", _mail_address, literal=True)
URI_PREFIX = Scalar("a path such as /docker-registry", _uri_prefix, literal=True)
DOTTED_NAME = Scalar("a dotted name such as package.module.name", _dotted_name, literal=True)
NETWORK = Scalar("an address or a network such as 10.0.0.0/8", _network, literal=True)
ACCESS_LOG = _AccessLog('"-" (in quotes), a path, or off', _access_log, literal=True)
