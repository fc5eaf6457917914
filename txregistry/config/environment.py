"""The environment that start scripts of docker-registry read, taken for the keys that it means here.

A key of the file wins, and so does an option of the command line. `SETTINGS_FLAVOR`, `DOCKER_REGISTRY_CONFIG` and what
`_env:` names are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from txregistry.config.flavor import from_environment
from txregistry.config.keys import Key
from txregistry.config.kinds import FromEnvironment, Where

#: What an origin of a key begins with that is a variable of the environment.
SIGN = "$"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable and the key that it stands for, of one storage engine or of all (None).

    `also` is another key that says the same. Unless it is `ours` other programs set it, too, and no word is lost on it
    where it means nothing.
    """

    name: str
    key: str
    engine: str | None = None
    also: str | None = None
    ours: bool = True


VARIABLES = (
    Variable("REGISTRY_PORT", "listen"),
    Variable("PORT_WWW", "listen"),
    Variable("GUNICORN_WORKERS", "workers"),
    Variable("WORKER_SECRET_KEY", "secret_key"),
    Variable("S3_BUCKET", "s3_bucket", "s3", also="boto_bucket"),
    Variable("AWS_ACCESS_KEY_ID", "s3_access_key", "s3", ours=False),
    Variable("AWS_SECRET_KEY", "s3_secret_key", "s3", ours=False),
    Variable("S3_ENCRYPT", "s3_encrypt", "s3"),
    Variable("S3_SECURE", "s3_secure", "s3"),
    Variable("SWIFT_CONTAINER", "swift_container", "swift"),
    Variable("OS_AUTH_URL", "swift_authurl", "swift"),
    Variable("OS_USERNAME", "swift_user", "swift"),
    Variable("OS_PASSWORD", "swift_password", "swift"),
    Variable("OS_TENANT_NAME", "swift_tenant_name", "swift"),
    Variable("OS_REGION_NAME", "swift_region_name", "swift"),
    Variable("OS_AUTH_URL", "os_auth_url", "glance"),
    Variable("OS_USERNAME", "os_username", "glance"),
    Variable("OS_PASSWORD", "os_password", "glance"),
    Variable("OS_TENANT_NAME", "os_project_name", "glance"),
    Variable("OS_REGION_NAME", "os_region_name", "glance"),
    Variable("OS_GLANCE_URL", "os_glance_url", "glance"),
)

#: Variables that mean nothing here, each with the reason that its warning gives.
WITHOUT_EFFECT = {
    "GUNICORN_GRACEFUL_TIMEOUT": "how long a worker that retires may take is fixed",
    "GUNICORN_SILENT_TIMEOUT": "a worker is never killed for being slow",
}


class Environment:
    """Fills in `values` what the file left out, and notes in `origins` where it came from."""

    def __init__(
        self, keys: Mapping[str, Key], values: dict[str, object], origins: dict[object, str], root: Where
    ) -> None:
        self._keys = keys
        self._values = values
        self._origins = origins
        self._root = root

    def take(self, environ: Mapping[str, str], engines: set[str], interface: str | None) -> None:
        """Read the variables that mean something to these engines; ConfigError for a value of the wrong kind.

        Ports are those of one `interface`, or of all addresses. What is set and means nothing gives a warning.
        """
        idle: dict[str, None] = {}
        used: set[str] = set()
        for variable in VARIABLES:
            given = from_environment(variable.name, environ.get(variable.name, ""))
            if given is None:
                continue
            if variable.engine is None or variable.engine in engines:
                used.add(variable.name)
                self._take(variable, given, interface)
            elif variable.ours:
                idle[variable.name] = None
        names = [name for name in idle if name not in used]
        if names:
            self._place(", ".join(names)).warn(f"no effect, as storage is {' and '.join(sorted(engines))}")
        for name, reason in WITHOUT_EFFECT.items():
            if environ.get(name):
                self._place(name).warn(f"no effect here: {reason}")

    def _take(self, variable: Variable, given: FromEnvironment, interface: str | None) -> None:
        where = self._place(variable.name)
        value: object = given
        if variable.key == "listen":
            if type(given.parsed) is not int or not 0 <= given.parsed < 65536:
                # Containers that are linked to one called `registry` find tcp://ADDRESS:PORT in it.
                where.warn("no effect, as it is no port")
                return
            value = f"tcp:{given.parsed}" + (f":interface={interface}" if interface else "")
        key = self._keys[variable.key]
        read = key.kind.read(value, replace(where, secret=key.secret))
        for name in (variable.key, variable.also):
            if name is not None and name in self._values:
                if self._values[name] != read:
                    where.warn(f"no effect, as {name} is set{self._by(name)}")
                return
        self._values[variable.key] = read
        self._origins[variable.key] = SIGN + variable.name

    def _by(self, name: str) -> str:
        origin = self._origins.get(name, "")
        return f" by {origin}" if origin.startswith(SIGN) else ""

    def _place(self, names: str) -> Where:
        return replace(self._root, source="", path=names)
