"""From a file, a flavor, the environment and the options of the command line to `Settings`."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from types import MappingProxyType
from typing import Any

from txregistry.config import document
from txregistry.config import flavor as flavors
from txregistry.config.environment import SIGN, Environment
from txregistry.config.keys import Block, default_of, read_keys
from txregistry.config.kinds import PORT, ConfigError, Where, short
from txregistry.config.schema import IGNORED, KEYS, MAIL
from txregistry.config.settings import Cors, Mail, Redis, Settings, Storage

_EMBEDDED = "embedded default"
_LOOPBACK = "tcp:5000:interface=127.0.0.1"
#: What origins begin with that are no flavors.
_ELSEWHERE = ("--", SIGN)
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says; each wins over the key of its name. Relative paths are below the working folder."""

    storage_path: str | None = None
    listen: tuple[str, ...] = ()
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    workers: str | None = None


def sample() -> str:
    """The commented sample, every key in it."""
    return resources.files("txregistry.config").joinpath("config_sample.yml").read_text(encoding="utf-8")


def load(
    path: str | None,
    flavor: str | None,
    environ: Mapping[str, str],
    cwd: str,
    options: Options = Options(),
    snapshot: document.Snapshot | None = None,
) -> Settings:
    """Read the configuration: the file `path` or the one that is found, and `flavor` or SETTINGS_FLAVOR or `dev`.

    Without any file the embedded default holds: local storage in the user's data folder, port 5000 of 127.0.0.1. With
    a `snapshot` no file is looked for or read. ConfigError says in one line what is wrong.
    """
    snapshot = snapshot or document.take(path, environ, cwd)
    source = snapshot.source
    name = flavor or environ.get("SETTINGS_FLAVOR") or "dev"
    if source is None:
        if name != "dev":
            places = ", ".join(("config.yml in the working directory", *document.SYSTEM_FILES))
            raise ConfigError(
                f"flavor: found {name!a}, but there is no configuration file; allowed is a file named by --config or"
                f" DOCKER_REGISTRY_CONFIG, {places}"
            )
        content: Mapping[object, object] = {"dev": _embedded(environ, options)}
    else:
        content = document.flavors_of(source, snapshot.text)
    chosen = flavors.choose(content, name, source or _EMBEDDED, environ)
    return _Reading(
        chosen, source, options, Where(source or _EMBEDDED, "", cwd, environ.get("HOME")), environ
    ).settings()


def _embedded(environ: Mapping[str, str], options: Options) -> dict[str, object]:
    content: dict[str, object] = {"storage": "local", "listen": _LOOPBACK}
    if options.storage_path:
        return content
    data, home = environ.get("XDG_DATA_HOME", ""), environ.get("HOME", "")
    if not os.path.isabs(data):
        if not os.path.isabs(home):
            raise ConfigError(
                "--storage-path: found nothing, and neither XDG_DATA_HOME nor HOME tells a folder for"
                " data; allowed is a path"
            )
        data = os.path.join(home, ".local", "share")
    content["storage_path"] = os.path.join(data, "txregistry")
    return content


class _Reading:
    """The steps from one flavor to its settings."""

    def __init__(
        self,
        flavor: flavors.Flavor,
        source: str | None,
        options: Options,
        root: Where,
        environ: Mapping[str, str],
    ) -> None:
        self.flavor = flavor
        self.source = source
        self.root = root
        self.origins: dict[object, str] = dict(flavor.origins)
        self.values = read_keys(
            KEYS,
            flavor.content,
            self.place,
            ignored=IGNORED,
            allowed="a key that `txregistry config sample` shows",
        )
        self._take_environment(environ)
        self._take(options)
        self.values_and_defaults = {key.name: self.values.get(key.name, default_of(key)) for key in KEYS}

    def place(self, name: object) -> Where:
        """Where the key `name` was written."""
        origin = self.origins.get(name, self.flavor.name)
        path = origin if origin.startswith(_ELSEWHERE) else f"{origin}.{short(name)}"
        source = "" if origin.startswith(_ELSEWHERE) else self.root.source
        return replace(self.root, source=source, path=path)

    def _take_environment(self, environ: Mapping[str, str]) -> None:
        engines = {self.values.get("storage", default_of(_BY_NAME["storage"]))}
        if "glance" in engines:
            engines.add(self.values.get("storage_alternate", default_of(_BY_NAME["storage_alternate"])))
        interface = None
        if self.source is None:
            # The embedded default is no key that anybody set.
            self.values.pop("listen")
            interface = "127.0.0.1"
        environment = Environment(_BY_NAME, self.values, self.origins, self.root)
        environment.take(environ, {str(engine) for engine in engines}, interface)
        if self.source is None and "listen" not in self.values:
            self.values["listen"] = (_LOOPBACK,)

    def _take(self, options: Options) -> None:
        for option in fields(options):
            given = getattr(options, option.name)
            if not given:
                continue
            if isinstance(given, tuple):
                given = given[0] if len(given) == 1 else list(given)
            self.origins[option.name] = "--" + option.name.replace("_", "-")
            self.values[option.name] = _BY_NAME[option.name].kind.read(given, self.place(option.name))

    def settings(self) -> Settings:
        """The settings; ConfigError if keys do not go together."""
        every: dict[str, Any] = dict(self.values_and_defaults)
        every.update(self._transport())
        every.update(storage=self._storage(), cors=self._cors(), mail=self._mail())
        every.update(cache=self._redis("cache"), cache_lru=self._redis("cache_lru"))
        for listed in ("trusted_proxies", "registry_endpoints"):
            every[listed] = every[listed] or ()
        every["access_log"] = None if every["access_log"] == "off" else every["access_log"]
        every["workers"] = None if every["workers"] == "auto" else every["workers"]
        every.update(
            flavor=self.flavor.name,
            source=self.source,
            values=MappingProxyType(self.values),
            origins=MappingProxyType({name: self._origin(name) for name in self.values}),
            warnings=tuple(self.root.warnings),
        )
        return Settings(**{field.name: every[field.name] for field in fields(Settings)})

    def _origin(self, name: str) -> str:
        spellings = (name, *_BY_NAME[name].aliases)
        origin = next(self.origins[spelling] for spelling in spellings if spelling in self.origins)
        return origin if self.source or origin.startswith(_ELSEWHERE) else _EMBEDDED

    def _transport(self) -> dict[str, object]:
        every = self.values_and_defaults
        certificate, key = every["tls_certificate"], every["tls_key"]
        listen = every["listen"] or ("tcp:5000",)
        assert isinstance(listen, tuple)
        https = next((endpoint for endpoint in listen if endpoint.lower().startswith("https:")), None)
        if key and not certificate:
            raise self.place("tls_key").error(
                "found a key without a certificate; allowed is both, or tls_certificate"
                " alone with the key in its file"
            )
        if https and not certificate:
            raise self.place("listen").error(
                f"found {https!a}, but tls_certificate is missing; allowed is https:"
                " with tls_certificate and tls_key"
            )
        for name in ("tls_certificate", "tls_client_ca"):
            if every[name] and not https:
                self.place(name).warn("has no effect here: no endpoint of listen begins with https:")
        return {"listen": listen, "tls_key": key or certificate}

    def _storage(self) -> Storage:
        engine = self.values_and_defaults["storage"]
        assert isinstance(engine, str)
        alternate = self.values_and_defaults["storage_alternate"] if engine == "glance" else None
        engines = {engine, alternate}
        keys: dict[str, object] = {}
        bucket = self._bucket() if "s3" in engines else None
        for key in KEYS:
            readers = engines.intersection(key.engines)
            if not readers:
                continue
            value = self.values_and_defaults[key.name]
            if key.name == "boto_bucket":
                value = value or bucket
            for needing in sorted(engines.intersection(key.needed_by), key=str):
                if value is None:
                    raise self._missing(key.name, str(needing))
            if isinstance(key.kind, Block) and isinstance(value, dict):
                value = MappingProxyType(key.kind.filled(value))
            keys[key.name] = value
        path = self.values_and_defaults["storage_path"]
        keys.pop("storage_path", None)
        assert path is None or isinstance(path, str)
        assert alternate is None or isinstance(alternate, str)
        if path is not None and "local" in engines:
            path = self.root.absolute(path)
        if keys.get("fsync") is False:
            self.place("fsync").warn("a power cut may lose pushes that were acknowledged just before it")
        return Storage(engine=engine, path=path, alternate=alternate, keys=MappingProxyType(keys))

    def _bucket(self) -> object:
        boto, other = self.values.get("boto_bucket"), self.values.get("s3_bucket")
        if boto and other and boto != other:
            raise self.place("s3_bucket").error(
                f"found {other!a}, but boto_bucket is {boto!a}; allowed is one of them, or both alike"
            )
        return boto or other

    def _missing(self, name: str, engine: str) -> ConfigError:
        key = _BY_NAME[name]
        spellings = (
            name,
            *key.aliases,
            *(("s3_bucket",) if name == "boto_bucket" and engine == "s3" else ()),
        )
        reasons = [self.flavor.absent.get(f"{self.origins.get(other)}.{other}") for other in spellings]
        reason = next((f" ({text})" for text in reasons if text), "")
        spelled = next((other for other in spellings if other in self.origins), name)
        return self.place(spelled).error(
            f"found nothing{reason}; storage {engine} needs this key, allowed is {key.kind.allowed}"
        )

    def _redis(self, name: str) -> Redis | None:
        block = self._block(name)
        return Redis(**block) if block is not None else None

    def _cors(self) -> Cors | None:
        block = self._block("cors")
        if block is None or not block["origins"]:
            return None
        block["expose_headers"] = block["expose_headers"] or ()
        return Cors(**block)

    def _mail(self) -> Mail | None:
        flat = [key for key in MAIL.keys if key.name != "email_exceptions"]
        given = {key.name: self.values[key.name] for key in flat if key.name in self.values}
        block = self.values.get("email_exceptions")
        given.update(block if isinstance(block, dict) else {})
        if not given:
            return None
        place = self.place("email_exceptions" if block else next(iter(given)))
        missing = [name for name in ("smtp_host", "from_addr", "to_addr") if not given.get(name)]
        if missing:
            place.warn(f"no mail is sent, as there is no {' and no '.join(missing)}")
            return None
        every: dict[str, Any] = {key.name: given.get(key.name, default_of(key)) for key in flat}
        secure, keyfile, certfile = every.pop("smtp_secure")
        named = {name.removeprefix("smtp_"): value for name, value in every.items()}
        in_block = isinstance(block, dict) and "smtp_host" in block
        written = place.child("smtp_host") if in_block else self.place("smtp_host")
        named["host"], named["port"] = host_and_port(named["host"], named["port"], written)
        if (named["login"] is None) != (named["password"] is None):
            place.warn("there is no login at the mail server, which needs both smtp_login and smtp_password")
            named["login"] = named["password"] = None
        return Mail(secure=secure, keyfile=keyfile, certfile=certfile, **named)

    def _block(self, name: str) -> dict[str, Any] | None:
        block, kind = self.values.get(name), _BY_NAME[name].kind
        return kind.filled(block) if isinstance(kind, Block) and isinstance(block, dict) else None


def host_and_port(text: str, port: int, where: Where) -> tuple[str, int]:
    """The parts of `HOST` or `HOST:PORT`, with `port` if there is none; an IPv6 address needs brackets for the latter.

    ConfigError for what is no host, or no port.
    """
    host, colon, after = text.rpartition(":")
    if text.count(":") > 1 and not host.endswith("]"):
        host, colon, after = text, "", ""
    if not colon:
        host, after = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    read = PORT.read(after, where)
    if not host or any(letter.isspace() for letter in host):
        raise where.error(f"found the mail server {text!a}; allowed is HOST or HOST:PORT")
    return host, int(str(read))
