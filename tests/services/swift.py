"""A real Swift on free ports of the loopback interface: proxy, account, container and object server, one device.

Signed in by version 1 as `test:tester` with `testing`, or with Keystone. One of each kind serves all tests of a
process.
"""

import urllib.request
from functools import cache

from tests.clients.tools import find
from tests.services.keystone import Keystone, shared_keystone
from tests.services.openstack import Servers, free_ports

USER, KEY = "test:tester", "testing"

_STORES = ("account", "container", "object")

_PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats {filters} copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
token_life = {token_seconds}
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
username = swift
password = swift
project_name = service
user_domain_name = Default
project_domain_name = Default
interface = public
delay_auth_decision = true
service_token_roles_required = true
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
"""

_STORE = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
swift_dir = {folder}
devices = {folder}/node
mount_check = false
fallocate_reserve = 0
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

# An object's time is in its name on the disk and in what is written beside its bytes.
_AGE = """
import os, sys
from pathlib import Path
from swift.common.utils import Timestamp
from swift.obj.diskfile import read_metadata, write_metadata
prefix, seconds = sys.argv[2], float(sys.argv[3])
for path in Path(sys.argv[1]).glob("objects/*/*/*/*.data"):
    found = read_metadata(str(path))
    if found["name"].startswith(prefix):
        then = Timestamp(float(found["X-Timestamp"]) - seconds).internal
        write_metadata(str(path), {**found, "X-Timestamp": then})
        path.rename(path.parent / f"{then}.data")
"""


class Swift(Servers):
    """Swift, started; `auth_url` is where one signs in, which is Keystone's if there is one."""

    def __init__(self, keystone: Keystone | None = None, token_seconds: int = 3600) -> None:
        super().__init__()
        self._memcached = find("memcached")
        self.keystone = keystone
        self.port, self._memcached_port, *self._stores = free_ports(2 + len(_STORES))
        self.auth_url = f"http://127.0.0.1:{self.port}/auth/v1.0" if keystone is None else keystone.url
        (self.folder / "node" / "d1").mkdir(parents=True)
        (self.folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = test\nswift_hash_path_prefix = test\n"
        )
        for name, port in zip(_STORES, self._stores, strict=True):
            (self.folder / f"{name}.conf").write_text(_STORE.format(name=name, port=port, folder=self.folder))
            self._ring(name, port)
        (self.folder / "proxy.conf").write_text(
            _PROXY.format(
                port=self.port,
                folder=self.folder,
                memcached=self._memcached_port,
                token_seconds=token_seconds,
                filters="tempauth" if keystone is None else "authtoken keystoneauth",
                keystone="" if keystone is None else keystone.url,
            )
        )
        if keystone is not None:
            keystone.catalog("object-store", f"http://127.0.0.1:{self.port}/v1/AUTH_%(tenant_id)s")
        self.start()

    def _ring(self, name: str, port: int) -> None:
        builder = f"{name}.builder"
        for command in (
            ("create", "4", "1", "1"),
            ("add", f"r1z1-127.0.0.1:{port}/d1", "1"),
            ("rebalance",),
        ):
            # A status of 1 is a warning; the interpreter says which is which by the file.
            self.run("python", "-c", _RING, builder, *command)

    def start(self) -> None:
        """Start it unless it runs whole, and return when it answers."""
        if self.running == {"memcached", "proxy", *_STORES}:
            return
        self.stop()
        memcached = [self._memcached, "-l", "127.0.0.1", "-p", str(self._memcached_port), "-U", "0", "-m", "16"]
        self.start_program("memcached", [*memcached, "-u", "root"])
        for name in (*_STORES, "proxy"):
            self.start_program(name, [f"swift-{name}-server", str(self.folder / f"{name}.conf"), "-v"])
        # The proxy answers before those behind it do.
        for port in (*self._stores, self.port):
            self.wait_for(f"http://127.0.0.1:{port}/healthcheck")

    def sign_in(self) -> tuple[str, str]:
        """A token, and the address of the account."""
        if self.keystone is None:
            request = urllib.request.Request(self.auth_url, headers={"X-Auth-User": USER, "X-Auth-Key": KEY})
            with urllib.request.urlopen(request) as answer:
                return answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]
        token = self.keystone.sign_in("registry")
        project = self.keystone.session(token)["project"]["id"]
        return token, f"http://127.0.0.1:{self.port}/v1/AUTH_{project}"

    def make_container(self, name: str) -> None:
        """Make a container."""
        token, url = self.sign_in()
        request = urllib.request.Request(f"{url}/{name}", headers={"X-Auth-Token": token}, method="PUT")
        urllib.request.urlopen(request).close()

    def age(self, container: str, prefix: str, seconds: float) -> None:
        """Let objects be older than they are, whose names begin so."""
        account = self.sign_in()[1].rpartition("/")[2]
        node = str(self.folder / "node" / "d1")
        environment = {"SWIFT_CONF_FILE": str(self.folder / "swift.conf")}
        self.run("python", "-c", _AGE, node, f"/{account}/{container}/{prefix}", str(seconds), environment=environment)


_RING = """
import sys
from swift.cli.ringbuilder import main
try:
    main(["swift-ring-builder", *sys.argv[1:]])
except SystemExit as end:
    sys.exit(0 if end.code in (None, 0, 1) else end.code)
"""


@cache
def shared_swift(with_keystone: bool, kind: str = "") -> Swift:
    """The one that the tests of this process share, as it takes long to start; one for each kind of them."""
    return Swift(shared_keystone() if with_keystone else None)
