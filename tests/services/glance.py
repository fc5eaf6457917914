"""A real Glance on a free port of the loopback interface, over a folder of its own.

Without a Keystone everybody may do everything, and nobody is asked. What version 1 of its API wrote can be put into its
database, as no version that can be had speaks it.
"""

import sqlite3
import urllib.request
from collections.abc import Mapping
from functools import cache
from uuid import uuid4

from tests.services.keystone import Keystone, shared_keystone
from tests.services.openstack import Servers, free_ports

_PASTE = """
[pipeline:glance-api]
pipeline = versionnegotiation {filters} rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:unauthenticated-context]
paste.filter_factory = glance.api.middleware.context:UnauthenticatedContextMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
"""

_CONF = """
[DEFAULT]
log_file = {folder}/glance.log
enabled_backends = disk:file
image_cache_dir = {folder}/cache
[database]
connection = sqlite:///{folder}/glance.sqlite
sqlite_synchronous = false
[glance_store]
default_backend = disk
[disk]
filesystem_store_datadir = {folder}/images
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[paste_deploy]
config_file = {folder}/paste.ini
[oslo_policy]
policy_dirs = {folder}/policy.d
[oslo_concurrency]
lock_path = {folder}/lock
"""

# Everybody may do everything.
_OPEN = "enforce_new_defaults = false\nenforce_scope = false\n"

_AUTHTOKEN = """
[keystone_authtoken]
www_authenticate_uri = {url}
auth_url = {url}
auth_type = password
username = glance
password = glance
project_name = service
user_domain_name = Default
project_domain_name = Default
interface = public
token_cache_time = -1
service_token_roles_required = true
"""


class Glance(Servers):
    """Glance, started; it can be killed and started again on its port and its folder."""

    def __init__(self, keystone: Keystone | None = None) -> None:
        super().__init__()
        self.keystone = keystone
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        folder = self.folder
        for name in ("images", "staging", "tasks", "policy.d", "lock"):
            (folder / name).mkdir()
        filters = "unauthenticated-context" if keystone is None else "authtoken context"
        (folder / "paste.ini").write_text(_PASTE.format(filters=filters))
        conf = _CONF.format(folder=folder)
        if keystone is None:
            conf = conf.replace("[oslo_concurrency]", _OPEN + "[oslo_concurrency]")
        else:
            conf += _AUTHTOKEN.format(url=keystone.url)
            keystone.catalog("image", self.url)
        (folder / "glance-api.conf").write_text(conf)
        # Anybody may show an image to everybody, which a real one allows its administrators only.
        (folder / "policy.d" / "publicize.yaml").write_text('"publicize_image": ""\n')
        with self._database() as database:
            database.execute("pragma journal_mode=wal")
        self.run("glance-manage", "--config-file", str(folder / "glance-api.conf"), "db_sync")
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        environment = {"OS_GLANCE_CONFIG_DIR": str(self.folder), "OS_GLANCE_CONFIG_FILES": "glance-api.conf"}
        command = ["waitress-serve", "--host", "127.0.0.1", "--port", str(self.port), "--threads", "4"]
        command += ["--max-request-body-size", str(1 << 40)]  # or it takes less than a GiB
        self.start_program("glance", [*command, "glance.wsgi.api:application"], environment)
        self.wait_for(f"{self.url}/versions")

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "glance.sqlite", timeout=30)

    def clear(self) -> None:
        """Forget all images."""
        with self._database() as database:
            for table in ("image_properties", "image_locations", "image_tags", "image_members", "images"):
                database.execute(f"delete from {table}")
        database.close()
        for file in (self.folder / "images").iterdir():
            file.unlink()

    def write_v1(self, docker_id: str, properties: Mapping[str, str], data: bytes, owner: str | None = None) -> str:
        """What docker-registry wrote through version 1 of the API: an image with a property `id`; its own id."""
        image, when = str(uuid4()), "2014-01-20 00:00:00.000000"
        (self.folder / "images" / image).write_bytes(data)
        columns = {
            "id": image, "size": len(data), "status": "active", "created_at": when, "updated_at": when, "deleted": 0,
            "disk_format": "raw", "container_format": "docker", "owner": owner, "min_disk": 0, "min_ram": 0,
            "protected": 0, "visibility": "shared", "os_hidden": 0,
        }  # fmt: skip
        location = f"file://{self.folder}/images/{image}"
        with self._database() as database:
            marks = ", ".join("?" * len(columns))
            # These names, and values apart from them.
            database.execute(
                f"insert into images ({', '.join(columns)}) values ({marks})",
                list(columns.values()),
            )
            for name, value in {"id": docker_id, **properties}.items():
                database.execute(
                    "insert into image_properties (image_id, name, value, created_at, updated_at, deleted)"
                    " values (?, ?, ?, ?, ?, 0)",
                    [image, name, value, when, when],
                )
            database.execute(
                "insert into image_locations (image_id, value, created_at, updated_at, deleted, meta_data, status)"
                """ values (?, ?, ?, ?, 0, '{"store": "disk"}', 'active')""",
                [image, location, when, when],
            )
        database.close()
        return image

    def request(self, method: str, path: str, data: bytes | None = None, token: str = "", kind: str = "") -> bytes:
        """A request to its API, as anybody's."""
        headers = {"X-Auth-Token": token, "Content-Type": kind or "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            found: bytes = answer.read()
            return found


@cache
def shared_glance() -> Glance:
    """One without a Keystone, for all tests of this process."""
    return Glance()


@cache
def shared_glance_of_keystone() -> Glance:
    """One behind the Keystone that the tests share."""
    return Glance(shared_keystone())
