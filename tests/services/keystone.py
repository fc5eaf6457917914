"""A real Keystone on a free port of the loopback interface, over a folder of its own; one for all tests of a process.

There is an ordinary user `registry`, whose password is its name, in a project of the same name; service users `glance`
and `swift`; and `admin`.
"""

import json
import sqlite3
import urllib.error
import urllib.request
from functools import cache
from typing import Any

from tests.services.openstack import Servers, free_ports

# Keystone would take the command line of another server's program for its own.
_SERVE = """
import sys
port = int(sys.argv.pop())
from keystone.wsgi.api import application
from waitress import serve
serve(application, host="127.0.0.1", port=port, threads=4)
"""


class Keystone(Servers):
    """Keystone, started; `catalog` puts addresses of services into its catalog."""

    def __init__(self, token_seconds: int = 3600) -> None:
        super().__init__()
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}/v3"
        self._conf = str(self.folder / "keystone.conf")
        for name in ("fernet", "policy.d"):
            (self.folder / name).mkdir(mode=0o700)
        self._configure(token_seconds)
        # Without a journal of its own for writes it locks itself out of its file.
        with sqlite3.connect(self.folder / "keystone.sqlite") as database:
            database.execute("pragma journal_mode=wal")
        database.close()
        self._manage("db_sync")
        self._manage("fernet_setup", "--keystone-user", "root", "--keystone-group", "root")
        urls = [f"--bootstrap-{which}-url={self.url}" for which in ("public", "internal", "admin")]
        self._manage("bootstrap", "--bootstrap-password", "admin", "--bootstrap-region-id", "RegionOne", *urls)
        self.start()
        self._populate()

    def _configure(self, token_seconds: int) -> None:
        folder = self.folder
        (folder / "keystone.conf").write_text(f"""
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.sqlite
sqlite_synchronous = false
[token]
provider = fernet
expiration = {token_seconds}
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[oslo_policy]
policy_dirs = {folder}/policy.d
""")

    def _manage(self, *command: str) -> None:
        self.run("keystone-manage", "--config-file", self._conf, *command)

    def start(self) -> None:
        """Start it, and return when it answers."""
        environment = {"OS_KEYSTONE_CONFIG_FILES": self._conf, "OS_KEYSTONE_CONFIG_DIR": str(self.folder)}
        self.start_program("keystone", ["python", "-c", _SERVE, str(self.port)], environment)
        self.wait_for(self.url)

    # -- its contents -------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[Any, str]:
        """A request to its API: the answer and the token that it has; an error is in the answer's `error`."""
        headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                text = answer.read()
                return json.loads(text) if text else {}, answer.headers.get("X-Subject-Token", "")
        except urllib.error.HTTPError as error:
            return json.loads(error.read()), ""

    def sign_in(self, name: str) -> str:
        """A token of one of its users."""
        project = {"glance": "service", "swift": "service"}.get(name, name)
        domain = {"id": "default"}
        user = {"name": name, "password": name, "domain": domain}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": project, "domain": domain}}
        answer, token = self.call("POST", "/auth/tokens", {"auth": {"identity": identity, "scope": scope}})
        assert token, answer
        return token

    def session(self, token: str) -> Any:
        """What Keystone says of a token of one of its users."""
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/auth/tokens", headers=headers)) as answer:
            return json.load(answer)["token"]

    def _ensure(self, kind: str, body: dict[str, Any], token: str) -> str:
        found, _ = self.call("GET", f"/{kind}s?name={body['name']}", token=token)
        if found[f"{kind}s"]:
            return str(found[f"{kind}s"][0]["id"])
        return str(self.call("POST", f"/{kind}s", {kind: body}, token)[0][kind]["id"])

    def _populate(self) -> None:
        token = self.sign_in("admin")
        roles = {name: self._ensure("role", {"name": name}, token) for name in ("admin", "member", "service")}
        for name, project, given in (
            ("glance", "service", ("admin", "service")),
            ("swift", "service", ("admin", "service")),
            ("registry", "registry", ("member",)),
        ):
            project_id = self._ensure("project", {"name": project, "domain_id": "default"}, token)
            user = {"name": name, "password": name, "domain_id": "default", "default_project_id": project_id}
            user_id = self._ensure("user", user, token)
            for role in given:
                self.call("PUT", f"/projects/{project_id}/users/{user_id}/roles/{roles[role]}", token=token)

    def catalog(self, service_type: str, url: str) -> None:
        """Put the public address of a service into the catalog; `%(tenant_id)s` in it is the project of the user."""
        token = self.sign_in("admin")
        found, _ = self.call("GET", f"/services?type={service_type}", token=token)
        if found["services"]:
            service = found["services"][0]["id"]
        else:
            new = {"service": {"type": service_type, "name": service_type}}
            service = self.call("POST", "/services", new, token)[0]["service"]["id"]
        endpoint = {"service_id": service, "interface": "public", "region_id": "RegionOne", "url": url}
        self.call("POST", "/endpoints", {"endpoint": endpoint}, token)

    def application_credential(self, name: str) -> tuple[str, str]:
        """A new application credential of a user: its id and its secret."""
        token = self.sign_in(name)
        path = f"/users/{self.session(token)['user']['id']}/application_credentials"
        made, _ = self.call("POST", path, {"application_credential": {"name": "registry"}}, token)
        return made["application_credential"]["id"], made["application_credential"]["secret"]


@cache
def shared_keystone() -> Keystone:
    """The one that the tests of this process share, as it takes long to start."""
    return Keystone()
