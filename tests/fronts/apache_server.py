"""The real Apache with conf/apache.conf in front of a registry."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.clients import tools
from tests.clients.server import Certificates, Registry
from tests.fronts.process import Process, free_port, shipped

#: Where Debian and Red Hat have the modules.
_MODULES = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules")
_LOADED = (
    *("mpm_event", "authz_core", "authz_user", "authn_core", "authn_file", "auth_basic", "env", "headers"),
    *("proxy", "proxy_http", "reqtimeout", "socache_shmcb", "ssl"),
)


def start_apache(
    folder: Path, registry: Registry, certificates: Certificates, passwords: Path | None = None
) -> Process:
    """Serve `registry` over TLS on a free port; `passwords` is a file of users who alone may use it."""
    program = shutil.which("apache2") or shutil.which("httpd") or tools.find("apache2")
    modules = next((path for path in map(Path, _MODULES) if path.is_dir()), None)
    if modules is None:
        raise tools.missing("the modules of Apache are not installed")
    folder.mkdir()
    port = free_port()
    replaced = {
        "*:443": f"*:{port}",
        "registry.example.com": "localhost",
        "/etc/ssl/certs/registry.crt": certificates.server,
        "/etc/ssl/private/registry.key": certificates.server_key,
        "http://127.0.0.1:5000/": f"http://127.0.0.1:{registry.port}/",
        "/etc/apache2/registry.htpasswd": str(passwords or "/dev/null"),
    }
    lines = [
        f"Listen 127.0.0.1:{port}",
        f"ServerRoot {folder}",
        f"DefaultRuntimeDir {folder}",
        f"PidFile {folder}/pid",
        f"Mutex file:{folder} default",
        "ServerName localhost",
        "ErrorLog /dev/stderr",
        *(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in _LOADED),
        # What serves requests is never root.
        *(["User #65534", "Group #65534"] if os.geteuid() == 0 else []),
        shipped("apache.conf", replaced, passwords=passwords is not None),
    ]
    (folder / "apache.conf").write_text("\n".join(lines))
    return Process([program, "-DFOREGROUND", "-f", str(folder / "apache.conf")], port, folder / "log")
