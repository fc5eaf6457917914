"""The real nginx with conf/nginx.conf in front of a registry."""

from __future__ import annotations

import os
from pathlib import Path

from tests.clients import tools
from tests.clients.server import Certificates, Registry
from tests.fronts.process import Process, free_port, shipped

_MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/spool;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/unused1;
    uwsgi_temp_path {folder}/unused2;
    scgi_temp_path {folder}/unused3;
    include {folder}/site.conf;
}}
"""


def start_nginx(
    folder: Path, registry: Registry, certificates: Certificates, passwords: Path | None = None
) -> Process:
    """Serve `registry` over TLS on a free port; `passwords` is a file of users who alone may use it."""
    folder.mkdir()
    port = free_port()
    replaced = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "registry.example.com": "localhost",
        "/etc/ssl/certs/registry.crt": certificates.server,
        "/etc/ssl/private/registry.key": certificates.server_key,
        "server 127.0.0.1:5000;": f"server 127.0.0.1:{registry.port};",
        "/var/lib/txregistry/": registry.storage.rstrip("/") + "/",
        "/etc/nginx/registry.htpasswd": str(passwords or "/dev/null"),
    }
    (folder / "site.conf").write_text(shipped("nginx.conf", replaced, passwords=passwords is not None))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))
    return Process([tools.find("nginx"), "-e", "stderr", "-c", str(folder / "nginx.conf")], port, folder / "log")
